"""Masks as words: a half, a box, a random share, or the dark part of a picture."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.mask import Mask, box_missing, random_missing, side_missing, unspell
from oneprior.operators.words import Grammar, near, no_values, number, spelled, whole

_SIDES = ("left", "right", "top", "bottom", "front", "back")


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    space = tuple(in_shape[1:])
    if "bits" in options:
        shape = tuple(whole("shape", n) for n in options.get("shape", "").split("x"))
        return Mask(unspell(options["bits"], shape), in_shape)
    kind = values[0] if values else options.get("file", "")
    no_values(f"mask:{kind}", values, 2 if kind in ("box", "random") else 1)
    if kind in _SIDES:
        return Mask(side_missing(space, kind), in_shape, f"mask:{kind}")
    if kind == "box":
        size = number("size", options.get("size", values[1] if len(values) > 1 else "0.5"))
        return Mask(box_missing(space, size), in_shape, f"mask:box:{spelled(size)}")
    if kind == "random":
        fraction = number("fraction", options.get("fraction", values[1] if len(values) > 1 else "0.7"))
        seed = whole("seed", options.get("seed", "0"))
        spec = f"mask:random:{spelled(fraction)}:seed={seed}"
        return Mask(random_missing(space, fraction, seed), in_shape, spec)
    if Path(kind).suffix or kind == options.get("file"):
        return Mask(_read_mask(kind, in_shape), in_shape)
    raise InputError(
        f"mask has no form {kind!r}{near(kind, (*_SIDES, 'box', 'random'))}; or give a picture's file name"
    )


def _read_mask(path: str, in_shape: torch.Size) -> Tensor:
    """A picture or array of the event's size: entries above half of its range are kept, dark ones are missing."""
    import numpy as np
    from PIL import Image

    if not Path(path).is_file():
        raise InputError(f"mask file {path!r} does not exist")
    try:
        if Path(path).suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Image.open(path) as picture:
                values = np.asarray(picture.convert("L"))
    except (OSError, ValueError) as error:
        raise InputError(f"mask file {path!r} cannot be read: {error}") from None
    if values.shape not in (tuple(in_shape[1:]), tuple(in_shape)):
        wanted = "x".join(map(str, in_shape[1:]))
        raise InputError(f"mask file {path!r} has shape {values.shape}; the event needs {wanted}. Resize the mask.")
    values = torch.from_numpy(values.astype("float64"))
    return values > (values.max() + min(float(values.min()), 0.0)) / 2


WORDS = Grammar(
    "mask",
    ("mask:left|right|top|bottom|front|back", "mask:box:SIZE", "mask:random:FRACTION:seed=S", "mask:FILE"),
    "A half, a middle box (SIZE of each side), a random FRACTION, or the dark part of FILE is missing.",
    ("mask:left", "mask:box:0.5", "mask:random:0.7:seed=0"),
    _parse,
    ("size", "fraction", "seed", "file", "bits", "shape"),
)
