"""A denoiser of another library as a prior: any function D(x, sigma) that answers for E[x | x + sigma noise].

That is the convention of EDM and of deepinv's denoisers: x = clean + sigma noise, nothing rescaled, sigma a standard
deviation in the units of x. In the house's words it is a `DenoisingPrior` on a schedule with alpha = 1; on any other
schedule x_t / alpha_t is such an x with noise sigma_t / alpha_t, so one function serves all of them.

The function's own units (deepinv: images in [0, 1]) are an `AffineMap`: with x_own = scale x + offset the noise is
scale times as large, and D is asked there and its answer taken back. Many libraries train for small noise only, while
drawing starts at noise that drowns the data; `sigma_max` says how far the function can be trusted, and draws start
there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from oneprior.core import AffineMap, InputError, ShapeError, per_row
from oneprior.priors.diffusion.prior import Calls
from oneprior.priors.diffusion.samplers import DiffusionSampler
from oneprior.priors.diffusion.schedule import DenoisingPrior, Schedule
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian

OWN = AffineMap()


class ForeignDenoiser(DenoisingPrior):
    """E[x | x_t] by a function of (x, sigma).

    Args:
        function: (n, *event_shape) in its own units, with white noise of deviation sigma (n,) in those units -> the
            clean event, of the same shape. A function that takes sigma as a number wants `lambda x, s: f(x, s[0])` and
            samplers that give all rows one noise level, as all of ours do.
        event_shape: (channels, *space).
        schedule: what x_t and t refer to; alpha = 1 with noise up to `sigma_max` by default.
        units: the function's own, as a map from [-1, 1]; `AffineMap.from_range(0, 1)` for images in [0, 1].
        sigma_max: the largest noise it was trained for, in its own units; 80 for EDM's.
        sampler: the integrator of `sample`.
        moments: a Gaussian of the data in [-1, 1], from which guidance takes its covariance.
        device: where the function computes.

    Raises:
        InputError: for a sigma_max that is not positive.
    """

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        event_shape: torch.Size | tuple[int, ...],
        schedule: Schedule | None = None,
        *,
        units: AffineMap = OWN,
        sigma_max: float = 80.0,
        sampler: DiffusionSampler | None = None,
        moments: LowRankGaussian | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not sigma_max > 0:
            raise InputError(f"sigma_max is the largest noise of the denoiser's training, > 0, got {sigma_max}")
        top = sigma_max / units.scale
        self.function, self.units, self.event_shape = function, units, torch.Size(event_shape)
        self.schedule = schedule or EDMSchedule(min(0.002, top / 2), top, preserving=False)
        self.sampler, self.moments = sampler, moments
        self._device = torch.device(device)
        self.calls: Calls = Calls()

    @property
    def device(self) -> torch.device:
        return self._device

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        if x_t.shape[1:] != self.event_shape:
            raise ShapeError("x_t", tuple(x_t.shape), ("n", *self.event_shape))
        t = torch.as_tensor(t, device=x_t.device)
        alpha = per_row(self.schedule.alpha(t).to(x_t), x_t)
        level = self.schedule.noise_level(t).to(x_t).expand(len(x_t))
        self.calls.batches += 1
        self.calls.rows += len(x_t)
        clean = self.function(self.units.to_units(x_t / alpha), level * self.units.scale)
        if clean.shape != x_t.shape:
            remedy = "A denoiser returns the clean event, in the shape that it was given."
            raise ShapeError("what the denoiser returned", tuple(clean.shape), tuple(x_t.shape), remedy)
        return self.units.to_model(clean)
