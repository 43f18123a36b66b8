"""Files that cannot be restored as they are, told in terms of files and options: of another size, or transparent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Size

from oneprior.core import InputError
from oneprior.data.pictures import PICTURES, see_through
from oneprior.operators.base import Operator
from oneprior.tasks.tiling import can_tile, larger
from oneprior.training import Run


def check_size(path: Path, given: Size, event_shape: Size, run: Run, instrument: Operator | None) -> None:
    """Raises `InputError` where a file is no measurement of an event of the run's size, nor of a larger one in tiles.

    Args:
        path: of the file.
        given: shape of what it holds, (channels, *space).
        event_shape: of the events that it would measure; the run's own where none fits.
        run: the prior.
        instrument: that measures an event of the run's size; None where the file is a clean event of a study.
    """
    own = run.event_shape
    measured = given == own if instrument is None else given == instrument.out_shape
    if event_shape == own and (measured or (instrument is not None and instrument.keeps_pixels and given == own)):
        return
    tiles = event_shape != own and larger(event_shape, own)
    if tiles and (run.conditions or can_tile(run.whole_prior())):  # some can with a condition only
        return
    told, size, needed = "--study" if instrument is None else "--input", given, own
    if given[0] == own[0] and len(given) == len(own):
        size, needed = given[1:], own[1:]
    said = f"{told} {path} is {_by(size)} and the run is of {_by(needed)}"
    remedies = ["--fit resize, cover, crop or pad brings the file to the size that is needed"]
    if instrument is not None and not instrument.keeps_pixels and given == own:
        remedies = ["it has the size of what is restored: to degrade it first, give it as --study"]
    if instrument is not None:
        if not instrument.keeps_pixels and instrument.out_shape != own:
            said += f", of which --operator {instrument.title} makes {_made(instrument.out_shape, own)}"
        if coarser := _coarser(given, own):
            remedies.append(f"--operator downsample:{coarser} restores the finer picture of which it is the means")
    if tiles:
        remedies.append(
            f"larger ones are covered with tiles by a ppca without classes, a diffusion, a vae or a gan, not by this "
            f"{run.family} run"
        )
    raise InputError(f"{said}: {'; '.join(remedies)}")


def check_opacity(path: Path) -> None:
    """Raises `InputError` for a measurement that is transparent somewhere: which values were measured is not known."""
    if path.suffix.lower() not in PICTURES or not path.is_file():
        return
    try:
        transparent = see_through(path.read_bytes())
    except Exception:  # whatever is wrong with the file, its reader says so
        return
    if transparent:
        raise InputError(
            f"--input {path} is partly transparent, and a measurement is not: save it without its alpha channel "
            "(ImageMagick: magick IN -alpha off OUT), or laid over white (-background white -alpha remove)"
        )


def _coarser(given: Size, own: Size) -> str:
    """The factors by which a file is coarser than an event, as the operator words them; empty where it is not."""
    if len(given) != len(own) or given[0] != own[0] or any(n % k for n, k in zip(own, given, strict=True)):
        return ""
    factors = [n // k for n, k in zip(own[1:], given[1:], strict=True)]
    if max(factors) == 1:
        return ""
    return str(factors[0]) if len(set(factors)) == 1 else "x".join(map(str, factors))


def _made(shape: Size, own: Size) -> str:
    return _by(shape[1:]) if len(shape) == len(own) else f"{shape.numel()} numbers"


def _by(space: Sequence[int]) -> str:
    return " x ".join(map(str, space))
