"""The real sets of the benchmarks beside Fashion-MNIST, prepared once and kept in runs/data: brain slices and films.

- `brains`: axial slices of 185 T1 heads (IXI) at 4 mm, 48 x 40, front up, twelve around the lateral ventricles of each,
  grey values so that each head's 99th percentile is 200 of 255, with the
  share of the brain that the ventricles fill in the slice (from DLMUSE labels, the output of a network). The last 35
  subjects are held out.
- `films`: PneumoniaMNIST, 28 x 28, normal or pneumonia.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Options, fashion
from oneprior.core import AffineMap, ConditionSpec
from oneprior.data import array_dataset
from oneprior.data.batch import Dataset

VENTRICLES = (51, 52)
"""DLMUSE's right and left lateral ventricle."""
SLICES, HELD_OUT = 12, 35
_DENSITY = 0.06  # share of ventricles that reads as 1


@dataclass(frozen=True)
class Brains:
    """Slices in [-1, 1], (n, 1, 48, 40), by subject.

    Args:
        x: the slices.
        ventricle: share of the brain in the slice that is lateral ventricle, (n,), 0 to about .15.
        mask: which pixels are ventricle (at least half), (n, 48, 40) bool.
        subject: number of the subject, (n,).
    """

    x: Tensor
    ventricle: Tensor
    mask: Tensor
    subject: Tensor

    def take(self, index: Tensor) -> Brains:
        """Some of the rows."""
        return Brains(self.x[index], self.ventricle[index], self.mask[index], self.subject[index])

    @property
    def train(self) -> Brains:
        """All subjects but the last 35."""
        return self.take((self.subject < int(self.subject.max()) + 1 - HELD_OUT).nonzero()[:, 0])

    @property
    def held_out(self) -> Brains:
        """The last 35 subjects."""
        return self.take((self.subject >= int(self.subject.max()) + 1 - HELD_OUT).nonzero()[:, 0])


def brains(options: Options) -> Brains:
    """All slices of all subjects."""
    path = options.runs / "data" / "brain-slices.npz"
    if not path.exists():
        _cut_brains(options.data.parent / "brain-ixi-t1", path)
    with np.load(path, allow_pickle=False) as file:
        x, ventricle, mask, subject = (torch.from_numpy(file[k]) for k in ("x", "ventricle", "mask", "subject"))
    return Brains(x.float()[:, None] / 127.5 - 1, ventricle, mask, subject)


def _cut_brains(source: Path, path: Path) -> None:
    with np.load(source / "ixi185_t1_2mm_brain.npz") as file:
        t1 = torch.from_numpy(file["t1"])
    with np.load(source / "ixi185_dlmuse_2mm_labels.npz") as file:
        labels = torch.from_numpy(file["lab"])
    ventricle = torch.isin(labels, torch.tensor(VENTRICLES, dtype=labels.dtype))
    height = torch.arange(labels.shape[-1], dtype=torch.float64)
    per_slice = ventricle.sum((1, 2)).double()
    middle = (per_slice * height).sum(1) / per_slice.sum(1)
    levels = (middle.round().long()[:, None] + torch.arange(SLICES) - SLICES // 2).clamp(0, labels.shape[-1] - 1)
    rows = torch.arange(len(t1))[:, None].expand_as(levels)

    def cut(volume: Tensor) -> Tensor:
        upright = volume.movedim(-1, 1).transpose(-1, -2).flip(-2)  # (subject, level, front to back, right to left)
        return upright[rows, levels].flatten(0, 1).float()

    slices, inside, brain = cut(t1), cut(ventricle), cut(labels > 0)
    bright = torch.stack([head[head > 0].float().quantile(0.99) for head in t1.flatten(1)[:, ::7]])
    slices = (slices * (200 / bright).repeat_interleave(SLICES)[:, None, None]).clamp_max(255)
    half = [torch.nn.functional.avg_pool2d(part[:, None], 2)[:, 0] for part in (slices, inside)]
    share = inside.sum((1, 2)) / brain.sum((1, 2)).clamp_min(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        x=half[0].round().to(torch.uint8).numpy(),
        ventricle=share.numpy(),
        mask=(half[1] >= 0.5).numpy(),
        subject=rows.flatten().numpy(),
    )


def as_condition(ventricle: Tensor) -> Tensor:
    """The share of ventricles as the vector that the brain prior is told, (n, 1), about -1 to 1."""
    return (ventricle / _DENSITY - 1).reshape(-1, 1)


def brain_dataset(options: Options) -> Dataset:
    """The training slices, left and right, with the condition `ventricle`."""
    data = brains(options).train
    x = torch.cat([data.x, data.x.flip(-1)])
    told = as_condition(data.ventricle.repeat(2)).float()
    pixels = ((x + 1) * 127.5).round().to(torch.uint8).numpy()
    units = AffineMap.from_range(0, 255, "grey level")
    spec = ConditionSpec("ventricle", "vector", (1,))
    return array_dataset(pixels, units=units, layout="nchw", conditions={spec: told.numpy()})


@dataclass(frozen=True)
class Films:
    """Chest films in [-1, 1], (n, 1, 28, 28), and labels: 0 normal, 1 pneumonia."""

    train: Tensor
    labels: Tensor
    val: Tensor
    val_labels: Tensor
    test: Tensor
    test_labels: Tensor


def films(options: Options) -> Films:
    """Read the file."""
    with np.load(options.data.parent / "chest-xray-pneumoniamnist-balanced" / "pneumoniamnist.npz") as file:
        parts = []
        for part in ("train", "val", "test"):
            parts.append(torch.from_numpy(file[f"{part}_images"]).float()[:, None] / 127.5 - 1)
            parts.append(torch.from_numpy(file[f"{part}_labels"]).long().reshape(-1))
    return Films(*parts)


def film_dataset(options: Options) -> Dataset:
    """The training films with the condition `label`."""
    data = films(options)
    pixels = ((data.train + 1) * 127.5).round().to(torch.uint8).numpy()
    units = AffineMap.from_range(0, 255, "grey level")
    return array_dataset(pixels, data.labels.numpy(), units, layout="nchw")


def fashion_dataset(options: Options) -> Dataset:
    """The 59,000 training images of Fashion-MNIST with the condition `label`."""
    data = fashion(options)
    pixels = ((data.train + 1) * 127.5).round().to(torch.uint8).numpy()
    return array_dataset(pixels, data.labels.numpy(), AffineMap.from_range(0, 255, "grey level"), layout="nchw")
