"""Smooth fields over an image, as short sums of cosines: what a coil's sensitivity, a bias or a fading page looks like.

phi_k(r) = prod_a cos(pi k_a (r_a + 1/2) / n_a) are the eigenfunctions of the Laplacian with mirrored borders. With
independent coefficients of deviation ~ 1 / |k|^2 their sum is a smooth random field without a preferred place.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from oneprior.core import InputError


def cosine_basis(space: torch.Size | tuple[int, ...], order: int, constant: bool = False) -> Tensor:
    """Cosines of total degree 1 to `order`, weighted so that white coefficients give a field of expected mean square 1.

    Args:
        space: spatial shape.
        order: the highest total degree, >= 1.
        constant: whether the field 1 is put first (with deviation 1 of its own).

    Returns:
        (fields, *space), float64.

    Raises:
        InputError: for an order below 1, or a space too small to vary over.
    """
    if order < 1:
        raise InputError(f"the order of a smooth field is a whole number >= 1, got {order}")
    fields, weights = [], []
    for degrees in itertools.product(range(order + 1), repeat=len(space)):
        if not 1 <= sum(degrees) <= order or any(k >= n for k, n in zip(degrees, space, strict=True)):
            continue
        field = torch.ones((), dtype=torch.float64)
        for k, n in zip(degrees, space, strict=True):
            place = (torch.arange(n, dtype=torch.float64) + 0.5) / n
            field = field[..., None] * torch.cos(math.pi * k * place)
        fields.append(field / field.square().mean().sqrt())
        weights.append(1 / sum(k * k for k in degrees))
    if not fields:
        raise InputError(f"a picture of {'x'.join(map(str, space))} is too small for a field that varies")
    scale = torch.tensor(weights, dtype=torch.float64)
    scale = scale / scale.square().sum().sqrt()
    basis = torch.stack(fields) * scale.reshape(-1, *[1] * len(space))
    return torch.cat([torch.ones_like(basis[:1]), basis]) if constant else basis
