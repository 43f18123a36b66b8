"""What `benchmarks.beyond` asks for: events cut at a threshold of a property, and two predictors of it.

The prior and the campaign see the events below the threshold alone; those above are the group that is sought. The score
is a network that predicts the property, trained on one half of all events; candidates are judged by another, trained
on the other half, which no campaign asks.

- garments: the area of a garment of Fashion-MNIST, the share of its pixels above a fifth of the range;
- ventricles: the share of the brain in a slice (IXI) that is lateral ventricle, from DLMUSE's labels;
- smile: the faces of 102 people (Face Research Lab London Set), neutral and smiling. The prior sees the neutral
  pictures of 80 people, the score is fitted to both pictures of the same 80; judge and group are the other 22, which
  are few. The prior sees each picture in `JITTERED` more versions, moved, turned and lit a little otherwise, score and
  judge in half as many: without these a vqvae learns the 80 by heart, and gives nobody else back. Networks learn little
  from so few: score and judge are ridge regressions around the mouth, one on histograms of gradients, the other on
  Gabor filters, so that what deceives the one need not deceive the other.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.harness import Options, fashion
from benchmarks.sets import brains
from oneprior.core import AffineMap, Rows
from oneprior.data import array_dataset
from oneprior.data.batch import Dataset

NAMES = ("garments", "ventricles", "smile")
_AREA = -0.6  # a fifth of [-1, 1]
_WIDTH, _STEPS = 32, 600
_SIDE, _JUDGING = 64, 22
"""Of a face, and how many people the judge of smiles is trained on."""
JITTERED = 12
_MOVED, _SCALED, _TURNED, _LIT, _LIFTED = 0.09, 0.08, 0.05, 0.15, 0.1
"""How far versions of a face differ, at most: in half pictures, as shares, in radians, in gain and in grey level."""
MOUTH = (slice(28, 60), slice(12, 52))
"""Where cheeks and mouth are, of a face of 64 x 64."""


@dataclass(frozen=True, eq=False)
class Task:
    """One property.

    Args:
        low: events that prior and campaign see, (n, 1, h, w) in [-1, 1].
        high: events of the group that is sought, (m, 1, h, w).
        threshold: of the property between them.
    """

    low: Tensor
    high: Tensor
    threshold: float

    @property
    def dataset(self) -> Dataset:
        """The low events as a data set of grey levels."""
        return self.some(len(self.low))

    def some(self, most: int) -> Dataset:
        """The first of them."""
        pixels = ((self.low[:most] + 1) * 127.5).round().to(torch.uint8).numpy()
        return array_dataset(pixels, units=AffineMap.from_range(0, 255, "grey level"), layout="nchw")


@cache
def _measured(name: str, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """All training events, their property, and which half of them each is in."""
    if name == "garments":
        x = fashion(options).train
        value, half = (x > _AREA).flatten(1).double().mean(1), torch.arange(len(x)) % 2
    elif name == "smile":
        x, value, half = _faces(options)
    else:
        data = brains(options).train
        x, value, half = data.x, data.ventricle.double(), data.subject % 2
    return x, value, half


def _faces(options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Faces and their mirror images, 1 where they smile, and 1 for the people of the judge."""
    from PIL import Image

    with zipfile.ZipFile(options.data.parent / "faces-london" / "london_faces_256_png.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        pictures = [Image.open(io.BytesIO(archive.read(name))).convert("L") for name in names]
    small = [np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX)) for picture in pictures]
    x = torch.from_numpy(np.stack(small))[:, None].float() / 127.5 - 1
    people = sorted({Path(name).stem for name in names})
    last = {people[k] for k in np.random.default_rng(0).permutation(len(people))[:_JUDGING]}
    value = torch.tensor([float("smiling" in name) for name in names], dtype=torch.float64)
    half = torch.tensor([int(Path(name).stem in last) for name in names])
    return torch.cat([x, x.flip(-1)]), value.repeat(2), half.repeat(2)


def jittered(x: Tensor, times: int) -> Tensor:
    """Pictures and versions of them, ((times + 1) n, 1, h, w): first all as they are."""
    n, rng = times * len(x), np.random.default_rng(0)
    angle, zoom, gain, lift, *moved = torch.from_numpy(rng.uniform(-1, 1, (6, n))).float()
    zoom, angle = 1 + _SCALED * zoom, _TURNED * angle
    along, across = zoom * angle.cos(), zoom * angle.sin()
    rows = [(along, -across, _MOVED * moved[0]), (across, along, _MOVED * moved[1])]
    places = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grids = torch.nn.functional.affine_grid(places, [n, *x.shape[1:]], align_corners=False)
    turned = torch.nn.functional.grid_sample(
        x.repeat(times, 1, 1, 1), grids, padding_mode="border", align_corners=False
    )
    lit = turned * (1 + _LIT * gain)[:, None, None, None] + (_LIFTED * lift)[:, None, None, None]
    return torch.cat([x, lit.clamp(-1, 1)])


