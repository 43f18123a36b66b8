"""Which axis of an array is what: one letter an axis, "n" rows, "c" channels, "d", "h", "w", "l" space.

Nobody writes the meaning of axes into a .npy file, so it is inferred, by a rule that can be said in one breath, and
refused where the rule is silent: an axis of at most four next to larger ones is channels, last ("nhwc") or second
("nchw"); without one, (n, l) are signals, (n, h, w) grey pictures and (n, d, h, w) grey volumes.
"""

from __future__ import annotations

from oneprior.core import InputError

MOST = 4
_PLAIN = {1: "l", 2: "hw", 3: "dhw"}


def infer_layout(shape: tuple[int, ...], what: str = "the array") -> str:
    """The layout of rows (n, ...), by the rule above.

    Raises:
        InputError: where it does not decide; names the layouts that would fit.
    """
    return "n" + event_layout(shape[1:], what, rows="n")


def event_layout(shape: tuple[int, ...], what: str = "the array", rows: str = "") -> str:
    """The layout of one event, without rows."""
    dims = len(shape)
    if dims in (2, 3, 4) and shape[-1] <= MOST and min(shape[:-1]) > MOST:
        return _PLAIN[dims - 1] + "c"
    if dims in (2, 3, 4) and shape[0] <= MOST:
        return "c" + _PLAIN[dims - 1]
    if dims == 1 or (dims in (2, 3) and min(shape) > MOST):
        return _PLAIN[dims]
    options = [rows + option for option in _options(dims)]
    shown = tuple(shape) if not rows else ("n", *shape)
    hint = f"say what its axes are, layout={' or '.join(map(repr, options))}" if options else "needed are 1 to 3 axes"
    raise InputError(f"{what}: shape ({', '.join(map(str, shown))}) can be read in more than one way; {hint}")


def array_layout(shape: tuple[int, ...]) -> str:
    """The layout of an array in memory: (n, channels, *space) as everywhere in the package, or (n, l) signals.

    Raises:
        InputError: for what is more likely pictures without a channel axis, or with the channels last.
    """
    event = shape[1:]
    grey = len(event) == 2 and event[0] > MOST
    last = len(event) in (3, 4) and event[-1] <= MOST and min(event[:-1]) > MOST
    if len(event) not in (1, 2, 3, 4) or grey or last:
        options = " or ".join(repr("n" + option) for option in _options(len(event))) or "an array with 2 to 5 axes"
        raise InputError(f"an array of shape {tuple(shape)} is not clearly (n, channels, *space); say layout={options}")
    return "n" + ("l" if len(event) == 1 else "c" + _PLAIN[len(event) - 1])


def check_layout(layout: str, shape: tuple[int, ...], what: str = "the array") -> str:
    """A layout given by the user, checked against the array."""
    good = {"n" + option for dims in (1, 2, 3, 4) for option in _options(dims)}
    if layout not in good or len(layout) != len(shape):
        raise InputError(
            f"{what}: layout {layout!r} does not describe shape {tuple(shape)}; "
            f"known are {', '.join(sorted((o for o in good if len(o) == len(shape)), key=len))}"
        )
    return layout


def _options(dims: int) -> list[str]:
    plain = [_PLAIN[dims]] if dims in _PLAIN else []
    coloured = ["c" + _PLAIN[dims - 1], _PLAIN[dims - 1] + "c"] if dims - 1 in _PLAIN else []
    return plain + coloured
