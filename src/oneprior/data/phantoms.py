"""Phantoms: random ellipses, in one, two or three dimensions, for tests and demonstrations.

Each event is a dark ground with a few overlapping ellipsoids of different brightness, in the manner of Shepp and Logan
1974; edges are one sample wide, so that resolutions can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError, Rows

_ELLIPSES = 6


def phantoms(n: int, shape: tuple[int, ...], rows: Rows | None = None) -> Tensor:
    """Random phantoms.

    x(r) = clip(-1 + sum_k a_k s((1 - |R_k (r - c_k)|) w), -1, 1), s a ramp one sample wide; the first
    ellipsoid is large and holds the others.

    Args:
        n: how many.
        shape: 1, 2 or 3 spatial axes.
        rows: their random streams; `Rows(n)` by default.

    Returns:
        x in [-1, 1], (n, 1, *shape).
    """
    rows = Rows(n) if rows is None else rows
    if len(rows) != n or not 1 <= len(shape) <= 3:
        raise InputError(f"{n} phantoms of shape {shape} need as many rows (got {len(rows)}) and 1 to 3 axes")
    dims = len(shape)
    axes = [(torch.arange(s) + 0.5) * (2 / s) - 1 for s in shape]
    r = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(rows.device)  # (dims, *shape), in [-1, 1]
    x = torch.full((n, *shape), -1.0, device=rows.device)
    expand = (n, dims, *[1] * dims)
    for k in range(_ELLIPSES):
        turn = torch.linalg.qr(rows.normal(dims, dims)).Q
        place, width, level = rows.uniform(dims), rows.uniform(dims), rows.uniform(1)
        if k == 0:
            centre, radius, level = 0.2 * place - 0.1, 0.65 + 0.25 * width, 0.5 + 0.4 * level
        else:
            centre, radius, level = place - 0.5, 0.1 + 0.3 * width, 1.2 * level - 0.5
        offset = r - centre.reshape(expand)
        along = torch.einsum("nij,nj...->ni...", turn, offset) / radius.reshape(expand)
        depth = (1 - along.square().sum(1).sqrt()) * radius.amin(1).reshape(n, *[1] * dims)
        x += level.reshape(n, *[1] * dims) * (depth * min(shape) / 2 + 0.5).clamp(0, 1)
    return x.clamp(-1, 1)[:, None]
