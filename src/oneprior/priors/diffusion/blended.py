"""A network and a closed law of the same data, blended noise level by noise level.

    D(x_t, t) = w(t) D_network(x_t, t) + (1 - w(t)) D_law(x_t, t),

with w in [0, 1] by least squares on events that neither has seen: E |x - D|^2 is quadratic in w at each level, and its
minimum is at w = E <x - D_law, D_network - D_law> / E |D_network - D_law|^2. A short training learns fine structure
long before it learns the law at large noise, where E[x | x_t] is nearly affine and a mixture of Gaussians, fitted in
seconds, is better: on held-out chest films of 32 x 32 a network of an hour of one core has 1.07 to 1.16 times the
mixture's mean square above a noise level of 1, and 0.5 to 0.9 times below 0.5. The blend is at no level worse than
either on the events that it was fitted to; like either, it is a denoiser and no exact posterior mean of one law.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oneprior.core import Rows, ShapeError, per_row
from oneprior.priors.diffusion.prior import DiffusionPrior
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import GaussianMixturePrior

ClosedLaw = LowRankGaussian | GaussianMixturePrior

LEVELS = 17
"""Noise levels at which w is fitted, evenly in their logarithm; linear in it between them."""
LEAST, MOST = 0.02, 50.0
"""The first level and the last, in units of x."""


class Blended(DenoisingPrior):
    """A diffusion that trusts a closed law where that denoises better.

    Args:
        network: the diffusion; schedule, sampler and moments are its own.
        law: of the same events, in closed form.
        levels: noise levels sigma / alpha in ascending order, (k,).
        weights: w at each, in [0, 1], (k,); beyond the ends that of the nearest.
    """

    def __init__(self, network: DiffusionPrior, law: ClosedLaw, levels: Tensor, weights: Tensor) -> None:
        if law.event_shape != network.event_shape:
            raise ShapeError("the closed law's events", tuple(law.event_shape), tuple(network.event_shape))
        if levels.shape != weights.shape or levels.dim() != 1 or len(levels) < 2:
            raise ShapeError("weights of a blend", tuple(weights.shape), f"as many as levels, {tuple(levels.shape)}")
        self.network, self.law, self.levels, self.weights = network, law, levels.double(), weights.double()
        self.schedule, self.event_shape = network.schedule, network.event_shape
        self.sampler, self.moments, self.calls = network.sampler, network.moments, network.calls

    @property
    def device(self) -> torch.device:
        return self.network.device

    def weight(self, t: Tensor) -> Tensor:
        """w at times of any shape."""
        level = self.schedule.noise_level(t).double().clamp(float(self.levels[0]), float(self.levels[-1]))
        logs, weights, at = self.levels.log().to(t.device), self.weights.to(t.device), level.log()
        above = torch.searchsorted(logs, at.contiguous()).clamp(1, len(logs) - 1)
        part = ((at - logs[above - 1]) / (logs[above] - logs[above - 1])).clamp(0.0, 1.0)
        return torch.lerp(weights[above - 1], weights[above], part).to(torch.float32)

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, device=x_t.device)
        share = per_row(self.weight(t).to(x_t.dtype), x_t)
        closed = self.law.denoise(x_t, self.schedule.alpha(t), self.schedule.sigma(t))
        return torch.lerp(closed, self.network.denoise(x_t, t), share.expand_as(closed))


@torch.no_grad()
def blend(network: DiffusionPrior, law: ClosedLaw, x: Tensor, rows: Rows) -> Blended:
    """The blend that is best at each noise level on some events.

    Args:
        network: the diffusion.
        law: of the same events, in closed form.
        x: events that neither has seen, (n, *event_shape).
        rows: n random rows, for the noise; all levels share it, so that w runs smoothly.
    """
    levels = torch.linspace(math.log(LEAST), math.log(MOST), LEVELS, dtype=torch.float64).exp()
    noise, weights = rows.to(x.device).stream("blend").normal(*x.shape[1:]).to(x), []
    for level in levels:
        t = network.schedule.time(level.float().to(x.device))
        alpha, sigma = network.schedule.alpha(t), network.schedule.sigma(t)
        x_t = alpha * x + sigma * noise
        closed = law.denoise(x_t, alpha, sigma)
        apart, missing = (network.denoise(x_t, t) - closed).double(), (x - closed).double()
        energy = apart.square().sum()
        weights.append(((missing * apart).sum() / energy).clamp(0.0, 1.0) if energy > 0 else energy.new_ones(()))
    return Blended(network, law, levels, torch.stack(weights).cpu())
