"""Samples of the benchmarks' runs, and their Frechet distances."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Fashion, Options, feature_network
from oneprior.core import Rows
from oneprior.evaluation import Classifier, FeatureStatistics, frechet_distance
from oneprior.priors.base import Prior
from oneprior.priors.diffusion.prior import DiffusionPrior
from oneprior.priors.pushforward import Pushforward, push


def load_prior(path: Path, *, fast: bool = False, **settings: Any) -> Prior:
    """The prior of a run.

    Args:
        path: the run folder.
        fast: in the fast arithmetic of `DiffusionPrior.fast` (bf16, compiled), also under a decoder.
        settings: as of `Run.prior` (sampler=, steps=).
    """
    from oneprior.training import load

    prior = load(path).prior(**settings)
    return _fast(prior) if fast else prior


def _fast(prior: Prior) -> Prior:
    if isinstance(prior, DiffusionPrior):
        return prior.fast(compile=True)
    if isinstance(prior, Pushforward):
        return push(_fast(prior.base), prior.decoder, prior.event_shape)
    return prior


def sample(prior: Prior, count: int, seed: int = 0, batch: int = 250, first: int = 0) -> tuple[Tensor, float]:
    """Samples of rows first .. first + count - 1 of a seed, and the seconds they took."""
    start = time.perf_counter()
    with torch.no_grad():
        pieces = [
            prior.sample(Rows(range(k, min(k + batch, first + count)), seed=seed))
            for k in range(first, first + count, batch)
        ]
    return torch.cat(pieces), time.perf_counter() - start


@dataclass(frozen=True)
class Ruler:
    """Squared Frechet distance to the 59,000 training images, under the features of one named network."""

    network: Classifier
    data: Fashion

    @classmethod
    def of(cls, options: Options, data: Fashion) -> Ruler:
        return cls(feature_network(options, data), data)

    @cached_property
    def real(self) -> FeatureStatistics:
        return FeatureStatistics.of(self.network.embed(self.data.train))

    def __call__(self, x: Tensor) -> float:
        """Of (n, 1, 28, 28) events; they are clipped to [-1, 1] as any picture is when it is shown."""
        return float(frechet_distance(FeatureStatistics.of(self.network.embed(x.clamp(-1, 1))), self.real))

    def floor(self, count: int) -> float:
        """The distance of as many real test images: what a perfect model of the data would have."""
        return self(self.data.test[:count])
