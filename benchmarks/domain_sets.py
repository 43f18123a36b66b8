"""The two domains that priors are trained on, prepared once and kept in runs/data: chest films and brain slices.

- `chest`: 10,000 frontal chest films (MedNIST class CXR, CC BY-SA 4.0), 64 x 64, or 32 x 32 by the mean of 2 x 2
  pixels. The first 9,000 are trained on; the last 1,000, less any that is also among the first, are held out.
- `brain`: axial slices of 185 T1 heads (IXI, CC BY-SA 3.0; brain only), front up, the 24 levels of 2 mm around the
  lateral ventricles of each, 96 x 80 at 2 mm, or 48 x 40 at 4 mm by the mean of 2 x 2 voxels. Grey values are scaled
  so that each head's 99th percentile is 200 of 255. The first 150 subjects are trained on, left and right and mirrored;
  the last 35 are held out.

Without an accelerator everything is done at half the size.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.harness import Options

LEVELS, SUBJECTS_HELD_OUT = 24, 35
FILMS_HELD_OUT = 1000
VENTRICLES = (51, 52)
"""DLMUSE's right and left lateral ventricle."""
NAMES = ("chest", "brain")
SUBJECT = r"^(\w+)"
"""The subject in the name of a training picture: no subject is then trained on and held out."""


@dataclass(frozen=True)
class Domain:
    """Held-out events of a domain, and where the events to train on are.

    Args:
        name: chest or brain.
        training: a folder of grey pictures, named by their subjects (`SUBJECT`).
        tune: events that rivals are tuned on, from the training side, (100, 1, h, w) in [-1, 1].
        test: held-out events in [-1, 1], (n, 1, h, w).
        body: which pixels of `test` are body, (n, 1, h, w) bool.
        subject: whose `test` is, (n,); films have no subject, each counts as one.
    """

    name: str
    training: Path
    tune: Tensor
    test: Tensor
    body: Tensor
    subject: Tensor

    def one_each(self, n: int) -> Domain:
        """n held-out events, evenly spread: of a brain a slice of each subject, of another level for each."""
        if self.name == "brain":
            subjects = self.subject.unique()
            level = torch.arange(len(subjects)) * 7 % LEVELS  # all levels come
            index = (torch.arange(len(subjects)) * LEVELS + level)[:n]
        else:
            index = torch.linspace(0, len(self.test) - 1, n).round().long()
        return Domain(self.name, self.training, self.tune, self.test[index], self.body[index], self.subject[index])


def domain(name: str, options: Options, half: bool = True) -> Domain:
    """Read a domain, prepared on the first call."""
    folder = options.runs / "data"
    stem = f"{name}-{'half' if half else 'full'}"
    training, held_out = folder / stem, folder / f"{stem}-test.npz"
    if not held_out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        {"chest": _films, "brain": _slices}[name](options.data.parent, training, held_out, half)
    with np.load(held_out, allow_pickle=False) as file:
        test, body, subject = (torch.from_numpy(file[key]) for key in ("x", "body", "subject"))
    known = sorted(training.glob("*.png"))  # beside them lies the cache of their first reading
    some = [known[k] for k in np.linspace(0, len(known) - 1, 100).round().astype(int)]
    tune = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in some]))[:, None]
    return Domain(name, training, _in_range(tune), _in_range(test), body, subject)


def _in_range(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1


def _films(source: Path, training: Path, held_out: Path, half: bool) -> None:
    path = source / "chest-xray-mednist" / "mednist_cxr_10000_64px_jpeg.zip"
    with zipfile.ZipFile(path) as archive:
        content = [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".jpeg")]
    first, last = content[:-FILMS_HELD_OUT], content[-FILMS_HELD_OUT:]
    seen = set(first)
    last = [film for film in last if film not in seen]

    def read(films: list[bytes]) -> Tensor:
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(film)).convert("L")) for film in films])
        return _halved(torch.from_numpy(pixels)[:, None].float(), half)

    x = read(last)
    _write(held_out, x, _filled(x > 0.08 * 255), torch.arange(len(x)))
    _write_pictures(training, read(first), [f"film{k:05}" for k in range(len(first))])


def _slices(source: Path, training: Path, held_out: Path, half: bool) -> None:
    with np.load(source / "brain-ixi-t1" / "ixi185_t1_2mm_brain.npz") as file:
        t1 = torch.from_numpy(file["t1"])
    with np.load(source / "brain-ixi-t1" / "ixi185_dlmuse_2mm_labels.npz") as file:
        ventricle = torch.isin(torch.from_numpy(file["lab"]), torch.tensor(VENTRICLES, dtype=torch.uint8))
    height = torch.arange(t1.shape[-1], dtype=torch.float64)
    per_slice = ventricle.sum((1, 2)).double()
    middle = (per_slice * height).sum(1) / per_slice.sum(1)
    levels = (middle.round().long()[:, None] + torch.arange(LEVELS) - LEVELS // 2).clamp(0, t1.shape[-1] - 1)
    rows = torch.arange(len(t1))[:, None].expand_as(levels)
    upright = t1.movedim(-1, 1).transpose(-1, -2).flip(-2)  # (subject, level, front to back, right to left)
    bright = torch.stack([head[head > 0].float().quantile(0.99) for head in t1.flatten(1)[:, ::7]])
    x = upright[rows, levels].flatten(0, 1).float() * (200 / bright).repeat_interleave(LEVELS)[:, None, None]
    x = _halved(x.clamp_max(255)[:, None], half)
    subject = rows.flatten()
    known = subject < len(t1) - SUBJECTS_HELD_OUT
    test = x[~known]
    _write(held_out, test, _filled(test > 0), subject[~known])
    names = [f"head{k // LEVELS:03}-{k % LEVELS:02}" for k in range(int(known.sum()))]
    _write_pictures(training, torch.cat([x[known], x[known].flip(-1)]), names + [f"{name}-mirrored" for name in names])


def _halved(x: Tensor, half: bool) -> Tensor:
    return torch.nn.functional.avg_pool2d(x, 2) if half else x


def _filled(body: Tensor) -> Tensor:
    """Masks without their holes: a lung is as dark as the air around the body."""
    from scipy.ndimage import binary_fill_holes

    return torch.from_numpy(np.stack([np.asarray(binary_fill_holes(one[0])) for one in body.numpy()]))[:, None]


def _write(path: Path, x: Tensor, body: Tensor, subject: Tensor) -> None:
    np.savez_compressed(path, x=x.round().to(torch.uint8).numpy(), body=body.numpy(), subject=subject.numpy())


def _write_pictures(folder: Path, x: Tensor, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for pixels, name in zip(x.round().to(torch.uint8).numpy(), names, strict=True):
        Image.fromarray(pixels[0]).save(folder / f"{name}.png")
