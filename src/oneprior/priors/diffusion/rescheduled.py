"""One denoiser on any schedule.

E[x | x_t] depends on (x_t / alpha_t, sigma_t / alpha_t) alone. So a denoiser that knows one schedule answers for every
other: find the time at which its own schedule has the same noise level, and rescale x_t.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import per_row
from oneprior.priors.diffusion.schedule import DenoisingPrior, Schedule


class Rescheduled(DenoisingPrior):
    """The same law, spoken to in another schedule.

    Args:
        inner: any denoising prior.
        schedule: the new schedule; its noise levels should lie within those that `inner` has learned.
    """

    def __init__(self, inner: DenoisingPrior, schedule: Schedule) -> None:
        self.inner, self.schedule, self.event_shape = inner, schedule, inner.event_shape
        self.sampler, self.moments = inner.sampler, inner.moments

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        own = self.inner.schedule
        time = own.time(self.schedule.noise_level(t))
        return self.inner.denoise(per_row(own.alpha(time) / self.schedule.alpha(t), x_t) * x_t, time)
