"""The largest singular value of a linear map, by which instruments are scaled to unit norm.

Power iteration needs many products where singular values crowd. Lanczos' method makes the same Krylov vectors
v, A'A v, (A'A)^2 v .. and takes the best Rayleigh quotient of all their combinations, which converges twice as fast in
the exponent (Golub and Kahan 1965; Golub and Van Loan 2013, section 10.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def largest_singular_value(gram: Callable[[Tensor], Tensor], start: Tensor, steps: int = 24) -> float:
    """The norm of A, from products with A'A.

    Args:
        gram: v -> A'A v, (1, *shape) to itself.
        start: first vector, (1, *shape), real or complex, not orthogonal to the answer.
        steps: products; fewer where the space is exhausted.
    """
    basis, diagonal, beside = [start / start.norm()], [], []
    for _ in range(min(steps, start.numel())):
        v = gram(basis[-1])
        diagonal.append(float(torch.vdot(basis[-1].flatten(), v.flatten()).real))
        for _ in range(2):  # twice: the first pass leaves rounding errors behind
            for b in basis:
                v = v - torch.vdot(b.flatten(), v.flatten()) * b
        length = float(v.norm())
        if length <= 1e-10 * max(diagonal):
            break
        beside.append(length)
        basis.append(v / length)
    k = len(diagonal)
    small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    off = torch.tensor(beside[: k - 1], dtype=torch.float64)
    small = small + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(small)[-1].clamp_min(0).sqrt())
