"""Annealed chains over codes: particles cool from the prior to the posterior, and then run on at it.

A decoder of codes is piecewise constant and the posterior under little noise is sharp, with several modes; a chain that
starts cold stays where it starts. So M particles of each problem begin as draws of the prior and pass through

    pi_t(codes) ~ p(codes) L(codes)^beta_t,    0 < beta_1 < ... < beta_T = 1,

weighed by L^(beta_t - beta_(t-1)) at each step, drawn again by weight when fewer than M / 2 of them count, and moved
by a kernel that leaves pi_t invariant (Neal 2001; Del Moral, Doucet, Jasra 2006). Modes keep the share that their
evidence gives them, and the mean weights multiply to an unbiased estimate of p(y).

The ladder is geometric. Its first rung is found for each problem from prior draws of its own, as the power at which
half of them count, so that the noise level sets the ladder and no other problem does: an uninformative measurement
starts at beta = 1 and gets draws of the prior.

At beta = 1 the particles are drawn by weight once more and become chains of the posterior itself. What they leave
invariant is exact; whether they have mixed is for `r_hat` and `effective_sample_size` to say, as for every chain.

The kernel is `Gibbs` (exact conditionals, all K candidates decoded) for codebooks of at most 8, and `Informed`
(gradient, sketched curvature and prior conditionals, with the Metropolis correction) for larger ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.inference.noise.diagnostics import effective_sample_size, split_r_hat
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.inference.tokens.gibbs import Gibbs
from oneprior.inference.tokens.informed import Informed
from oneprior.inference.tokens.target import Calls, Chains, Target
from oneprior.priors.base import TokenPrior

_SMALL = 8
_POOL = 32


@dataclass(frozen=True)
class Annealing(Sampler):
    """Cool M particles of each problem, then run them as chains.

    Args:
        particles: M; by default as many as draws, but at least 8 and at most 32.
        levels: T, rungs of the ladder.
        moves: of every particle at each rung.
        thin: moves between two kept states of a chain.
        move: the kernel; by the size of the codebook by default.

    Source: Neal 2001; Del Moral, Doucet, Jasra 2006.
    """

    name: ClassVar[str] = "annealed codes"
    needs: ClassVar[Needs] = Needs(prior=TokenPrior, density=True)
    particles: int | None = None
    levels: int = 60
    moves: int = 4
    thin: int = 20
    move: Gibbs | Informed | None = None

    def __post_init__(self) -> None:
        if min(1 if self.particles is None else self.particles, self.levels, self.moves, self.thin) < 1:
            raise InputError("annealing needs particles, levels, moves and thin >= 1")

    @classmethod
    def published(cls) -> Self:
        """One move a rung, which is all that the papers ask; particles and rungs depend on the problem there, and
        so these are ours."""
        return cls(moves=1)

    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        assert isinstance(posterior.prior, TokenPrior)
        move = self.move or (Gibbs() if posterior.prior.vocabulary <= _SMALL else Informed())
        rows = rows.to(posterior.prior.device)
        copies = self.particles or min(max(draws, 8), 32)
        target = Target.of(posterior, copies, Calls(), move.width(posterior.prior.vocabulary))
        each = -(-draws // copies)
        total = self.levels * self.moves + each * self.thin
        cooling = _Cooling(target, rows, move)
        beta = first_rung(target, rows.stream("pool"))
        for level in range(self.levels):
            power = beta if self.levels == 1 else beta ** (1 - level / (self.levels - 1))
            cooling.to(torch.ones_like(beta) if level == self.levels - 1 else power)
            for _ in range(self.moves):
                cooling.move()
            done = (level + 1) * self.moves / total
            yield self._draws(cooling, [target.events(cooling.chains.codes)], [], draws, done)
        cooling.resample(torch.ones(target.n, dtype=torch.bool, device=beta.device))
        kept: list[Tensor] = []
        trace: list[Tensor] = []
        for step in range(each * self.thin):
            cooling.move()
            trace.append((cooling.chains.value + cooling.chains.log_prior).reshape(copies, -1))
            if step % self.thin == self.thin - 1:
                kept.append(target.events(cooling.chains.codes))
                yield self._draws(cooling, kept, trace, draws, (self.levels * self.moves + step + 1) / total)

    def _draws(self, cooling: _Cooling, kept: list[Tensor], trace: list[Tensor], draws: int, done: float) -> Draws:
        diagnostics: dict[str, Tensor] = {
            "acceptance": cooling.acceptance.mean(0),
            "log_evidence": cooling.log_evidence,
            "particles_that_count": cooling.least,
            "map_codes": cooling.best_codes.reshape(-1, *cooling.target.prior.grid),
            "log_map_density": cooling.best,
        }
        if trace:
            states = torch.stack(trace)
            diagnostics |= {"r_hat": split_r_hat(states), "effective_sample_size": effective_sample_size(states)}
        x = torch.cat(kept)
        return Draws(
            x[:draws],
            self.name,
            exact=bool(trace),
            network_calls=cooling.target.calls.rows,
            done=done,
            diagnostics=diagnostics,
            centre=x.mean(0),
            spread=x.std(0, correction=0) if not trace else None,
        )


class _Cooling:
    """Particles on their way down; M copies of n problems, draw-major."""

    def __init__(self, target: Target, rows: Rows, move: Gibbs | Informed) -> None:
        self.target, shape = target, (target.copies, target.n)
        self.choice = rows.stream("resample")
        streams = rows.stream("particles").repeat(target.copies)
        self.chains: Chains = move.chains(target, target.sample(streams), streams)
        self.beta = torch.zeros(target.n, dtype=torch.float64, device=rows.device)
        self.log_weight = torch.zeros(shape, dtype=torch.float64, device=rows.device)
        self.log_evidence = torch.zeros_like(self.beta)
        self.least = torch.full_like(self.beta, target.copies)
        self.acceptance = torch.zeros(shape, dtype=torch.float64, device=rows.device)
        self.best = torch.full_like(self.beta, -torch.inf)
        self.best_codes = self.chains.codes[: target.n].clone()

    def to(self, beta: Tensor) -> None:
        """Weigh for the next power (n,), and draw again where too few count."""
        value = self.chains.value.reshape(self.log_weight.shape)
        step = torch.where(beta > self.beta, (beta - self.beta) * value, 0.0)
        fresh = self.log_weight + step
        self.log_evidence = self.log_evidence + fresh.logsumexp(0) - self.log_weight.logsumexp(0)
        self.log_weight, self.beta = fresh, beta
        count = counting(fresh)
        self.least = torch.minimum(self.least, count)
        self.resample(count < 0.5 * self.target.copies)

    def resample(self, where: Tensor) -> None:
        """Systematic resampling of the problems `where`, (n,) bool; the others stay."""
        M, n = self.log_weight.shape
        u = self.choice.uniform(dtype=torch.float64)
        if not bool(where.any()):
            return
        share = self.log_weight.softmax(0).nan_to_num(1.0 / M).cumsum(0).T.contiguous()
        comb = (torch.arange(M, device=u.device) + u[:, None]) / M * share[:, -1:]
        chosen = torch.searchsorted(share, comb).clamp_max(M - 1).T
        chosen = torch.where(where, chosen, torch.arange(M, device=u.device)[:, None])
        self.chains.take((chosen * n + torch.arange(n, device=u.device)).flatten())
        self.log_weight = torch.where(where, 0.0, self.log_weight)

    def move(self) -> None:
        """One move of every particle at the present power."""
        M, n = self.log_weight.shape
        self.acceptance = self.chains.step(self.beta.repeat(M)).reshape(M, n)
        density = (self.chains.value + self.chains.log_prior).reshape(M, n)
        value, at = density.max(0)
        better = value > self.best
        codes = self.chains.codes.reshape(M, n, -1)[at, torch.arange(n, device=at.device)]
        self.best = torch.where(better, value, self.best)
        self.best_codes = torch.where(better[:, None], codes, self.best_codes)


def counting(log_weight: Tensor) -> Tensor:
    """How many of (M, n) weights count, 1 / sum of their squared shares; (n,)."""
    return (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp().nan_to_num(1.0)


def first_rung(target: Target, rows: Rows) -> Tensor:
    """The power in (0, 1] at which half of a pool of prior draws counts, for each problem; float64 (n,)."""
    pool = Target.of(target.posterior, _POOL, target.calls)
    value = pool.log_likelihood(pool.sample(rows.repeat(_POOL))).reshape(_POOL, -1)
    low = torch.full((target.n,), -23.0, dtype=torch.float64, device=value.device)  # log beta
    high = torch.zeros_like(low)
    enough = counting(value) >= 0.5 * _POOL
    for _ in range(30):
        middle = 0.5 * (low + high)
        many = counting(middle.exp() * value) >= 0.5 * _POOL
        low, high = torch.where(many, middle, low), torch.where(many, high, middle)
    return torch.where(enough, 0.0, low).exp()
