"""One instrument after another, (A B)(x) = A(B(x)); linear where both are, with adjoint (A B)' = B' A'."""

from __future__ import annotations

from torch import Tensor

from oneprior.core import ShapeError
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.uncertain import UncertainCompose, UncertainOperator


def compose(last: Operator, first: Operator) -> Operator:
    """x -> last(first(x)); a `LinearOperator` where both are, an `UncertainOperator` where one is.

    Raises:
        ShapeError: where the output of `first` is no input of `last`.
    """
    if first.out_shape != last.in_shape:
        names = f"{type(last).__name__} after {type(first).__name__}"
        raise ShapeError(names, tuple(first.out_shape), tuple(last.in_shape), "Compose operators whose shapes meet.")
    if isinstance(last, LinearOperator) and isinstance(first, LinearOperator):
        return Compose(last, first)
    if isinstance(last, UncertainOperator) or isinstance(first, UncertainOperator):
        return UncertainCompose(last, first, _words(last, first))
    return NonlinearCompose(last, first)


class Compose(LinearOperator):
    """(A B) x, both linear; made by `compose`."""

    def __init__(self, last: LinearOperator, first: LinearOperator) -> None:
        super().__init__()
        self.last, self.first = last, first
        self.in_shape, self.out_shape = first.in_shape, last.out_shape
        self.differentiable = last.differentiable and first.differentiable
        self.disjoint = last.disjoint and first.disjoint
        self.spec = _words(last, first)

    def apply(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.first.adjoint(self.last.adjoint(y))


class NonlinearCompose(Operator):
    """A(B(x)), one of them not linear; made by `compose`."""

    def __init__(self, last: Operator, first: Operator) -> None:
        super().__init__()
        self.last, self.first = last, first
        self.in_shape, self.out_shape = first.in_shape, last.out_shape
        self.differentiable = last.differentiable and first.differentiable
        self.spec = _words(last, first)

    def apply(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))

    def take(self, index: Tensor) -> Operator:
        last, first = self.last.take(index), self.first.take(index)
        return self if last is self.last and first is self.first else NonlinearCompose(last, first)


def _words(last: Operator, first: Operator) -> str:
    if not first.spec or not last.spec or " + " in first.spec:  # nothing can be said to follow a stack
        return ""
    return " + ".join(f"{first.spec} {part}" for part in last.spec.split(" + "))
