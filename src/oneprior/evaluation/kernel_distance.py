"""The kernel distance: the squared maximum mean discrepancy between two sets of features (Binkowski et al. 2018).

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),    k(x, y) = (x . y / d + 1)^3

With Inception features it is the KID. The estimate is unbiased for any number of events (and so may fall below zero),
which the Frechet distance is not. It is made on disjoint blocks of both sets: their values are independent, so that
their spread gives an honest standard error. (The usual 100 random subsets overlap, and their spread does not.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError


@dataclass(frozen=True)
class KernelDistance:
    """An estimate. Those of disjoint parts of two sets are joined by `+`, so that large sets can be streamed.

    Args:
        each: of every block, (blocks,) float64.
        size: events of each set in a block.
    """

    each: Tensor
    size: int

    @property
    def value(self) -> float:
        """Mean of the blocks; 0 for equal laws, and then as often below as above."""
        return float(self.each.mean())

    @property
    def standard_error(self) -> float:
        """Of value; nan for one block."""
        return float(self.each.std() / self.blocks**0.5) if self.blocks > 1 else float("nan")

    @property
    def blocks(self) -> int:
        """How many."""
        return len(self.each)

    def __add__(self, other: KernelDistance) -> KernelDistance:
        if self.size != other.size:
            raise InputError(
                f"kernel distances of blocks of {self.size} and {other.size} cannot be joined; use one size"
            )
        return KernelDistance(torch.cat([self.each, other.each]), self.size)


def kernel_distance(a: Tensor, b: Tensor, rows: Rows, *, size: int = 1000) -> KernelDistance:
    """The squared maximum mean discrepancy under the cubic kernel.

    Args:
        a: features, (n, d).
        b: features, (m, d).
        rows: one row, which shuffles both sets before they are cut.
        size: events in a block.

    Returns:
        The estimate, from as many blocks as both sets have.

    Raises:
        ShapeError: for features of different length.
        InputError: for fewer events than one block, or fewer than two in a block.

    Source: Binkowski, Sutherland, Arbel, Gretton 2018, "Demystifying MMD GANs", section 4.
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise ShapeError("features of the second set", tuple(b.shape), ("m", *a.shape[1:]), "Use one feature network.")
    blocks = min(len(a), len(b)) // max(size, 1)
    if size < 2 or blocks < 1:
        raise InputError(
            f"a block of {size} events needs at least 2, and as many in each set: there are {len(a)} and {len(b)}; "
            "give a smaller size"
        )
    parts = [_shuffled(x, rows.stream(name)).double()[: blocks * size].split(size) for x, name in ((a, "a"), (b, "b"))]
    return KernelDistance(torch.stack([squared_discrepancy(x, y) for x, y in zip(*parts, strict=True)]), size)


def squared_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate from two sets of equal number, (m, d) each; a scalar of their type."""
    m, d = x.shape
    within = [(((z @ z.T) / d + 1) ** 3) for z in (x, y)]
    same = sum((k.sum() - k.diagonal().sum()) / (m * (m - 1)) for k in within)
    return same - 2 * ((x @ y.T / d + 1) ** 3).mean()


def _shuffled(x: Tensor, rows: Rows) -> Tensor:
    return x[rows.to(x.device).bits(len(x))[0].argsort()]
