"""The instrument that only adds noise: y = x. Restoring from it is denoising."""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.operators.base import LinearOperator


class Identity(LinearOperator):
    """y = x.

    Args:
        in_shape: shape of one x.
    """

    disjoint = True
    spec = "identity"

    def __init__(self, in_shape: torch.Size | tuple[int, ...]) -> None:
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(in_shape)

    def apply(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y
