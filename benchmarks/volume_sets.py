"""Whole heads to train 3-D priors on, prepared once as files: runs/data/heads-half and runs/data/heads-half-test.

`heads`: 185 T1 volumes (IXI, CC BY-SA 3.0; brain only), axes right, anterior, superior: 80 x 96 x 80 voxels of 2 mm,
or 40 x 48 x 40 of 4 mm by the mean of 2 x 2 x 2. Grey values are scaled so that each head's 99th percentile is 200 of
255. The first 150 subjects are trained on, left and right and mirrored; the last 35 are held out.

Each head is a NIfTI file of its own, named by its subject, so that what a user types works on them:

    oneprior train ldm --data runs/data/heads-half --subject '^(\\w+)' --held-out 0.05 --out runs/heads

The affine is that of a box of this spacing with its middle at (0, 0, 0): where the head lay in the scanner is known for
four of the subjects only, whose original files are kept.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.domain_sets import SUBJECTS_HELD_OUT
from benchmarks.harness import Options
from oneprior.core import Geometry, replacing
from oneprior.data.volumes import as_tuples, decode_nifti, encode_nifti

NAMES = ("heads",)
FORM = (40, 48, 40)
SPACING = 4.0


@dataclass(frozen=True)
class Heads:
    """Held-out volumes, and where those to train on are.

    Args:
        training: a folder of NIfTI files, named by their subjects (`domain_sets.SUBJECT`).
        tune: volumes that rivals are tuned on, from the training side, (12, 1, 40, 48, 40) in [-1, 1].
        test: held-out volumes in [-1, 1], (35, 1, 40, 48, 40).
        files: of the held-out volumes.
    """

    training: Path
    tune: Tensor
    test: Tensor
    files: tuple[Path, ...]

    @property
    def brain(self) -> Tensor:
        """Which voxels of `test` are brain, (35, 1, 40, 48, 40) bool."""
        return self.test > -1


def heads(options: Options) -> Heads:
    """Read the volumes, prepared on the first call."""
    folder = options.runs / "data"
    training, held_out = folder / "heads-half", folder / "heads-half-test"
    if not held_out.exists():
        _prepare(options.data.parent / "brain-ixi-t1" / "ixi185_t1_2mm_brain.npz", training, held_out)
    known = sorted(path for path in training.glob("*.nii.gz") if "mirrored" not in path.name)
    some = [known[k] for k in np.linspace(0, len(known) - 1, 12).round().astype(int)]
    files = tuple(sorted(held_out.glob("*.nii.gz")))
    return Heads(training, _read(some), _read(files), files)


def _prepare(source: Path, training: Path, held_out: Path) -> None:
    with np.load(source) as file:
        t1 = torch.from_numpy(file["t1"])
    bright = torch.stack([head[head > 0].float().quantile(0.99) for head in t1.flatten(1)[:, ::7]])
    x = (t1.float() * (200 / bright)[:, None, None, None]).clamp_max(255)
    x = torch.nn.functional.avg_pool3d(x[:, None], 2)[:, 0].round().to(torch.uint8).numpy()
    last = len(x) - SUBJECTS_HELD_OUT
    known = {f"head{k:03}": head for k, head in enumerate(x[:last])}
    known |= {f"{name}-mirrored": head[::-1] for name, head in known.items()}
    _write(training, known)
    _write(held_out, {f"head{k:03}": x[k] for k in range(last, len(x))})


def _write(folder: Path, volumes: dict[str, np.ndarray]) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True, exist_ok=True)
    for name, volume in volumes.items():
        save(volume, partial / f"{name}.nii.gz")
    partial.rename(folder)


def save(volume: np.ndarray, path: Path) -> None:
    """One volume, (40, 48, 40), as NIfTI in its place, written under another name and renamed."""
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = [-SPACING * (n - 1) / 2 for n in FORM]
    geometry = Geometry(volume.dtype.name, (SPACING,) * 3, as_tuples(affine), "nifti")
    with replacing(path) as partial:
        encode_nifti(np.ascontiguousarray(volume)[None, None], partial, geometry)


def _read(files: tuple[Path, ...] | list[Path]) -> Tensor:
    volumes = np.stack([decode_nifti(path.read_bytes(), path.name).event for path in files])
    return torch.from_numpy(volumes).float() / 127.5 - 1
