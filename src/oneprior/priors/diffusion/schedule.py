"""The noising process, x_t = alpha(t) x + sigma(t) noise, and the law that a denoiser of it stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.priors.base import Prior

if TYPE_CHECKING:
    from oneprior.priors.diffusion.ode import OdePrior
    from oneprior.priors.diffusion.prior import Calls
    from oneprior.priors.diffusion.samplers import DiffusionSampler
    from oneprior.priors.gaussian import LowRankGaussian


class Schedule(ABC):
    """alpha and sigma over t in [0, 1]; t = 0 is (almost) clean, t = 1 (almost) noise. All maps are elementwise."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def time(self, noise_level: Tensor) -> Tensor:
        """The t at which sigma / alpha has this value (the inverse of `noise_level`)."""

    def noise_level(self, t: Tensor) -> Tensor:
        """sigma / alpha: the noise's deviation in units of x."""
        return self.sigma(t) / self.alpha(t)


class DenoisingPrior(Prior):
    """Knows E[x | x_t] at every t, and draws by integrating from noise.

    Attributes:
        schedule: the noising process.
        sampler: the integrator that `sample` uses, None for the default; see `with_sampler`.
        moments: a Gaussian of the data, low rank plus noise, where it is known: guidance takes Cov[x | x_t] from it.
        calls: what its network was asked, where it counts that itself.
    """

    schedule: Schedule
    sampler: DiffusionSampler | None = None
    moments: LowRankGaussian | None = None
    calls: Calls | None = None

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x | x_t]; (n, *event_shape) and t () or (n,) -> (n, *event_shape)."""

    def sample(self, rows: Rows) -> Tensor:
        from oneprior.priors.diffusion.samplers import default_sampler

        with torch.no_grad():
            return (self.sampler or default_sampler())(self, rows.to(self.device))

    def with_sampler(self, sampler: DiffusionSampler) -> Self:
        """The same law, drawn by another integrator."""
        other = copy(self)
        other.sampler = sampler
        return other

    def flow(self, steps: int = 32) -> OdePrior:
        """The noise road: x = decode(u) by the probability-flow ODE in `steps` network calls, differentiable.

        The number of steps is part of the law: few steps are a slightly different distribution.
        """
        from oneprior.priors.diffusion.ode import OdePrior

        return OdePrior(self, steps)
