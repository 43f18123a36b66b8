"""Sampling, importance resampling: the method that serves every prior, and says how badly.

Candidates are drawn from the prior, weighed by the likelihood, and drawn again by weight (Rubin 1988). It asks nothing
of prior or operator: not a density, not a gradient, not even continuous noise. It is exact as the number of candidates
grows, and useless where the evidence is sharp: the effective number of candidates behind the answer, 1 / sum w^2, is
reported for each row and must be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import DivergedError, InputError, Rows
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler


@dataclass(frozen=True)
class Resampling(Sampler):
    """Draw from the prior, weigh, draw again.

    Args:
        candidates: prior draws for each row.
        batch: candidates of every row that are worked on at once.

    Source: Rubin 1988.
    """

    name: ClassVar[str] = "resampling"
    needs: ClassVar[Needs] = Needs(density=True)
    candidates: int = 1024
    batch: int = 32

    def __post_init__(self) -> None:
        if self.candidates < 1 or self.batch < 1:
            raise InputError("resampling needs candidates and batch >= 1")

    @torch.no_grad()
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        n = posterior.n
        streams = rows.to(posterior.prior.device)
        race = streams.stream("race")
        best = torch.full((draws, n), -torch.inf, dtype=torch.float64, device=streams.device)
        held: Tensor | None = None
        total, square = (torch.full((n,), -torch.inf, dtype=torch.float64, device=streams.device) for _ in range(2))
        done = 0
        while done < self.candidates:
            count = min(self.batch, self.candidates - done)
            many = posterior.repeat(count)
            z = posterior.prior.sample(streams.stream(f"candidates {done}").repeat(count))
            weight = many.likelihood.log_prob(z).double().reshape(count, n)
            if bool(weight.isnan().any()):
                bad = weight.isnan().any(0).nonzero().flatten().tolist()
                raise DivergedError(f"{self.name}: the log likelihood of rows {bad} is not a number at step {done}")
            total = torch.logaddexp(total, weight.logsumexp(0))
            square = torch.logaddexp(square, (2 * weight).logsumexp(0))
            # Gumbel's race: the candidate with the largest log weight + Gumbel noise is a draw by weight, and the race
            # can be run as the candidates come (Efraimidis and Spirakis 2006).
            noise = -(-race.uniform(draws, count, dtype=torch.float64).log()).log()
            score = weight[None] + noise.permute(1, 2, 0)
            value, winner = score.max(1)
            z = z.unflatten(0, (count, n))
            fresh = z[winner, torch.arange(n, device=z.device)]
            better = (value > best).reshape(draws, n, *[1] * (z.dim() - 2))
            held = fresh if held is None else torch.where(better, fresh, held)
            best = torch.maximum(best, value)
            done += count
            yield Draws(
                posterior.events(held),
                self.name,
                exact=False,
                network_calls=done * n,
                done=done / self.candidates,
                diagnostics={
                    "effective_candidates": (2 * total - square).exp(),
                    "log_evidence": total - torch.tensor(float(done)).log().to(total),
                },
            )
