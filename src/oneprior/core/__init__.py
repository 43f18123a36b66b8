"""The vocabulary: errors, rows of random numbers, units, geometry, conditions, linear algebra, whole
files, functions of the user's. Imports only torch."""

from oneprior.core.conditions import ConditionSpec
from oneprior.core.errors import (
    BadRunError,
    DivergedError,
    IncompatiblePrior,
    InputError,
    OnePriorError,
    ShapeError,
)
from oneprior.core.files import replacing
from oneprior.core.geometry import Geometry
from oneprior.core.imports import user_function
from oneprior.core.linear import conjugate_gradient, inner, norm, per_row
from oneprior.core.precision import in_bf16, native_bf16
from oneprior.core.rows import Rows
from oneprior.core.still import still_weights
from oneprior.core.units import AffineMap

__all__ = [
    "AffineMap",
    "BadRunError",
    "ConditionSpec",
    "DivergedError",
    "Geometry",
    "IncompatiblePrior",
    "InputError",
    "OnePriorError",
    "Rows",
    "ShapeError",
    "conjugate_gradient",
    "in_bf16",
    "inner",
    "native_bf16",
    "norm",
    "per_row",
    "replacing",
    "still_weights",
    "user_function",
]
