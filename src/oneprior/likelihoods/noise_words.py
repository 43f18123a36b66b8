"""Laws of noise as words, `name:value:key=value`, or no more than a number.

    parse_noise_law("5%", units)                  # Gaussian, 5 % of the range of values
    parse_noise_law("rician:0.05", units)
    parse_noise_law("poisson:200", units)         # 200 counts at the top of the range

Words are read once, where the range of values is known, and kept as numbers in the units of y. Shares ("5%") make
everything equivariant: data and range multiplied by 255 give the same posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from oneprior.core import AffineMap, InputError
from oneprior.likelihoods.noise import (
    GaussianNoise,
    LaplaceNoise,
    LevelledNoise,
    Noise,
    OutlierNoise,
    PoissonNoise,
    RicianNoise,
    UnknownNoise,
)
from oneprior.operators.words import near, no_values, number


@dataclass(frozen=True)
class NoiseWords:
    """How one law is written.

    Args:
        name: of the law.
        usage: the words, with what may vary in capitals.
        meaning: what it says, one sentence.
        examples: words that parse.
        build: values, options and the range of values -> the law.
        keys: the options that it takes.
    """

    name: str
    usage: tuple[str, ...]
    meaning: str
    examples: tuple[str, ...]
    build: Callable[[list[str], dict[str, str], AffineMap], Noise]
    keys: tuple[str, ...] = ()


def parse_noise(text: str | float, units: AffineMap) -> float:
    """A standard deviation in the user's units.

    Args:
        text: a number in the units of the measurement, or "5%" of its value range.
        units: says what the range is.

    Raises:
        InputError: for anything else, or a negative number.
    """
    share = isinstance(text, str) and text.strip().endswith("%")
    try:
        found = float(text.strip().rstrip("%")) if isinstance(text, str) else float(text)
    except (ValueError, TypeError):
        raise InputError(
            f"noise is a number or a percentage, such as 0.05 or 5% (or a tensor, one level a row); got {text!r}"
        ) from None
    if not 0 <= found < float("inf"):
        raise InputError(f"noise is a standard deviation >= 0, got {text!r}")
    low, high = units.range
    return found / 100 * (high - low) if share else found


def parse_noise_law(words: str | float | Tensor | Noise, units: AffineMap) -> Noise:
    """The law of noise that the words name, its numbers in the user's units.

    Args:
        words: a number, "5%", one level a row (n,), or name:value:key=value; see `noise_grammar`.
        units: the range of values, of which percentages are told.

    Raises:
        InputError: for an unknown name, value or option; says what is near and what is needed.
    """
    if isinstance(words, Noise):
        return words
    if isinstance(words, Tensor):
        return GaussianNoise(words)
    if not isinstance(words, str):
        return GaussianNoise(parse_noise(words, units))
    name, *fields = words.strip().split(":")
    if _is_number(name) and not fields:
        return GaussianNoise(parse_noise(name, units))
    entry = _NOISES.get(name)
    if entry is None:
        raise InputError(f"noise is a number such as 0.05, a share such as 5%, or a law; {name!r}{near(name, _NOISES)}")
    options = dict(field.split("=", 1) for field in fields if "=" in field)
    unknown = [key for key in options if key not in entry.keys]
    if unknown:
        hint = near(unknown[0], entry.keys) if entry.keys else "; it has none"
        raise InputError(f"noise {name!r} has no option {unknown[0]!r}{hint}")
    return entry.build([field for field in fields if "=" not in field], options, units)


def noise_grammar() -> list[NoiseWords]:
    """How every law of noise is written, for help pages."""
    return list(_NOISES.values())


def _is_number(text: str) -> bool:
    """Whether it is meant as a number: a digit or a sign begins it, or nothing is there."""
    return not text or text[0] in "+-.%0123456789" or text.lower() in ("nan", "inf")


def _levelled(law: type[LevelledNoise]) -> Callable[[list[str], dict[str, str], AffineMap], Noise]:
    def build(values: list[str], options: dict[str, str], units: AffineMap) -> Noise:
        return law(_sigma(law.name, values, units))

    return build


def _sigma(name: str, values: list[str], units: AffineMap) -> float:
    no_values(name, values, 1)
    if not values:
        raise InputError(f"noise {name!r} needs its level, such as {name}:5%")
    sigma = parse_noise(values[0], units)
    if sigma == 0 and name != GaussianNoise.name:
        raise InputError(f"noise {name!r} needs a level > 0; a measurement without noise is `0`")
    return sigma


def _outliers(values: list[str], options: dict[str, str], units: AffineMap) -> Noise:
    sigma = _sigma("outliers", values, units)
    text = options.get("share", "0.1")
    share = number("share", text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    spread = parse_noise(options.get("spread", "50%"), units)
    if not 0 < share < 1 or not spread > sigma:
        raise InputError(f"outliers are a share between 0 and 1, wider than the noise; got {share:g} and {spread:g}")
    return OutlierNoise(sigma, share, spread)


def _unknown(values: list[str], options: dict[str, str], units: AffineMap) -> Noise:
    if len(values) not in (0, 2):
        raise InputError(f"unknown noise takes the least and the largest level, as in unknown:0.1%:100%; got {values}")
    low, high = (parse_noise(text, units) for text in values or ("0.1%", "100%"))
    if not 0 < low < high:
        raise InputError(f"the levels of unknown noise are 0 < low < high, got {low:g} and {high:g}")
    return UnknownNoise(low, high)


def _poisson(values: list[str], options: dict[str, str], units: AffineMap) -> Noise:
    no_values("poisson", values, 1)
    low, high = units.range
    if values:
        if options:
            raise InputError("poisson takes either the counts at the top of the range or gain and black, not both")
        gain, black = number("the counts at the top of the range", values[0]) / (high - low), low
    else:
        gain, black = number("gain", options.get("gain", "1")), number("black", options.get("black", "0"))
        if not options and low < 0:
            raise InputError(
                f"`poisson` means that the measurement is counts, and its range begins at {low:g}: give the range in "
                "counts (units=, --value-range 0 255), or poisson:PEAK with the counts at the top of the range"
            )
    if not 0 < gain < float("inf"):
        raise InputError(f"poisson needs counts > 0, got a gain of {gain:g}")
    return PoissonNoise(gain, black)


_NOISES: Mapping[str, NoiseWords] = {
    entry.name: entry
    for entry in (
        NoiseWords(
            "gaussian",
            ("SIGMA", "SHARE%", "gaussian:SIGMA"),
            "Gaussian; the standard deviation in the units of the measurement, or as a share of the range of values. "
            "0 is a constraint: the measurement is exact.",
            ("0.05", "5%", "gaussian:5%", "0"),
            _levelled(GaussianNoise),
        ),
        NoiseWords(
            "unknown",
            ("unknown", "unknown:LOW:HIGH"),
            "Gaussian of a level that is inferred with the image, log-uniform between 0.1 % and 100 % of the range.",
            ("unknown", "unknown:1%:20%"),
            _unknown,
        ),
        NoiseWords(
            "poisson",
            ("poisson", "poisson:PEAK", "poisson:gain=GAIN:black=VALUE"),
            "Counts: the measurement itself is counts, or PEAK counts fall at the top of the range and none at its "
            "bottom, or GAIN counts make one unit above black.",
            ("poisson", "poisson:200"),
            _poisson,
            ("gain", "black"),
        ),
        NoiseWords(
            "rician",
            ("rician:SIGMA",),
            "Magnitudes of MRI: the standard deviation of the real and of the imaginary part.",
            ("rician:5%",),
            _levelled(RicianNoise),
        ),
        NoiseWords(
            "laplace",
            ("laplace:SIGMA",),
            "Heavier tails than Gaussian in every entry; the standard deviation.",
            ("laplace:5%",),
            _levelled(LaplaceNoise),
        ),
        NoiseWords(
            "outliers",
            ("outliers:SIGMA:share=SHARE:spread=SPREAD",),
            "Gaussian, but a share of the entries (0.1) is far off, by a standard deviation of SPREAD (50%).",
            ("outliers:5%", "outliers:5%:share=0.02:spread=100%"),
            _outliers,
            ("share", "spread"),
        ),
    )
}
