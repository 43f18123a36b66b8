"""The exact posterior of Gaussians and mixtures where nobody told the noise level: sigma is integrated out too.

With x ~ N(mean, S) or a mixture of such, the evidence p(y | sigma) has a closed form, and

    sigma ~ p(sigma | y) ~ p(y | sigma) p(sigma)      on a grid of log sigma,      x ~ p(x | y, sigma)      exactly.

The grid of each row is narrowed onto its own posterior until a twentieth of it is one step: some 40 evidences a stage,
two or three stages. The mean is that over the grid, and the log evidence the integral. What a chain on (x, sigma) takes
thousands of steps for, since an image of d pixels fixes sigma to 1 / sqrt(2 d), takes none here (Liu 1994).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, Rows
from oneprior.inference.closed_form import ClosedForm, exact_posterior
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.unknown_noise import UnknownNoiseLikelihood
from oneprior.priors.base import Prior

_STAGES, _LEFT_OUT = 6, 1e-6  # mass beyond the ends of a narrowed grid


@dataclass(frozen=True)
class UnknownLevel(Sampler):
    """Exact draws of image and noise level, mean and evidence.

    Args:
        grid: values of sigma on a grid.
    """

    name: ClassVar[str] = "closed form, noise level drawn"
    needs: ClassVar[Needs] = Needs(prior=ClosedForm.needs.prior)
    grid: int = 41

    def __post_init__(self) -> None:
        if self.grid < 16:
            raise InputError(f"the grid of noise levels needs 16 values or more, got {self.grid}")

    def check(self, posterior: Posterior) -> None:
        """Raises `IncompatiblePrior` where there is no closed form given sigma."""
        super().check(posterior)
        likelihood = posterior.likelihood
        if not isinstance(likelihood, UnknownNoiseLikelihood) or not likelihood.linear:
            raise IncompatiblePrior(f"{self.name} needs Gaussian noise of unknown level under a linear instrument")

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        likelihood, n = posterior.likelihood, posterior.n
        assert isinstance(likelihood, UnknownNoiseLikelihood)
        low, high = (level.double().log().expand(n) for level in (likelihood.low, likelihood.high))
        levels, evidence = self._located(posterior.prior, likelihood, low, high)
        spacing = levels[:, 1] - levels[:, 0]
        total = evidence.logsumexp(1) + spacing.log() - (high - low).log()
        streams = rows.to(levels.device).repeat(draws)
        row = torch.arange(draws * n, device=levels.device) % n
        chosen = streams.stream("noise level").categorical(evidence[row])
        sigma = levels[row].gather(1, chosen[:, None])[:, 0].exp().to(likelihood.y.real)
        given = exact_posterior(posterior.prior, likelihood.take(row).given(sigma))
        x = given.draw(streams, torch.arange(draws * n, device=levels.device)).unflatten(0, (draws, n))
        weights = evidence.softmax(1)
        mean = None
        if not posterior.decoders:
            share = weights.reshape(n, self.grid, *[1] * len(posterior.event_shape)).to(x)
            mean = sum(share[:, k] * _mean(posterior.prior, likelihood, levels[:, k]) for k in range(self.grid))
        yield Draws(
            posterior.events(x),
            self.name,
            exact=True,
            diagnostics={
                "log_evidence": total.to(likelihood.y.real),
                "noise level": (weights * levels.exp()).sum(1).to(likelihood.y.real),
            },
            centre=mean if isinstance(mean, Tensor) else None,
        )

    def _located(
        self, prior: Prior, likelihood: UnknownNoiseLikelihood, low: Tensor, high: Tensor
    ) -> tuple[Tensor, Tensor]:
        """log sigma on each row's own grid, (n, grid), and log p(y | sigma) there."""
        step = torch.linspace(0, 1, self.grid, dtype=torch.float64, device=low.device)
        for _ in range(_STAGES):
            levels = low[:, None] + (high - low)[:, None] * step
            evidence = torch.stack([_evidence(prior, likelihood, levels[:, k]) for k in range(self.grid)], 1)
            mass = evidence.softmax(1).cumsum(1)
            first = (mass < _LEFT_OUT).sum(1).sub(1).clamp_min(0)
            last = (mass < 1 - _LEFT_OUT).sum(1).add(1).clamp_max(self.grid - 1)
            if bool((last - first >= self.grid // 2).all()):
                break
            low, high = (levels.gather(1, place[:, None])[:, 0] for place in (first, last))
        evidence[:, [0, -1]] -= math.log(2.0)  # the trapezoid rule
        return levels, evidence


def _evidence(prior: Prior, likelihood: UnknownNoiseLikelihood, log_sigma: Tensor) -> Tensor:
    """log p(y | sigma) of each row, (n,), float64."""
    given = likelihood.given(log_sigma.exp().to(likelihood.y.real))
    value = exact_posterior(prior, given).log_evidence.double()
    if not math.isfinite(float(value.sum())):
        raise InputError("the evidence of an unknown noise level is not finite; narrow its range: unknown:LOW:HIGH")
    return value


def _mean(prior: Prior, likelihood: UnknownNoiseLikelihood, log_sigma: Tensor) -> Tensor:
    """E[x | y, sigma], (n, *event_shape)."""
    return exact_posterior(prior, likelihood.given(log_sigma.exp().to(likelihood.y.real))).mean()