@cache
def task(name: str, options: Options) -> Task:
    """The events of a task: the lower half of garments, all but the highest fifth of slices, neutral faces of 80."""
    x, value, half = _measured(name, options)
    if name == "smile":
        return Task(jittered(x[(value == 0) & (half == 0)], JITTERED), x[(value == 1) & (half == 1)], 0.5)
    threshold = float(value.quantile(0.5 if name == "garments" else 0.8))
    low = value <= threshold
    return Task(x[low], x[~low], threshold)


class Predictor(nn.Module):
    """A property of events, in its own units; (n, 1, h, w) in [-1, 1] -> (n,)."""

    scale: Tensor

    def __init__(self, mean: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([mean, spread]))
        layers: list[nn.Module] = []
        for before, width in ((1, _WIDTH), (_WIDTH, _WIDTH), (_WIDTH, 2 * _WIDTH)):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(4, width), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(2 * _WIDTH, _WIDTH, 3, padding=1), nn.SiLU())
        self.head = nn.Linear(_WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))[:, 0] * self.scale[1] + self.scale[0]

    def features(self, x: Tensor) -> Tensor:
        """What distances are taken between, (n, c)."""
        return self.body(x).mean((2, 3))


class Smiles(nn.Module):
    """How much faces of 64 x 64 smile, by ridge regression around the mouth; (n, 1, 64, 64) -> (n,).

    Args:
        x: faces, (n, 1, 64, 64).
        value: 1 where they smile, (n,).
        seen: what is seen of a mouth, (n, h, w) -> (n, c).
    """

    def __init__(self, x: Tensor, value: Tensor, seen: Callable[[np.ndarray], np.ndarray]) -> None:
        from sklearn.linear_model import RidgeCV

        super().__init__()
        self._seen = seen
        faces = jittered(x, JITTERED // 2)
        told = value.repeat(len(faces) // len(x)).numpy()
        self._ridge = RidgeCV(np.logspace(-1, 6, 15)).fit(seen(_mouths(faces)), told)

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self._ridge.predict(self._seen(_mouths(x))))

    def features(self, x: Tensor) -> Tensor:
        """What distances are taken between: mouths of 8 x 10 pixels, since 44 faces hold no law of many numbers."""
        return torch.nn.functional.avg_pool2d(x[(..., *MOUTH)], 4).flatten(1)


def _mouths(x: Tensor) -> np.ndarray:
    return x[(..., *MOUTH)][:, 0].double().numpy()


def gradients(mouths: np.ndarray) -> np.ndarray:
    """Histograms of gradients, (n, h, w) -> (n, c)."""
    from skimage.feature import hog

    return np.stack([hog(one, orientations=8, pixels_per_cell=(4, 4), cells_per_block=(2, 2)) for one in mouths])


def waves(mouths: np.ndarray) -> np.ndarray:
    """What Gabor filters of two frequencies and four directions answer, whatever the light, (n, h, w) -> (n, c)."""
    from scipy.signal import fftconvolve
    from skimage.filters import gabor_kernel

    level = mouths - mouths.mean((1, 2), keepdims=True)
    level = level / np.maximum(level.std((1, 2), keepdims=True), 1e-6)
    filters = [np.real(gabor_kernel(f, theta=k * np.pi / 4)) for f in (0.1, 0.2) for k in range(4)]
    found = [np.abs(fftconvolve(level, one[None], mode="same", axes=(1, 2)))[:, ::4, ::4] for one in filters]
    return np.stack(found, 1).reshape(len(mouths), -1)


@torch.enable_grad()
def predictor(name: str, half: int, options: Options) -> Predictor | Smiles:
    """What was fitted to a half; 0 for the score, 1 for the judge."""
    if name == "smile":
        x, value, which = _measured(name, options)
        return Smiles(x[which == half], value[which == half], (gradients, waves)[half])
    path = options.runs / "features" / f"{name}-predictor-{half}{'-quick' if options.quick else ''}.safetensors"
    if path.exists():
        network = Predictor()
        network.load_state_dict(load_file(path))
        return network.eval()
    x, value, which = _measured(name, options)
    x, value = x[which == half], value[which == half].float()
    torch.manual_seed(half)
    network, steps = Predictor(float(value.mean()), float(value.std())), 20 if options.quick else _STEPS
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    rows = Rows(64, seed=half)
    for step in range(steps):
        index = rows.stream(f"batch {step}").integers(len(x))
        loss = ((network(x[index]) - value[index]) / network.scale[1]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), path)
    return network.eval()


@torch.no_grad()
def predicted(network: Predictor | Smiles, x: Tensor) -> np.ndarray:
    """The property of events, (n,) float64."""
    return torch.cat([network(part) for part in x.split(512)]).double().numpy()


def fit_of(name: str, half: int, options: Options) -> float:
    """R2 of a predictor on the half that it was not trained on."""
    x, value, which = _measured(name, options)
    other = (which != half).nonzero()[:, 0][:: 1 if name == "smile" else 10]
    off = value[other].numpy() - predicted(predictor(name, half, options), x[other])
    return float(1 - np.mean(off**2) / np.var(value[other].numpy()))
