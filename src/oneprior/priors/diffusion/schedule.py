"""The noising process, x_t = alpha(t) x + sigma(t) noise, and the law that a denoiser of it stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.priors.base import Prior


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
        sampler: the integrator that `sample` uses; see `with_sampler`.
    """

    schedule: Schedule

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x | x_t]; (n, *event_shape) and t () or (n,) -> (n, *event_shape)."""

    def sample(self, rows: Rows) -> Tensor:
        raise NotImplementedError  # written by the diffusion room
