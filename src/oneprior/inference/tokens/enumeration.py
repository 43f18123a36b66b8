"""The posterior over codes by counting them all: no iteration, no approximation.

    p(codes | y) = p(codes) L(codes) / sum over all K^L grids of the same.

Draws are exact and independent; mean, standard deviation, evidence and the likeliest grid are sums over all grids, not
averages of draws. It is the reference that the other methods of this road are tested against, and serves as long as
K^L is a number one can decode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from oneprior.core import DivergedError, InputError, Rows
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.inference.tokens.target import Calls, Target, check_finite, check_small
from oneprior.priors.base import TokenPrior

_NEGLIGIBLE = 1e-12  # share of the posterior under which a grid is not decoded for the mean


@dataclass(frozen=True)
class Enumeration(Sampler):
    """Weigh every grid of codes.

    Args:
        limit: the most grids, K^L; checked before any work.
        batch: grids of every row that are worked on at once; by memory where it is 0.
    """

    name: ClassVar[str] = "enumeration"
    needs: ClassVar[Needs] = Needs(prior=TokenPrior, density=True)
    limit: int = 1_000_000
    batch: int = 0

    def __post_init__(self) -> None:
        if self.limit < 1 or self.batch < 0:
            raise InputError("enumeration needs limit >= 1 and batch >= 0")

    def check(self, posterior: Posterior) -> None:
        """Also that there are few enough grids; raises `InputError`."""
        super().check(posterior)
        assert isinstance(posterior.prior, TokenPrior)
        check_small(posterior.prior, self.limit, self.name)

    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        target = Target.of(posterior, 1, Calls(), 2)
        assert isinstance(posterior.prior, TokenPrior)
        count, n = posterior.prior.vocabulary**target.length, posterior.n
        piece = self.batch or target.chunk
        log = torch.empty(count, n, dtype=torch.float64, device=posterior.prior.device)
        for start in range(0, count, piece):
            index = torch.arange(start, min(start + piece, count), device=log.device)
            codes = grids(target, index).repeat_interleave(n, 0)
            value = target.log_likelihood(codes)
            check_finite(value, self.name, n, start)
            log[index] = (target.log_prior(codes) + value).reshape(-1, n)
        evidence = log.logsumexp(0)
        if bool((evidence == -torch.inf).any()):
            bad = (evidence == -torch.inf).nonzero().flatten().tolist()
            raise DivergedError(f"{self.name}: no grid of codes is possible for rows {bad}")
        share = (log - evidence).exp()
        mean, spread = self._moments(target, share, piece)
        x = target.events(grids(target, self._chosen(share, draws, rows).flatten()))
        best = log.argmax(0)
        yield Draws(
            x,
            self.name,
            exact=True,
            network_calls=target.calls.rows,
            diagnostics={
                "log_evidence": evidence,
                "map_codes": grids(target, best).reshape(n, *posterior.prior.grid),
                "log_map_density": log.amax(0),
                "entropy": torch.special.entr(share).sum(0),
            },
            centre=mean.to(x),
            spread=spread.to(x),
        )

    def _moments(self, target: Target, share: Tensor, piece: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x, float64, over the grids that have a share in some row."""
        share = torch.where(share > _NEGLIGIBLE, share, 0.0)
        share = share / share.sum(0)
        (wanted,) = (share > 0).any(1).nonzero(as_tuple=True)
        total = square = torch.zeros((), dtype=torch.float64, device=share.device)
        for index in wanted.split(piece):
            x = target.events(grids(target, index).repeat_interleave(target.n, 0)).double()
            weight = share[index].reshape(len(index), target.n, *[1] * (x.dim() - 2))
            total, square = total + (weight * x).sum(0), square + (weight * x.square()).sum(0)
        return total, (square - total.square()).clamp_min(0.0).sqrt()

    def _chosen(self, share: Tensor, draws: int, rows: Rows) -> Tensor:
        """`draws` grids of each row by their share, as numbers; (draws, n)."""
        u = rows.to(share.device).uniform(draws, dtype=torch.float64)
        cumulative = share.cumsum(0).T.contiguous()
        return torch.searchsorted(cumulative, u * cumulative[:, -1:]).clamp_max(len(share) - 1).T


def grids(target: Target, index: Tensor) -> Tensor:
    """The grids of these numbers, 0 .. K^L - 1, last position fastest; (m,) -> (m, L)."""
    K, L = target.prior.vocabulary, target.length
    powers = K ** torch.arange(L - 1, -1, -1, device=index.device)
    return index[:, None] // powers % K
