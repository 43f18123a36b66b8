"""The posterior as a law over grids of codes: pi_beta(codes) ~ p(codes) L(codes)^beta.

What every method of this road asks of it: the log-likelihood of codes, its slope in every one-hot entry, the exact
conditionals p(code_i | codes before i), and a walk along the grid in which some codes are chosen anew and the others
are kept. The walk is one cheap step a position, and what it returns are the conditionals of the new codes, so that
their exact probability costs nothing more.

A problem has several copies (chains, particles, candidates), laid draw-major: row s * n + i is copy s of problem i.
Pieces of work are whole copies, because conditions bound to a prior or a decoder belong to problems.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from oneprior.core import DivergedError, InputError, Rows
from oneprior.inference.posterior import Posterior
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.product import Product
from oneprior.priors.base import TokenPrior
from oneprior.priors.tokens import CausalTokenPrior

_NUMBERS = 1 << 24  # entries of one-hot events (and of their slopes) held at once


@dataclass
class Calls:
    """Rows that went through a network: decoder and prior together, a gradient belonging to its call."""

    rows: int = 0


@dataclass(frozen=True)
class Target:
    """p(codes) L(codes) of `copies` copies of each problem.

    Args:
        posterior: with a `TokenPrior`, its rows not repeated.
        copies: of every problem.
        calls: counts what is asked; shared by all targets of one run.
        chunk: copies worked on at once.
    """

    posterior: Posterior
    copies: int
    calls: Calls
    chunk: int
    repeated: dict[int, Posterior] = field(default_factory=dict)

    @classmethod
    def of(cls, posterior: Posterior, copies: int, calls: Calls | None = None, width: int = 1) -> Target:
        """With pieces of a size that memory holds; `width` arrays of the size of the events at once."""
        numbers = posterior.n * posterior.prior.event_shape.numel() * width
        return cls(posterior, copies, calls or Calls(), max(1, _NUMBERS // max(1, numbers)))

    @property
    def prior(self) -> TokenPrior:
        """The law of the codes."""
        assert isinstance(self.posterior.prior, TokenPrior)
        return self.posterior.prior

    @property
    def n(self) -> int:
        """Problems."""
        return self.posterior.n

    @property
    def size(self) -> int:
        """Rows, copies * n."""
        return self.copies * self.n

    @property
    def length(self) -> int:
        """L, positions of the grid."""
        return self.prior.grid.numel()

    def many(self, copies: int) -> Posterior:
        """The posterior of this many copies."""
        if copies not in self.repeated:
            self.repeated[copies] = self.posterior.repeat(copies)
        return self.repeated[copies]

    def pieces(self, codes: Tensor) -> tuple[Tensor, ...]:
        """Whole copies of (m * n, L), as many as memory holds."""
        return codes.split(self.chunk * self.n)

    def onehot(self, codes: Tensor) -> Tensor:
        """(m, L) -> events (m, K, *grid)."""
        grid = codes.reshape(-1, *self.prior.grid)
        return one_hot(grid, self.prior.vocabulary).movedim(-1, 1).float()

    @torch.no_grad()
    def log_likelihood(self, codes: Tensor) -> Tensor:
        """log L of codes (m * n, L); float64 (m * n,)."""
        self.calls.rows += len(codes)
        parts = [
            self.many(len(piece) // self.n).likelihood.log_prob(self.onehot(piece)).double()
            for piece in self.pieces(codes)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def log_prior(self, codes: Tensor) -> Tensor:
        """log p of codes (m * n, L); float64 (m * n,)."""
        self.calls.rows += len(codes)
        return torch.cat(
            [self.prior.log_prob(piece.reshape(-1, *self.prior.grid)).double() for piece in self.pieces(codes)]
        )

    @torch.no_grad()
    def sample(self, streams: Rows) -> Tensor:
        """Draws of the prior, (len(streams), L); a whole grid is one call a row."""
        self.calls.rows += len(streams)
        return self.prior.sample_codes(streams).flatten(1)

    def events(self, codes: Tensor) -> Tensor:
        """x of codes (m * n, L), as draws (m, n, *event_shape)."""
        self.calls.rows += len(codes)
        with torch.no_grad():
            parts = [self.posterior.decode(self.onehot(piece)) for piece in self.pieces(codes)]
        return torch.cat(parts).unflatten(0, (-1, self.n))

    @torch.no_grad()
    def walk(self, codes: Tensor, choose: Callable[[int, Tensor, Tensor], None]) -> Tensor:
        """Along the grid: `choose(i, logp, codes)` may set `codes[:, i]` when it sees log p(code_i | codes before i).

        Args:
            codes: (N, L), changed in place.
            choose: takes the position, the conditionals (N, K) and the codes.

        Returns:
            The conditionals along the final codes, (N, L, K).
        """
        self.calls.rows += len(codes)
        law = torch.empty(*codes.shape, self.prior.vocabulary, device=codes.device)
        prior, state = self.prior, None
        for i in range(self.length):
            if not isinstance(prior, CausalTokenPrior):
                logits = prior.next_logits(codes.reshape(-1, *prior.grid), i)
            elif i == 0:
                logits, state = prior.begin(len(codes))
            else:
                logits, state = prior.advance(codes[:, i - 1], state)
            law[:, i] = logits.float().log_softmax(-1)
            choose(i, law[:, i], codes)
        return law

    def slopes(self, codes: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Value, gradient and sketched Jacobian of the log-likelihood at codes.

        Args:
            codes: (N, L).
            probes: random signs (N, S, numbers), with as many numbers as the Gaussian evidence has; None for none.

        Returns:
            log L, float64 (N,); its slope in every one-hot entry, (N, L, K); and probe' J / sigma, (N, S, L, K), where
            J is the Jacobian of what the instrument would measure.
        """
        self.calls.rows += len(codes)
        starts = range(0, len(codes), self.chunk * self.n)
        parts = [self._slopes(piece, start, probes) for start, piece in zip(starts, self.pieces(codes), strict=True)]
        value, slope, sketch = (torch.cat(part) for part in zip(*parts, strict=True))
        return value, slope, sketch

    def _slopes(self, codes: Tensor, start: int, probes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        likelihood = self.many(len(codes) // self.n).likelihood
        with torch.enable_grad():
            event = self.onehot(codes).requires_grad_()
            value = likelihood.log_prob(event)
            (slope,) = torch.autograd.grad(value.sum(), event)
            sketch = slope.new_zeros(len(codes), 0, *slope.shape[1:])
            if probes is not None:
                scaled = measured(likelihood, event)
                signs = probes[start : start + len(codes)]
                sketch = torch.stack(
                    [
                        torch.autograd.grad((scaled * signs[:, s]).sum(), event, retain_graph=True)[0]
                        for s in range(signs.shape[1])
                    ],
                    dim=1,
                )
        return value.detach().double(), slope.flatten(2).mT, sketch.flatten(3).mT


class Chains(ABC):
    """Chains under way, one for each copy of each problem.

    Attributes:
        codes: (N, L).
        value: log L of them, float64 (N,).
        log_prior: log p of them, float64 (N,).
    """

    codes: Tensor
    value: Tensor
    log_prior: Tensor

    @abstractmethod
    def take(self, index: Tensor) -> None:
        """Go on from the rows `index`, (N,); the random streams stay where they are."""

    @abstractmethod
    def step(self, beta: Tensor) -> Tensor:
        """One move that leaves p(codes) L(codes)^beta invariant, beta (N,); the chance of acceptance, (N,)."""


def gaussians(posterior: Posterior) -> list[GaussianLikelihood]:
    """The Gaussian factors of the evidence, whose curvature is known."""
    likelihood = posterior.likelihood
    factors = likelihood.factors if isinstance(likelihood, Product) else (likelihood,)
    return [factor for factor in factors if isinstance(factor, GaussianLikelihood)]


def measured(likelihood: object, event: Tensor) -> Tensor:
    """A(f(event)) / sigma of every Gaussian factor, complex numbers as pairs, laid end to end; (N, numbers)."""
    factors = likelihood.factors if isinstance(likelihood, Product) else (likelihood,)
    rows = []
    for factor in factors:
        if isinstance(factor, GaussianLikelihood):
            y = factor.predict(event)
            y = y / factor.noise(y)
            rows.append((torch.view_as_real(y) if y.is_complex() else y).flatten(1).to(event.dtype))
    return torch.cat(rows, 1)


def check_finite(value: Tensor, name: str, n: int, step: int) -> None:
    """log L may be -inf (an impossible grid) and never NaN or +inf.

    Raises:
        DivergedError: names the step and the rows.
    """
    bad = (value.isnan() | (value == torch.inf)).reshape(-1, n).any(0)
    if bool(bad.any()):
        rows = bad.nonzero().flatten().tolist()
        raise DivergedError(f"{name}: the log-likelihood of rows {rows} is not finite at step {step}")


def check_small(prior: TokenPrior, limit: int, name: str) -> int:
    """K^L, where it is at most `limit`.

    Raises:
        InputError: where there are more grids than that.
    """
    count = prior.vocabulary ** prior.grid.numel()
    if count > limit:
        raise InputError(
            f"{name}: {prior.vocabulary} codes on {prior.grid.numel()} positions make more than {limit:,} grids; use "
            "annealed or informed sampling, or raise `limit`"
        )
    return count
