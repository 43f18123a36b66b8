"""The demonstration: four priors learn the same images, draw, and restore the same damaged ones, held out from all.

The question is what a learned prior is worth. The yardstick is probabilistic PCA, whose posterior is exact: a deep
prior that cannot beat the exact answer of a Gaussian has learned nothing that matters for restoration. The second
yardstick, a mixture of ten Gaussians, is exact as well and takes seconds. Everything here goes through the public
interface (`train`, `load`, `restore`), and budgets are counted in images, so that a slow machine gets the same figures,
later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneprior.apps.demo_zoo import Shown, psnr_of_mean
from oneprior.core import Rows
from oneprior.data import Dataset, array_dataset, digits, open_dataset, split
from oneprior.evaluation import crps, interval_coverage, psnr
from oneprior.tasks import Measurement, Restoration, simulate
from oneprior.tasks.methods import Aim
from oneprior.training import Progress, Run, train_iter


@dataclass(frozen=True)
class Contender:
    """One prior of the demonstration, or one more way to restore with it.

    Args:
        key: its name in files.
        title: its name on the page.
        family: of the model.
        deep: whether it is a network.
        settings: of the training.
        run: the prior that it restores with; itself where empty.
        aim: in place of the demonstration's.
    """

    key: str
    title: str
    family: str
    deep: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    aim: Aim | None = None

    @property
    def trains(self) -> bool:
        """Whether it has a run of its own."""
        return not self.run


@dataclass(frozen=True)
class Problem:
    """One kind of damage; `sigma` is on the scale of [-1, 1]."""

    key: str
    title: str
    operator: str
    sigma: float


@dataclass(frozen=True)
class Score:
    """Figures of one prior on one problem, on the scale of [-1, 1]; PSNR in decibels, averaged over images."""

    psnr_mean: float
    psnr_draw: float
    crps: float
    coverage: float
    coverage_error: float
    coverage_active: float
    seconds: float
    method: str
    exact: bool


_TINY = 144  # numbers in an image, up to which the networks are perceptrons

PROBLEMS = (
    Problem("half", "Left half hidden", "mask:left", 0.1),
    Problem("coarse", "Means of 2 x 2 pixels", "downsample:2", 0.1),
    Problem("noisy", "Drowned in noise", "identity", 0.5),
)


@dataclass(frozen=True)
class Budget:
    """How much work.

    Args:
        vae_images: that the vae learns from.
        diffusion_images: that the diffusion learns from.
        held_out: images to restore.
        aim: of the restorations.
        diffusion: settings of the diffusion.
        twice: whether the diffusion is also asked for honest intervals, which is dear for large images.
    """

    vae_images: int
    diffusion_images: int
    held_out: int
    aim: Aim = "best"
    diffusion: Mapping[str, Any] = field(default_factory=dict)
    twice: bool = True


def budget(data: Dataset) -> Budget:
    """A few minutes' worth, by the size of the images."""
    if data.event_shape.numel() <= _TINY:
        return Budget(250_000, 200_000, 100)
    return Budget(40_000, 30_000, 8, "fast", {"width": 32}, twice=False)


def contenders(work: Budget) -> tuple[Contender, ...]:
    """The four priors, and the diffusion once more, asked for honest intervals."""
    deep = {"held_out": 0.1, "keep": "best", "tracker": "none"}
    diffusion = {**deep, **work.diffusion, "images": work.diffusion_images, "batch_size": 256}
    known = (
        Contender("ppca", "ppca", "ppca", False, {"tracker": "none"}),
        Contender("mixture", "mixture of 10", "ppca", False, {"components": 10, "tracker": "none"}),
        Contender("vae", "vae", "vae", True, {**deep, "images": work.vae_images, "batch_size": 128}),
        Contender("diffusion", "diffusion", "diffusion", True, diffusion),
    )
    honest = Contender("calibrated", "diffusion, calibrated", "diffusion", True, run="diffusion", aim="calibrated")
    return (*known, honest) if work.twice else known


