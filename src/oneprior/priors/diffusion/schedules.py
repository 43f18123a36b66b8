"""Noise schedules: how fast an event is drowned.

All diffusions with x_t = alpha_t x + sigma_t noise are the same process seen through two changes of variable: the
noise level s = sigma_t / alpha_t, which is the only thing a denoiser can feel, and the factor alpha_t, which only
rescales x_t. So E[x | x_t] depends on (x_t / alpha_t, s) alone, a network that was trained on one schedule serves any
other (`Rescheduled`), and a schedule is just a map from t in [0, 1] to s, with a scale.

- `EDMSchedule` (Karras, Aittala, Aila, Laine 2022, equation 5): s^(1/rho) is linear in t, from sigma_min to sigma_max.
  Variance preserving by default, alpha = 1 / sqrt(1 + s^2): their network input c_in x, with sigma_data = 1.
- `LinearSchedule`, `CosineSchedule` (Ho, Jain, Abbeel 2020, section 4; Nichol and Dhariwal 2021, equation 17): the
  tables of discrete steps that most public networks were trained with. Between two steps of a table log s is linear.
- `RectifiedFlow` (Liu, Gong, Liu 2022; Lipman et al. 2022): alpha = 1 - t, sigma = t; infinite noise at t = 1.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.priors.diffusion.schedule import Schedule


@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """s(t) = (sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho.

    Args:
        sigma_min: noise level at t = 0.
        sigma_max: noise level at t = 1.
        rho: how much finer the small levels are resolved.
        preserving: True for alpha^2 + sigma^2 = 1 (what our networks see), False for alpha = 1 (the paper's own form).

    Source: Karras et al. 2022, equation 5 and table 1.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    preserving: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise InputError(f"noise levels {self.sigma_min} .. {self.sigma_max}: give 0 < sigma_min < sigma_max")

    def noise_level(self, t: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + t * (high - low)) ** self.rho

    def alpha(self, t: Tensor) -> Tensor:
        return (1 + self.noise_level(t) ** 2).rsqrt() if self.preserving else torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.noise_level(t) * self.alpha(t)

    def time(self, noise_level: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (noise_level ** (1 / self.rho) - low) / (high - low)


class TableSchedule(Schedule):
    """A schedule given by betas: step k of K stands at t = k / (K - 1), and alpha^2 = product of (1 - beta) up to k.

    Beyond the ends of the table log s goes on along its last segment.
    """

    steps: int

    @property
    @abstractmethod
    def betas(self) -> tuple[float, ...]:
        """The K = `steps` variances that are added, first step first."""

    def noise_level(self, t: Tensor) -> Tensor:
        return _interpolate(t * (self.steps - 1), _log_levels(self, t.device, t.dtype)).exp()

    def alpha(self, t: Tensor) -> Tensor:
        return (1 + self.noise_level(t) ** 2).rsqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return (1 + self.noise_level(t) ** -2).rsqrt()

    def time(self, noise_level: Tensor) -> Tensor:
        table = _log_levels(self, noise_level.device, noise_level.dtype)
        wanted = noise_level.log()
        left = (torch.searchsorted(table, wanted.contiguous()) - 1).clamp(0, len(table) - 2)
        return (left + (wanted - table[left]) / (table[left + 1] - table[left])) / (self.steps - 1)


@dataclass(frozen=True)
class LinearSchedule(TableSchedule):
    """beta linear in the step (or its square root, `scaled`, as the latent diffusion models have it).

    Source: Ho et al. 2020, section 4; Rombach et al. 2022 for `scaled`.
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    steps: int = 1000
    scaled: bool = False

    @property
    def betas(self) -> tuple[float, ...]:
        power = 2 if self.scaled else 1
        return _power_betas(self.beta_start, self.beta_end, self.steps, power)


@dataclass(frozen=True)
class CosineSchedule(TableSchedule):
    """alpha^2 = cos^2((k / K + .008) / 1.008 pi / 2), with beta at most .999.

    Source: Nichol and Dhariwal 2021, equation 17.
    """

    steps: int = 1000

    @property
    def betas(self) -> tuple[float, ...]:
        return _cosine_betas(self.steps)


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """alpha = 1 - t, sigma = t: straight lines from data to noise.

    Source: Liu et al. 2022, equation 1; Lipman et al. 2022, equation 20 with sigma_min = 0.
    """

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time(self, noise_level: Tensor) -> Tensor:
        return 1 / (1 + 1 / noise_level)


def ddpm_table(
    kind: Literal["linear", "scaled_linear", "squaredcos_cap_v2"], start: float, end: float, steps: int
) -> TableSchedule:
    """The table that diffusers calls by this name."""
    if kind == "squaredcos_cap_v2":
        return CosineSchedule(steps)
    if kind in ("linear", "scaled_linear"):
        return LinearSchedule(start, end, steps, scaled=kind == "scaled_linear")
    raise InputError(f"beta schedule {kind!r} is not known; known are linear, scaled_linear and squaredcos_cap_v2")


@cache
def _power_betas(start: float, end: float, steps: int, power: int) -> tuple[float, ...]:
    betas = torch.linspace(start ** (1 / power), end ** (1 / power), steps, dtype=torch.float64) ** power
    return tuple(betas.tolist())


@cache
def _cosine_betas(steps: int) -> tuple[float, ...]:
    def bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return tuple(min(1 - bar((k + 1) / steps) / bar(k / steps), 0.999) for k in range(steps))


@cache
def _log_levels(schedule: TableSchedule, device: torch.device, dtype: torch.dtype) -> Tensor:
    """log(sigma / alpha) at each step, (K,)."""
    log_alpha2 = torch.log1p(-torch.tensor(schedule.betas, dtype=torch.float64)).cumsum(0)
    level = 0.5 * (torch.log(-torch.expm1(log_alpha2)) - log_alpha2)
    return level.to(device=device, dtype=dtype)


def _interpolate(position: Tensor, table: Tensor) -> Tensor:
    """The table at fractional positions, linear between entries and beyond the ends."""
    left = position.detach().floor().long().clamp(0, len(table) - 2)
    low = table[left]
    return low + (position - left) * (table[left + 1] - low)
