"""MRI as words: a pattern of samples, and the coils.

mri:random:4:center=0.08:seed=0      mri:equispaced:4      mri:radial:20      mri:mask.npy:maps=maps.npy
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.coils import birdcage
from oneprior.operators.mask import spell, unspell
from oneprior.operators.mri import MRI
from oneprior.operators.mri_masks import equispaced_encodings, random_encodings
from oneprior.operators.mri_sampling import Cartesian, Sampling
from oneprior.operators.nufft import NonCartesian, spokes
from oneprior.operators.words import Grammar, near, no_values, number, path_of, spelled, spelled_path, whole

_CENTER = 0.08
_OPTIONS = {
    "random": ("center", "seed"),
    "equispaced": ("center",),
    "radial": ("order",),
    "full": (),
    "file": ("file",),
    "bits": ("bits", "shape"),
}
_COMMON = ("coils", "maps", "phase")


def sampling_of(values: list[str], options: dict[str, str], space: tuple[int, ...]) -> tuple[Sampling, str]:
    """The sampling that the words after `mri:` name, and its words.

    Raises:
        InputError: for an unknown pattern, value or option, or a mask that does not fit.
    """
    kind = values[0] if values else "bits" if "bits" in options else "file"
    if kind not in _OPTIONS and (Path(kind).suffix or kind == ""):
        kind, options = "file", {**options, "file": kind}
    if kind not in _OPTIONS or (kind == "file" and "file" not in options):
        patterns = ("random", "equispaced", "radial", "full")
        raise InputError(f"mri has no pattern {kind!r}{near(kind, patterns)}; or give the mask's file name (.npy)")
    for key in options:
        if key not in (*_OPTIONS[kind], *_COMMON):
            raise InputError(f"mri:{kind} has no option {key!r}{near(key, (*_OPTIONS[kind], *_COMMON))}")
    no_values(f"mri:{kind}", values, 1 if kind in ("file", "full", "bits") else 2)
    if kind == "radial":
        count = whole("the number of spokes", values[1] if len(values) > 1 else "")
        order = options.get("order", "golden")
        if order not in ("golden", "uniform"):
            raise InputError(f"spokes come in the order golden or uniform, got {order!r}")
        return NonCartesian(space, spokes(space, count, order)), f"mri:radial:{count}:order={order}"
    keep, words = _mask(kind, values, options, space)
    return Cartesian(keep), words


def _mask(kind: str, values: list[str], options: dict[str, str], space: tuple[int, ...]) -> tuple[Tensor, str]:
    if kind == "full":
        return torch.ones(space, dtype=torch.bool), "mri:full"
    if kind in ("random", "equispaced"):
        factor = number("the acceleration", values[1] if len(values) > 1 else "4")
        center = number("center", options.get("center", f"{_CENTER}"))
        if kind == "equispaced":
            return equispaced_encodings(
                space, factor, center
            ), f"mri:equispaced:{spelled(factor)}:center={spelled(center)}"
        seed = whole("seed", options.get("seed", "0"))
        words = f"mri:random:{spelled(factor)}:center={spelled(center)}:seed={seed}"
        return random_encodings(space, factor, center, seed), words
    if kind == "bits":
        keep = unspell(options["bits"], tuple(whole("shape", n) for n in options.get("shape", "").split("x")))
    else:
        keep = torch.from_numpy(_array(options["file"], "k-space mask") != 0)
    words = "mri:" + spell(keep).partition(":")[2]
    if keep.shape == torch.Size(space[-1:]):
        keep = keep.expand(space)  # lines
    if keep.shape != torch.Size(space):
        raise InputError(
            f"the k-space mask has shape {tuple(keep.shape)}; the event needs {tuple(space)}, or {tuple(space[-1:])} "
            "for lines along the last axis"
        )
    return keep.contiguous(), words


def _array(path: str, what: str) -> np.ndarray:
    """An array of a .npy file.

    Raises:
        InputError: where it is missing or damaged, or holds what are no finite numbers.
    """
    if not Path(path).is_file():
        raise InputError(f"{what} file {path!r} does not exist")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{what} file {path!r} cannot be read as .npy: {error}") from None
    if values.dtype.kind not in "biufc" or not np.isfinite(values).all():
        raise InputError(f"{what} file {path!r} holds {values.dtype} with NaN, infinities or what is no number")
    return values


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    space = tuple(in_shape[1:])
    sampling, words = sampling_of(values, options, space)
    maps = phase = None
    if "coils" in options and "maps" in options:
        raise InputError("give coils= (simulated maps) or maps= (a file of maps), not both")
    if "coils" in options:
        coils = whole("coils", options["coils"])
        maps, words = birdcage(space, coils), f"{words}:coils={coils}"
    if "maps" in options:
        path = path_of(options["maps"])
        maps, words = torch.from_numpy(_array(str(path), "coil map")), f"{words}:maps={spelled_path(path)}"
    if "phase" in options:
        path = path_of(options["phase"])
        angle = _array(str(path), "phase map")
        if np.iscomplexobj(angle):
            raise InputError(f"a phase map is in radians, and {str(path)!r} is complex: give its angle (numpy.angle)")
        phase = torch.from_numpy(angle).double()
        words = f"{words}:phase={spelled_path(path)}"
    return MRI(in_shape, sampling, maps, phase, words)


WORDS = Grammar(
    "mri",
    (
        "mri:random:R:center=C:seed=S",
        "mri:equispaced:R:center=C",
        "mri:radial:SPOKES:order=golden|uniform",
        "mri:FILE.npy",
        "mri:full",
    ),
    "Fourier samples: 1 of R, with the middle share C in full, or spokes; coils=N (simulated), maps=FILE, phase=FILE.",
    ("mri:random:4:center=0.08:seed=0", "mri:equispaced:4:coils=4", "mri:radial:20"),
    _parse,
    ("center", "seed", "order", "file", "bits", "shape", "coils", "maps", "phase"),
)
