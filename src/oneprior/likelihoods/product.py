"""Several pieces of evidence at once: the product of their likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from oneprior.core import InputError
from oneprior.likelihoods.base import Likelihood


class Product(Likelihood):
    """log L(x) = sum of log L_i(x); nested products are laid flat.

    Args:
        factors: at least one; those that belong to rows agree on how many.

    Raises:
        InputError: for no factor, or factors of different numbers of rows.
    """

    def __init__(self, factors: Sequence[Likelihood]) -> None:
        flat: list[Likelihood] = []
        for factor in factors:
            flat.extend(factor.factors if isinstance(factor, Product) else (factor,))
        counts = {factor.rows for factor in flat} - {None}
        if not flat or len(counts) > 1:
            raise InputError(f"a product needs factors of one number of rows, got {sorted(map(str, counts))}")
        self.factors = tuple(flat)
        self._rows = next(iter(counts), None)

    @property
    def rows(self) -> int | None:
        return self._rows

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return all(factor.differentiable for factor in self.factors)

    def log_prob(self, x: Tensor) -> Tensor:
        total = self.factors[0].log_prob(x)
        for factor in self.factors[1:]:
            total = total + factor.log_prob(x)
        return total

    def pullback(self, f: Callable[[Tensor], Tensor]) -> Product:
        return Product([factor.pullback(f) for factor in self.factors])

    def take(self, index: Tensor) -> Product:
        return Product([factor.take(index) for factor in self.factors])
