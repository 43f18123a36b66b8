"""How sharply the posterior of u bends at a point, for each row: H = I + V diag(values) V'.

For Gaussian noise it is Gauss-Newton's, H = I + K' K with K the Jacobian of A decode(u) / sigma, which is positive
definite whatever the network (and the Hessian itself where the network is linear or made of rectifiers). For any
other evidence it is the Hessian of -log L, with eigenvalues below -1/2 raised to it, so that H has a root.

Up to `FULL` directions K is made whole, in min(m, d) products. Above, its largest singular values come from a
randomised range (Halko, Martinsson, Tropp 2011, algorithm 4.1 with one more pass): K' times `rank` random vectors,
made orthonormal to Q, and the singular values of K Q. The prior stands for the directions that are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.inference.noise.target import Linearisation, Target

FULL = 1024
_SPARE = 8  # random vectors beyond the rank


@dataclass(frozen=True)
class Curvature:
    """I + V diag(values) V' for n rows, and its powers; vectors of N = S n rows, draw-major, are taken too.

    Args:
        vectors: V with orthonormal columns, (n, d, k).
        values: > -1, (n, k).
        complete: whether nothing was left out.
    """

    vectors: Tensor
    values: Tensor
    complete: bool = True

    def power(self, v: Tensor, p: float) -> Tensor:
        """H^p v; (S n, d) -> (S n, d)."""
        n, d, _ = self.vectors.shape
        wide = v.reshape(-1, n, d)
        along = torch.einsum("snd,ndk->nsk", wide, self.vectors)
        along = along * ((1 + self.values) ** p - 1)[:, None]
        return v + torch.einsum("nsk,ndk->snd", along, self.vectors).reshape(v.shape)

    def diagonal(self, p: float = 1.0) -> Tensor:
        """The diagonal of H^p, (n, d)."""
        return 1 + (self.vectors.square() * ((1 + self.values) ** p - 1)[:, None]).sum(-1)

    def logdet(self) -> Tensor:
        """log det H, (n,)."""
        return self.values.log1p().sum(-1)


def curvature(target: Target, u: Tensor, rows: Rows, rank: int | None = None) -> Curvature:
    """H of the posterior at u.

    Args:
        target: the posterior.
        u: one point for each problem, (n, d).
        rows: one row for each problem, for the random range.
        rank: directions to keep where there are more; by default all up to `FULL`, and 128 above.
    """
    if not target.gaussian:
        return _hessian(target, u, rows, rank)
    line = Linearisation(target, u)
    m, d = line.residual.shape[1], target.d
    most = FULL if rank is None else rank + _SPARE
    if min(m, d) <= most:
        return of_jacobian(line.matrix())
    rank = rank or 128
    streams = rows.stream("range")
    pulled = [line.adjoint(streams.normal(m, dtype=u.dtype)) for _ in range(rank + _SPARE)]
    range_, _ = torch.linalg.qr(torch.stack(pulled, -1))  # (n, d, rank + spare)
    seen = torch.stack([line.forward(range_[:, :, k]) for k in range(range_.shape[-1])], -1)  # (n, m, rank + spare)
    small = of_jacobian(seen)
    keep = slice(-rank, None)
    return Curvature(range_ @ small.vectors[:, :, keep], small.values[:, keep], complete=False)


def of_jacobian(K: Tensor) -> Curvature:
    """I + K' K of a whole Jacobian, (n, m, d), by the smaller of K' K and K K', in double precision."""
    matrix = K.double()
    m, d = matrix.shape[1:]
    if d <= m:
        values, vectors = torch.linalg.eigh(matrix.mT @ matrix)
        return Curvature(vectors.to(K), values.clamp_min(0.0).to(K))
    values, left = torch.linalg.eigh(matrix @ matrix.mT)
    seen = values > 1e-12 * values[:, -1:].clamp_min(1e-30)
    scale = torch.where(seen, values, 1.0).rsqrt() * seen
    return Curvature(((matrix.mT @ left) * scale[:, None]).to(K), torch.where(seen, values, 0.0).to(K))


def _hessian(target: Target, u: Tensor, rows: Rows, rank: int | None) -> Curvature:
    """By products of the Hessian of -log L with unit vectors, or with a random range."""
    with torch.enable_grad():
        point = u.detach().requires_grad_()
        (slope,) = torch.autograd.grad(-target.log_likelihood(point).sum(), point, create_graph=True)

    def product(v: Tensor) -> Tensor:
        target.calls += len(v)
        if not slope.requires_grad:  # -log L is linear in u
            return torch.zeros_like(v)
        found = torch.autograd.grad(slope, point, v, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(v) if found is None else found

    n, d = u.shape
    most = FULL if rank is None else rank + _SPARE
    if d <= most:
        basis = torch.eye(d, dtype=u.dtype, device=u.device).expand(n, d, d)
    else:
        streams = rows.stream("range")
        pulled = [product(streams.normal(d, dtype=u.dtype)) for _ in range((rank or 128) + _SPARE)]
        basis, _ = torch.linalg.qr(torch.stack(pulled, -1))
    columns = torch.stack([product(basis[:, :, k].contiguous()) for k in range(basis.shape[-1])], -1)
    small = basis.mT @ columns
    values, vectors = torch.linalg.eigh((0.5 * (small + small.mT)).double())
    return Curvature(basis @ vectors.to(u), values.clamp_min(-0.5).to(u), complete=d <= most)
