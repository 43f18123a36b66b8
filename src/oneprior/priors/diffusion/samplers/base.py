"""What every sampler of a denoising prior is: a grid of times, and a walk along it that yields its states.

A sampler knows nothing of networks or schedules beyond `prior.denoise` and (alpha, sigma) on its grid. These numbers
are worked out once in float64 before the first network call (`Path`), so that a step of the walk is one network call
and one or two linear combinations.

`steps` counts the grid's times, t_0 > t_1 > ... > t_{steps - 1}. The walk goes from each to the next and, unless
`final` is False, ends by replacing x_t by E[x | x_t] at the last, as if the next noise level were 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.priors.diffusion.schedule import DenoisingPrior, Schedule
from oneprior.priors.gaussian import LowRankGaussian, Spectral


@dataclass(frozen=True)
class Grid:
    """Where a sampler stops on its way from noise to data.

    Args:
        kind: "karras": s^(1/rho) uniform (Karras et al. 2022, equation 5); "logsnr": log s uniform; "uniform": t
            uniform, from the top to 1 / steps of it.
        rho: of "karras"; larger is finer at small noise.
        low: the last noise level s = sigma / alpha, in units of x; no lower than the schedule's own.
        high: the first noise level; no higher than the schedule's own.
        times: the times themselves, falling, in place of all the above.
    """

    kind: Literal["karras", "logsnr", "uniform"] = "karras"
    rho: float = 7.0
    low: float = 0.002
    high: float = 80.0
    times: tuple[float, ...] = ()

    def path(self, schedule: Schedule, steps: int, device: torch.device | str = "cpu") -> Path:
        """The times and what the schedule says there.

        Raises:
            InputError: for fewer than one step, or times that do not fall.
        """
        if self.times:
            t = torch.tensor(self.times, dtype=torch.float64)
            if len(t) != steps or bool((t.diff() >= 0).any()):
                raise InputError(f"the grid has {len(t)} times for {steps} steps: give as many times as steps, falling")
        else:
            t = self._times(schedule, steps)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Path(t.to(device), tuple(alpha.tolist()), tuple(sigma.tolist()))

    def _times(self, schedule: Schedule, steps: int) -> Tensor:
        if steps < 1:
            raise InputError(f"a sampler needs at least one step, got {steps}")
        ends = schedule.noise_level(torch.tensor([0.0, 1.0], dtype=torch.float64))
        high = ends[1].clamp(max=self.high)
        low = torch.minimum(ends[0].clamp(min=self.low), high / 2)
        share = torch.linspace(0, 1, steps, dtype=torch.float64)
        if self.kind == "uniform":
            return schedule.time(high) * (1 - torch.arange(steps, dtype=torch.float64) / steps)
        if self.kind == "logsnr":
            return schedule.time(high * (low / high) ** share)
        root = 1 / self.rho
        return schedule.time((high**root + share * (low**root - high**root)) ** self.rho)


KARRAS = Grid()
FEW = Grid("karras", rho=7.0, low=0.02, high=40.0)  # for few steps of a multistep method; see `dpm_solver`


@dataclass(frozen=True)
class Path:
    """A grid on one schedule: times (steps,) float64, and alpha and sigma there as plain numbers."""

    t: Tensor
    alpha: tuple[float, ...]
    sigma: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.alpha)

    def level(self, k: int) -> float:
        """sigma / alpha at the k-th time; infinite where alpha is 0."""
        return self.sigma[k] / self.alpha[k] if self.alpha[k] else float("inf")

    def deterministic(self, k: int) -> tuple[float, float]:
        """(a, b) with x' = a x_t + b E[x | x_t]: the ODE's first-order step from time k to k + 1 (DDIM, Euler in s)."""
        a = self.sigma[k + 1] / self.sigma[k]
        return a, self.alpha[k + 1] - a * self.alpha[k]

    def stochastic(self, k: int, eta: float) -> tuple[float, float, float]:
        """(a, b, c) with x' = a x_t + b E[x | x_t] + c noise; eta = 0 is the ODE, eta = 1 the exact reverse of the
        noising if the clean event were E[x | x_t] (Song, Meng, Ermon 2021, equation 16)."""
        ratio = self.level(k + 1) / self.level(k)
        c = eta * self.sigma[k + 1] * max(0.0, 1 - ratio * ratio) ** 0.5
        a = max(0.0, self.sigma[k + 1] ** 2 - c * c) ** 0.5 / self.sigma[k]
        return a, self.alpha[k + 1] - a * self.alpha[k], c


@dataclass(frozen=True)
class State:
    """A moment of the walk.

    Args:
        x: x_t after the step, (n, *event_shape); the sample itself once `done` is 1.
        denoised: the last E[x | x_t], the best guess so far.
        calls: network calls made for each row so far.
        done: the finished share, 0 to 1.
    """

    x: Tensor
    denoised: Tensor
    calls: int
    done: float


class DiffusionSampler(ABC):
    """From noise to data along a grid, on any `DenoisingPrior` with any schedule.

    Attributes:
        steps: times of the grid.
        grid: where they are.
        final: whether the walk ends with E[x | x_t] (True) or at the last noise level.
    """

    steps: int
    grid: Grid
    final: bool

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Network calls for each row, exactly."""

    @abstractmethod
    def iterate(self, prior: DenoisingPrior, rows: Rows | None = None, x: Tensor | None = None) -> Iterator[State]:
        """Yields a state after each step; gradients flow where they are enabled.

        Args:
            prior: whose law is drawn.
            rows: the source of all randomness; may be None for a deterministic sampler with `x` given.
            x: x_t at the first time of the grid, (n, *event_shape); drawn from the rows where None.
        """

    def __call__(self, prior: DenoisingPrior, rows: Rows | None = None, x: Tensor | None = None) -> Tensor:
        """The samples, (n, *event_shape)."""
        last = deque(self.iterate(prior, rows, x), maxlen=1)
        if not last:
            raise InputError(f"{type(self).__name__} with {self.steps} step and no final denoising makes no step")
        return last[0].x

    def start(self, prior: DenoisingPrior, rows: Rows | None, x: Tensor | None) -> tuple[Path, Tensor]:
        """The path, and x_t at its first time: see `first_x`, unless given."""
        path = self.grid.path(prior.schedule, self.steps, prior.device)
        if x is None:
            if rows is None:
                raise InputError(f"{type(self).__name__} was given neither rows to draw from nor a start x")
            return path, first_x(prior, path, rows.to(prior.device).normal(*prior.event_shape))
        if x.shape[1:] != prior.event_shape:
            raise ShapeError("the start of the sampler", tuple(x.shape), ("n", *prior.event_shape))
        return path, x


