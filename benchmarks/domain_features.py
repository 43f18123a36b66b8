"""The two feature networks of a domain: one judges restorations, the other stands in BRGM's objective for LPIPS.

The judge learned without labels (VICReg) on the training events; no method optimises it. BRGM's perceptual term has
its own, a classifier: of the slice's level for brains, of pneumonia for films (PneumoniaMNIST, as large as ours). The
published programs use LPIPS on VGG16, whose weights are not at hand, and every table says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import sets
from benchmarks.domain_sets import domain
from benchmarks.harness import Options
from oneprior.core import Rows
from oneprior.evaluation import Classifier, train_classifier
from oneprior.evaluation.embed import Features, own_features
from oneprior.evaluation.self_supervised import train_self_supervised

_BINS = 4  # levels of one class
_TINY = 1e-10


class PerceptualTerm:
    """P(a, b) of BRGM: squared differences of unit feature vectors, averaged over places and stages, one number a row.

    Pictures of another size than the network's are brought to it by area interpolation, as the PyTorch program does.

    Args:
        network: whose stages are compared.
    """

    def __init__(self, network: Classifier) -> None:
        self.network = network.requires_grad_(False)
        self.name = network.name
        self._seen: tuple[Tensor, list[Tensor]] | None = None

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        apart = [_apart(x, y).flatten(1).mean(1) for x, y in zip(self._stages(a), self._units(b), strict=True)]
        return torch.stack(apart).mean(0)

    def _units(self, b: Tensor) -> list[Tensor]:
        """The unit vectors of what is compared with, computed once as long as it is the same tensor."""
        if self._seen is None or self._seen[0] is not b or b.requires_grad:
            self._seen = b, [x / (x.norm(dim=1, keepdim=True) + _TINY) for x in self._stages(b)]
        return self._seen[1]

    def _stages(self, x: Tensor) -> list[Tensor]:
        size = tuple(self.network.event_shape[1:])
        x = x.to(torch.float32)
        if tuple(x.shape[2:]) != size:
            x = nn.functional.interpolate(x, size, mode="area")
        found = []
        for layer in self.network.body:
            x = layer(x)
            if isinstance(layer, nn.SiLU):
                found.append(x)
        return found


def _apart(x: Tensor, unit: Tensor) -> Tensor:
    """|x / |x| - unit|^2 at every place, without the quotient: a third of the time; (n, c, h, w) -> (n, h, w)."""
    length = (x.square().sum(1) + _TINY).sqrt()
    return 1.0 + unit.square().sum(1) - 2.0 * (x * unit).sum(1) / length


def judging_features(which: str, options: Options) -> Features:
    """Those of the perceptual distance in every table."""
    path = _path(f"{which}-half-vicreg", options)
    if not path.exists():
        x, _ = _training(which, options)
        _keep(
            train_self_supervised(x, Rows(64, seed=0), 10 if options.quick else 1000, label=f"{which}-half-vicreg"),
            path,
        )
    return own_features(path)


def brgm_features(which: str, options: Options) -> PerceptualTerm:
    """Those that stand in BRGM's objective."""
    path = _path(f"{which}-half-classifier", options)
    if not path.exists():
        x, labels = _training(which, options)
        if which == "chest":
            films = sets.films(options)
            x = nn.functional.interpolate(films.train, tuple(x.shape[2:]), mode="bilinear", align_corners=False)
            labels = films.labels
        steps = 10 if options.quick else 1000
        _keep(train_classifier(x, labels, Rows(64, seed=1), steps, label=f"{which}-half-classifier"), path)
    return PerceptualTerm(Classifier.load(path))


def _training(which: str, options: Options) -> tuple[Tensor, Tensor]:
    """Training events and, of brains, the class of their level."""
    paths = sorted(domain(which, options).training.glob("*.png"))
    x = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths]))[:, None].float() / 127.5 - 1
    if which == "chest":
        return x, torch.zeros(len(x), dtype=torch.int64)
    return x, torch.tensor([int(path.stem.split("-")[1]) // _BINS for path in paths])


def _path(name: str, options: Options) -> Path:
    return options.runs / "features" / f"{name}{'-quick' if options.quick else ''}.safetensors"


def _keep(network: Classifier, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    network.save(partial)
    partial.rename(path)
