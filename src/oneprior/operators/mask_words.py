"""Masks as words: a half, a box, a random share, or the dark part of a picture, an array or a volume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.mask import Mask, box_missing, random_missing, side_missing, spell, unspell, voice_missing
from oneprior.operators.words import Grammar, near, no_values, number, spelled, whole

if TYPE_CHECKING:
    import numpy as np

_SIDES = ("left", "right", "top", "bottom", "front", "back")


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    space = tuple(in_shape[1:])
    if "bits" in options:
        shape = tuple(whole("shape", n) for n in options.get("shape", "").split("x"))
        keep = unspell(options["bits"], shape)
        return Mask(keep, in_shape, spell(keep, unquote(options.get("file", ""))))
    kind = values[0] if values else options.get("file", "")
    no_values(f"mask:{kind}", values, 2 if kind in ("box", "random", "voice") else 1)
    if kind == "voice":
        which, count = (
            whole("voice", word) for word in (values[1] if len(values) > 1 else "1", options.get("of", "4"))
        )
        return Mask(voice_missing(tuple(in_shape), which, count), in_shape, f"mask:voice:{which}:of={count}")
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
        keep = read_mask(kind)
        if tuple(keep.shape) not in (tuple(in_shape[1:]), tuple(in_shape)):
            size, needed = (" x ".join(map(str, shape)) for shape in (keep.shape, in_shape[1:]))
            raise InputError(f"mask file {kind!r} is {size} and the event is {needed}: bring the mask to that size")
        return Mask(keep, in_shape, spell(keep, Path(kind).name))
    raise InputError(
        f"mask has no form {kind!r}{near(kind, (*_SIDES, 'box', 'random', 'voice'))}; or give a file: a picture, .npy "
        "or NIfTI"
    )


def read_mask(path: str | Path) -> Tensor:
    """A picture, an array (.npy) or a volume (NIfTI): entries above half of its range are kept, dark ones are missing.

    Returns:
        bool, of the shape of the file; of a volume in its own order of axes, which is that of events read from NIfTI.

    Raises:
        InputError: names the file and the reason.
    """
    import numpy as np

    path = Path(path)
    if not path.is_file():
        raise InputError(f"mask file {str(path)!r} does not exist")
    try:
        values = np.nan_to_num(_values(path).astype("float64"))
    except Exception as error:  # the libraries raise nearly every built-in exception on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify image file" in reason:
            reason = "it is no picture, .npy or NIfTI (.nii, .nii.gz)"
        raise InputError(f"mask file {str(path)!r} cannot be read: {reason}") from None
    if not values.size:
        raise InputError(f"mask file {str(path)!r} holds no values (shape {values.shape})")
    keep = torch.from_numpy(values)
    return keep > (keep.max() + min(float(keep.min()), 0.0)) / 2


def _values(path: Path) -> np.ndarray:
    """The numbers of a mask's file."""
    import numpy as np

    name = path.name.lower()
    if name.endswith(".npy"):
        return np.load(path, allow_pickle=False)
    if name.endswith((".nii", ".nii.gz")):
        import nibabel as nib

        values = np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
        while values.ndim > 2 and values.shape[-1] == 1:  # a single slice is a picture, as of events
            values = values[..., 0]
        return values
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


WORDS = Grammar(
    "mask",
    (
        "mask:left|right|top|bottom|front|back",
        "mask:box:SIZE",
        "mask:random:FRACTION:seed=S",
        "mask:FILE",
        "mask:voice:K:of=N",
    ),
    "A half, a middle box (SIZE of each side), a random FRACTION, the dark part of FILE, or of music the K-th of N "
    "voices is missing; FILE has the event's size: a picture, .npy, or NIfTI.",
    ("mask:left", "mask:box:0.5", "mask:random:0.7:seed=0"),
    _parse,
    ("size", "fraction", "seed", "file", "bits", "shape", "of"),
)
