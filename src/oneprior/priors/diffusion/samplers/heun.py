"""Heun's method on the probability-flow ODE (Karras, Aittala, Aila, Laine 2022, algorithm 1).

In the variance-exploding form the ODE is d x / d s = (x - D(x; s)) / s. A step from s to s' is Euler's, corrected by
the trapezoid with the slope at its end. In terms of the denoised events D at the start and D' at the end it becomes

    x' = x_euler + alpha' (s - s') / (2 s') (D' - D),

which holds for any schedule and needs no division by a vanishing alpha. Two calls a step, second order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.priors.diffusion.samplers.base import KARRAS, DiffusionSampler, Grid, State, combine
from oneprior.priors.diffusion.schedule import DenoisingPrior


@dataclass(frozen=True)
class Heun(DiffusionSampler):
    """Second order, two network calls a step; deterministic.

    Args:
        steps: times of the grid; 2 steps - 1 network calls (18 steps are the 35 calls of the paper).
        grid: where they are.
        final: end with E[x | x_t].

    Source: Karras et al. 2022, algorithm 1.
    """

    steps: int = 18
    grid: Grid = KARRAS
    final: bool = True

    @property
    def nfe(self) -> int:
        return 2 * self.steps - 1 if self.final else 2 * self.steps - 2

    def iterate(self, prior: DenoisingPrior, rows: Rows | None = None, x: Tensor | None = None) -> Iterator[State]:
        path, x_t = self.start(prior, rows, x)
        if math.isinf(path.level(0)):
            raise InputError("Heun's method cannot start from an infinite noise level: begin the grid below t = 1")
        for k in range(len(path) - 1):
            x0 = prior.denoise(x_t, path.t[k])
            a, b = path.deterministic(k)
            euler = combine(a, x_t, b, x0)
            end = prior.denoise(euler, path.t[k + 1])
            trapezoid = path.alpha[k + 1] * (path.level(k) - path.level(k + 1)) / (2 * path.level(k + 1))
            x_t = euler.add(end, alpha=trapezoid).sub_(x0, alpha=trapezoid)
            yield State(x_t, end, 2 * (k + 1), (k + 1) / len(path))
        if self.final:
            x0 = prior.denoise(x_t, path.t[-1])
            yield State(x0, x0, self.nfe, 1.0)
