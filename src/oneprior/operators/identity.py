"""The instrument that only adds noise: y = x. Restoring from it is denoising."""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.words import Grammar, no_values


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


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("identity", values)
    return Identity(in_shape)


WORDS = Grammar(
    "identity",
    ("identity",),
    "Adds nothing but the noise; restoring is denoising.",
    ("identity",),
    _parse,
)
