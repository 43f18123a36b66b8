"""Instruments, y = A(x), with exact adjoints; and the words that name them."""

from oneprior.operators.affine import Affine, Matrix
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.compose import compose
from oneprior.operators.downsample import Downsample
from oneprior.operators.grammar import grammar, parse_operator
from oneprior.operators.identity import Identity
from oneprior.operators.mask import Erase, Mask
from oneprior.operators.words import Grammar

__all__ = [
    "Affine",
    "Downsample",
    "Erase",
    "Grammar",
    "Identity",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Operator",
    "compose",
    "grammar",
    "parse_operator",
]
