"""Evidence about x: one log-likelihood per row, and how it looks through a map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor


class Likelihood(ABC):
    """x -> log L(x), one number per row. It knows no prior.

    A likelihood belongs to n rows (one measurement each); `take` re-orders, drops or repeats them.
    """

    differentiable: bool = True

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """(n, *event_shape) -> (n,); up to a constant only where the docstring says so."""

    @abstractmethod
    def pullback(self, f: Callable[[Tensor], Tensor]) -> Likelihood:
        """The likelihood z -> L(f(z))."""

    @abstractmethod
    def take(self, index: Tensor) -> Likelihood:
        """The likelihood of the rows `index`, (m,) int64, which may repeat."""

    def repeat(self, draws: int) -> Likelihood:
        """Draw-major copies: row s * n + i is the row i again."""
        import torch

        n = self.rows
        return self if n is None else self.take(torch.arange(draws * n) % n)

    @property
    @abstractmethod
    def rows(self) -> int | None:
        """n, or None when it serves any number of rows."""