def first_x(prior: DenoisingPrior, path: Path, u: Tensor) -> Tensor:
    """x_t at the top of the path from standard normal u: sigma_0 u, or Gaussian with the data's moments where known.

    The top is never all noise. At s = 80 the data's mean still moves x_t by |E[x]| / 80 standard deviations, and that
    grows with the square root of the number of pixels; its covariance counts too from about s = 20 on. Far above the
    data the ODE is that of the Gaussian with its moments (Wang and Vastola 2024, "The unreasonable effectiveness of
    Gaussian score approximation for diffusion models"), which is solved here in closed form from infinite noise down to
    the top of the path.
    """
    law, alpha, sigma = prior.moments, path.alpha[0], path.sigma[0]
    if law is None:
        return sigma * u
    return _noised_root(law, alpha, sigma)(u) + alpha * law.mean.to(u)


def first_u(prior: DenoisingPrior, path: Path, x_t: Tensor) -> Tensor:
    """The inverse of `first_x`."""
    law, alpha, sigma = prior.moments, path.alpha[0], path.sigma[0]
    if law is None:
        return x_t / sigma
    return _noised_root(law, alpha, sigma).power(-1)(x_t - alpha * law.mean.to(x_t))


def _noised_root(law: LowRankGaussian, alpha: float, sigma: float) -> Spectral:
    """The symmetric root of alpha^2 S + sigma^2 I."""
    covariance = law.covariance()
    on, rest = (alpha**2 * value + sigma**2 for value in (covariance.on, covariance.rest))
    return Spectral(covariance.basis, on, rest).power(0.5)


def combine(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """a x + b y, with one allocation."""
    return x.mul(a).add_(y, alpha=b)
