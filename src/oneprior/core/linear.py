"""Linear algebra on events: inner products, norms and solves, one per row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> for each row; complex numbers count as pairs of reals; (n, *shape), (n, *shape) -> (n,)."""
    return (a.conj() * b).real.flatten(1).sum(1)


def norm(a: Tensor) -> Tensor:
    """Euclidean norm of each row; (n, *shape) -> (n,)."""
    return inner(a, a).sqrt()


def per_row(value: Tensor | float, like: Tensor) -> Tensor:
    """A number, or one number per row (n,), shaped to broadcast against `like` (n, *shape)."""
    value = torch.as_tensor(value, dtype=like.real.dtype, device=like.device)
    return value.reshape(-1, *[1] * (like.dim() - 1)) if value.dim() else value


def conjugate_gradient(
    operator: Callable[[Tensor], Tensor],
    b: Tensor,
    x: Tensor | None = None,
    *,
    tolerance: float = 1e-6,
    max_steps: int = 200,
) -> Tensor:
    """Solve operator(x) = b for a symmetric positive definite operator, each row on its own.

    Rows that have converged, |operator(x) - b| <= tolerance |b|, stand still while the others go on.

    Args:
        operator: linear map of (n, *shape) to itself, acting on each row alone.
        b: right-hand sides, (n, *shape).
        x: first guess; zero by default.
        tolerance: relative residual.
        max_steps: the most applications of the operator.

    Returns:
        The solutions, (n, *shape).

    Source: Hestenes and Stiefel 1952.
    """
    x = torch.zeros_like(b) if x is None else x.clone()
    r = b - operator(x)
    p, rho = r.clone(), inner(r, r)
    goal = (tolerance**2) * inner(b, b)
    for _ in range(max_steps):
        active = rho > goal
        if not bool(active.any()):
            break
        q = operator(p)
        step = torch.where(active, rho / inner(p, q).clamp_min(torch.finfo(rho.dtype).tiny), torch.zeros_like(rho))
        x = x + per_row(step, b) * p
        r = r - per_row(step, b) * q
        previous, rho = rho, torch.where(active, inner(r, r), rho)
        ratio = rho / previous.clamp_min(torch.finfo(rho.dtype).tiny)
        p = torch.where(per_row(active, b).bool(), r + per_row(ratio, b) * p, p)
    return x
