"""Elliptical slice sampling on the base noise: exact in the limit, no gradient, nothing to tune.

With u ~ N(0, I) a priori, the ellipse u' = u cos(a) + v sin(a), v ~ N(0, I), leaves the prior invariant; a point on it
is chosen by slice sampling of the likelihood alone, shrinking the bracket until one is accepted (Murray, Adams, MacKay
2010, figure 2). Every iteration moves. It suits operators and decoders that cannot be differentiated; a sharp
likelihood makes its moves small, and then HMC is the better choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from oneprior.core import DivergedError, InputError, Rows, per_row
from oneprior.inference.noise.diagnostics import effective_sample_size, split_r_hat
from oneprior.inference.noise.target import precision, stop_where_lost
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.priors.base import NoisePrior

_SHRINKS = 200


@dataclass(frozen=True)
class EllipticalSlice(Sampler):
    """Parallel chains for all rows at once, each with its own brackets.

    Args:
        chains: chains of each row, at most one for each draw.
        warmup: iterations that are thrown away.
        thin: iterations between two kept draws of a chain.

    Source: Murray, Adams, MacKay 2010, figure 2.
    """

    name: ClassVar[str] = "elliptical slice"
    needs: ClassVar[Needs] = Needs(prior=NoisePrior, density=True)
    chains: int = 4
    warmup: int = 300
    thin: int = 20

    def __post_init__(self) -> None:
        if min(self.chains, self.thin) < 1 or self.warmup < 0:
            raise InputError("elliptical slice sampling needs chains and thin >= 1 and warmup >= 0")

    @classmethod
    def published(cls) -> Self:
        """One long chain, as in the paper's comparisons: 10,000 iterations of burn-in, nothing thinned."""
        return cls(chains=1, warmup=10_000, thin=1)

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        prior, n = posterior.prior, posterior.n
        assert isinstance(prior, NoisePrior)
        chains = min(self.chains, draws)
        each = -(-draws // chains)
        many, streams = posterior.repeat(chains), rows.to(prior.device).repeat(chains)

        step = 0

        def level(u: Tensor) -> Tensor:
            value = many.likelihood.log_prob(prior.decode(u))
            stop_where_lost(value.isnan(), self.name, n, step)
            return value

        u = streams.normal(*prior.noise_shape, dtype=precision(posterior.likelihood))
        value = level(u)
        if not bool(torch.isfinite(value).all()):
            bad = (~torch.isfinite(value.reshape(chains, n))).any(0).nonzero().flatten().tolist()
            raise DivergedError(f"elliptical slice: the log likelihood of rows {bad} is not finite at step 0")
        kept: list[Tensor] = []
        trace: list[Tensor] = []
        calls, total = many.n, self.warmup + each * self.thin
        for step in range(total):
            u, value, tries = slice_move(level, u, value, streams)
            calls += many.n * tries
            if step < self.warmup:
                continue
            trace.append(value.reshape(chains, n))
            if (step - self.warmup) % self.thin == self.thin - 1:
                calls += many.n
                kept.append(posterior.events(prior.decode(u).unflatten(0, (chains, n))))
                states = torch.stack(trace)
                diagnostics = {"r_hat": split_r_hat(states), "effective_sample_size": effective_sample_size(states)}
                x = torch.cat(kept)[:draws]
                yield Draws(x, self.name, True, calls, done=(step + 1) / total, diagnostics=diagnostics)


def slice_move(
    level: Callable[[Tensor], Tensor], u: Tensor, value: Tensor, streams: Rows
) -> tuple[Tensor, Tensor, int]:
    """One iteration of every chain: the new points, their log likelihoods, and how often the likelihood was asked.

    Each chain reads the k-th number of its own stream at its k-th try, whatever the other chains do.
    """
    v = streams.normal(*u.shape[1:], dtype=u.dtype)
    threshold = value + streams.uniform().log()
    fresh = streams.stream(f"angles {streams.calls}")
    angle = 2 * math.pi * fresh.uniform()
    low, high = angle - 2 * math.pi, angle.clone()
    found = torch.zeros_like(value, dtype=torch.bool)
    for attempt in range(1, _SHRINKS + 1):
        other = u * per_row(angle.cos(), u) + v * per_row(angle.sin(), u)
        there = level(other)
        accept = ~found & (there > threshold)
        new = accept.reshape(-1, *[1] * (u.dim() - 1))
        u, v = torch.where(new, other, u), torch.where(new, torch.zeros_like(v), v)
        value, found = torch.where(accept, there, value), found | accept
        if bool(found.all()):
            return u, value, attempt
        low = torch.where(~found & (angle < 0), angle, low)
        high = torch.where(~found & (angle >= 0), angle, high)
        angle = low + (high - low) * fresh.uniform()
        angle = torch.where(found, torch.zeros_like(angle), angle)
    return u, value, _SHRINKS  # brackets this small: staying is an exact move too