@contextmanager
def threads_for(data: Dataset) -> Iterator[None]:
    """One thread while the images are tiny: a second one gains nothing then, and beside other work it loses all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if data.event_shape.numel() <= _TINY else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def open_images(path: Path | None, size: str | None) -> Dataset:
    """The images without labels: the digits of scikit-learn, or any folder."""
    if path is not None:
        return open_dataset(path, size=size or "16", labels=False)
    known = digits()
    x = known.units.to_units(known.batch(torch.arange(len(known))).x)
    return array_dataset(x.round().to(torch.uint8), units=known.units)


def parted(data: Dataset, held_out: int) -> tuple[Dataset, Dataset]:
    """(what the priors learn, the images that are damaged); at most a fifth is held out."""
    return split(data, max(1, min(held_out, len(data) // 5)))


def training(contender: Contender, data: Dataset, folder: Path, seed: int, device: str) -> Iterator[Progress]:
    """Train one prior into `folder`; a run that is there already is gone on with, or kept where it is finished."""
    return train_iter(
        contender.family, data=data, out=folder, resume=True, seed=seed, device=device, **contender.settings
    )


def damaged(problem: Problem, held_out: Dataset, seed: int) -> Measurement:
    """The held-out images as one problem measures them."""
    x = held_out.batch(torch.arange(len(held_out))).x
    rows = Rows(len(x), seed=seed, stream=problem.key)
    sigma = problem.sigma * held_out.units.scale
    return simulate(x, problem.operator, sigma, rows, units=held_out.units, geometry=held_out.geometry)


def active(data: Dataset, threshold: float = 0.1, most: int = 2000) -> Tensor:
    """The pixels that vary: constant borders flatter every figure; (1, *event_shape), bool."""
    x = data.batch(torch.arange(min(most, len(data)))).x
    return x.std(0, keepdim=True) > threshold


def score(result: Restoration, mask: Tensor) -> Score:
    """Figures of a restoration whose truth is known."""
    truth = result.measurement.truth
    assert truth is not None
    x, mean, draws = (result.units.to_model(t.double().cpu()) for t in (truth, result.mean, result.draws))
    everywhere, varying = interval_coverage(draws, x), interval_coverage(draws, x, mask=mask)
    return Score(
        psnr_mean=float(psnr(mean, x).mean()),
        psnr_draw=float(psnr(draws[0], x).mean()),
        crps=float(crps(draws, x).mean()),
        coverage=everywhere.value,
        coverage_error=everywhere.standard_error,
        coverage_active=varying.value,
        seconds=result.seconds,
        method=result.method,
        exact=result.exact,
    )


@dataclass(frozen=True)
class Study:
    """All that the page tells.

    Args:
        contenders: the priors, in order.
        runs: their runs, by key.
        samples: draws of each, (n, *event_shape) in [-1, 1].
        results: restorations, by (problem, contender).
        scores: their figures.
        learned: how many images the priors saw.
        held_out: how many were damaged.
        seconds: wall time of everything.
        zoo: what priors of the zoo made of their examples.
    """

    contenders: Sequence[Contender]
    runs: Mapping[str, Run]
    samples: Mapping[str, Tensor]
    results: Mapping[tuple[str, str], Restoration]
    scores: Mapping[tuple[str, str], Score]
    learned: int
    held_out: int
    seconds: float
    zoo: Sequence[Shown] = ()

    @property
    def priors(self) -> list[Contender]:
        """Those that were trained."""
        return [c for c in self.contenders if c.trains]

    def best_deep(self, problem: Problem) -> Contender:
        """The network with the best posterior mean on a problem."""
        deep = [c for c in self.contenders if c.deep]
        return max(deep, key=lambda c: self.scores[problem.key, c.key].psnr_mean)

    def gain(self, problem: Problem, over: str = "ppca") -> float:
        """Decibels of the best network's posterior mean over another's."""
        best = self.scores[problem.key, self.best_deep(problem).key].psnr_mean
        return best - self.scores[problem.key, over].psnr_mean

    def gain_error(self, problem: Problem, over: str = "ppca") -> float:
        """The standard error of `gain`, paired by image."""
        best, rival = (psnr_of_mean(self.results[problem.key, key]) for key in (self.best_deep(problem).key, over))
        return float((best - rival).std() / len(best) ** 0.5)
