"""The noise road of a diffusion: the probability-flow ODE as a map from Gaussian noise to events, and back.

The ODE of Song et al. 2021 (equation 13) carries noise at the top of the schedule to the data, one point to one point,
so that any denoising prior is also x = decode(u) with u ~ N(0, I), which every noise-space method can use. Two things
are said here because they are easily forgotten. The map is the solver's, and few steps give a slightly
different law: of a Gaussian with variances from 0.01 to 1, 16 steps miss the worst variance by 4 %, the default 32 by
1 % (Karras' grid with 32 steps by 6 %). And for a learned denoiser the ODE's law and the denoiser's own agree only as
far as the network is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from oneprior.priors.base import NoisePrior
from oneprior.priors.diffusion.samplers import DiffusionSampler, DPMSolver, Grid
from oneprior.priors.diffusion.samplers.base import first_u, first_x
from oneprior.priors.diffusion.schedule import DenoisingPrior

LAW = Grid("logsnr", low=0.005, high=40.0)


class OdePrior(NoisePrior):
    """x = decode(u): the probability-flow ODE of a denoising prior in a fixed number of steps, differentiable.

    Args:
        prior: whose ODE it is.
        steps: network calls of one `decode`; part of the law.
        sampler: a deterministic sampler to use instead of DPM-Solver++(2M) with `steps`.
        checkpointing: keep no activations of the network, and run it again in the backward pass: memory of one call
            instead of `steps`, at a third more time.
    """

    def __init__(
        self,
        prior: DenoisingPrior,
        steps: int = 32,
        *,
        sampler: DiffusionSampler | None = None,
        checkpointing: bool = False,
    ) -> None:
        self.base = _Checkpointed(prior) if checkpointing else prior
        self.solver = sampler or DPMSolver(steps, LAW)
        self.event_shape = self.noise_shape = prior.event_shape

    @property
    def device(self) -> torch.device:
        return self.base.device

    def decode(self, u: Tensor) -> Tensor:
        path = self.solver.grid.path(self.base.schedule, self.solver.steps)
        return self.solver(self.base, None, first_x(self.base, path, u))

    def encode(self, x: Tensor, steps: int | None = None) -> Tensor:
        """The noise that `decode` turns into x, up to the error of the steps: the ODE run upwards by Heun's method.

        Args:
            x: events, (n, *event_shape).
            steps: intervals, two network calls each; those of `decode` by default.

        Returns:
            u, (n, *noise_shape), nearly standard normal where x follows the prior.
        """
        path = _rising(self.solver.grid).path(self.base.schedule, (steps or self.solver.steps) + 1, self.device)
        order = range(len(path) - 1, 0, -1)
        x_t = path.alpha[-1] * x
        for k in order:
            low, high = k, k - 1
            x0 = self.base.denoise(x_t, path.t[low])
            ratio = path.sigma[high] / path.sigma[low]
            euler = ratio * x_t + (path.alpha[high] - ratio * path.alpha[low]) * x0
            end = self.base.denoise(euler, path.t[high])
            trapezoid = path.alpha[high] * (path.level(low) - path.level(high)) / (2 * path.level(high))
            x_t = euler + trapezoid * (end - x0)
        return first_u(self.base, path, x_t)


def _rising(grid: Grid) -> Grid:
    """The grid of the way up, which cannot start where nothing is noise (t = 0), nor stretch a list of times."""
    return LAW if grid.times or grid.kind == "uniform" else grid


@dataclass
class _Checkpointed(DenoisingPrior):
    """The same prior, whose calls keep no activations."""

    inner: DenoisingPrior

    def __post_init__(self) -> None:
        self.schedule, self.event_shape = self.inner.schedule, self.inner.event_shape
        self.moments = self.inner.moments

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.inner.denoise(x_t, t)
        return checkpoint(self.inner.denoise, x_t, t, use_reentrant=False)  # type: ignore[return-value]
