"""Instruments that are only partly known, y = A(x, theta): theta is inferred with the image.

theta is a list of numbers that are N(0, I) a priori. Each operator says how they become physical parameters - a width
is exp(log w0 + s theta), an angle a0 + s theta, a field a sum of smooth functions - so that what is known of the
instrument is stated once, and inference sees white noise beside the noise behind the image (`priors.joint`).

theta = 0 is the nominal instrument: that is what `apply` measures with, and what a method that cannot infer
instruments takes it for. `at(theta)` is the instrument with theta given; where y is linear in x it is a
`LinearOperator`, whose adjoint is the vector-Jacobian product of `evaluate`: exact, since a linear map is its own
derivative.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.operators.affine import Affine
from oneprior.operators.base import LinearOperator, Operator

Form = Literal["linear", "affine", "general"]


class UncertainOperator(Operator):
    """y = A(x, theta), theta ~ N(0, I) a priori.

    Attributes:
        theta_shape: (numbers,), the shape of one theta.
        form: what y is in x when theta is given.
        disjoint: whether, with theta given, no entry of x enters two entries of y; see `LinearOperator`.
    """

    theta_shape: torch.Size
    form: Form = "general"
    disjoint: bool = False

    @abstractmethod
    def evaluate(self, x: Tensor, theta: Tensor) -> Tensor:
        """(n, *in_shape) and (n, *theta_shape) -> (n, *out_shape); differentiable in both where `differentiable`."""

    @abstractmethod
    def physical(self, theta: Tensor) -> dict[str, Tensor]:
        """What theta means: names with units -> values (n, ...); (n, *theta_shape)."""

    def apply(self, x: Tensor) -> Tensor:
        return self.evaluate(x, x.new_zeros(len(x), *self.theta_shape))

    def at(self, theta: Tensor, spec: str = "") -> Operator:
        """The instrument with theta given.

        Args:
            theta: (n, *theta_shape); row i of a batch takes theta[i % n], the draw-major order of likelihoods.
            spec: its words, where it has some.

        Returns:
            Where n is 1, a `LinearOperator` if y is linear in x, an `Affine` if it is affine. Rows with instruments of
            their own have no one matrix, and are served as a nonlinear instrument is.

        Raises:
            ShapeError: for a theta of another shape.
        """
        if theta.shape[1:] != self.theta_shape or not len(theta):
            raise ShapeError("theta", tuple(theta.shape), ("n", *self.theta_shape))
        if self.form == "affine" and len(theta) == 1:
            origin = theta.new_zeros(1, *self.in_shape)
            operator: Operator = Affine(BoundLinear(self, theta), self.evaluate(origin, theta)[0])
        elif self.form == "linear" and len(theta) == 1:
            operator = BoundLinear(self, theta)
        else:
            operator = Bound(self, theta)
        operator.spec = spec
        return operator

    def drawn(self, rows: Rows) -> Tensor:
        """theta from its prior, (n, *theta_shape)."""
        return rows.stream("instrument").normal(*self.theta_shape)


class Bound(Operator):
    """x -> A(x, theta) for a given theta; made by `UncertainOperator.at`."""

    theta: Tensor

    def __init__(self, operator: UncertainOperator, theta: Tensor) -> None:
        super().__init__()
        self.operator, self.differentiable = operator, operator.differentiable
        self.in_shape, self.out_shape = operator.in_shape, operator.out_shape
        self.register_buffer("theta", theta)

    def apply(self, x: Tensor) -> Tensor:
        return self.operator.evaluate(x, theta_of(self.theta, x))

    def take(self, index: Tensor) -> Operator:
        return self if len(self.theta) == 1 else Bound(self.operator, self.theta[index % len(self.theta)])


class BoundLinear(LinearOperator):
    """v -> A(v, theta) - A(0, theta), the linear part for one theta; made by `UncertainOperator.at`."""

    theta: Tensor

    def __init__(self, operator: UncertainOperator, theta: Tensor) -> None:
        super().__init__()
        self.operator = operator
        self.disjoint = operator.disjoint
        self.in_shape, self.out_shape = operator.in_shape, operator.out_shape
        self.register_buffer("theta", theta)

    def apply(self, x: Tensor) -> Tensor:
        theta = theta_of(self.theta, x)
        y = self.operator.evaluate(x, theta)
        return y if self.operator.form == "linear" else y - self.operator.evaluate(torch.zeros_like(x), theta)

    def adjoint(self, y: Tensor) -> Tensor:
        keep = torch.is_grad_enabled() and (y.requires_grad or self.theta.requires_grad)
        with torch.enable_grad():
            x = torch.zeros(len(y), *self.in_shape, dtype=y.real.dtype, device=y.device, requires_grad=True)
            seen = self.operator.evaluate(x, theta_of(self.theta, x))
            return torch.autograd.grad(seen, x, y.to(seen.dtype), create_graph=keep)[0]


def theta_of(theta: Tensor, x: Tensor) -> Tensor:
    """theta for every row of x, draw-major: (n, *theta_shape) -> (len(x), *theta_shape), in the type of x."""
    theta = theta.to(x.real)
    return theta if len(theta) == len(x) else theta[torch.arange(len(x), device=x.device) % len(theta)]


class UncertainCompose(UncertainOperator):
    """One instrument after another, one of them or both uncertain; theta is (first's, last's). Made by `compose`."""

    def __init__(self, last: Operator, first: Operator, spec: str = "") -> None:
        super().__init__()
        self.last, self.first = last, first
        self.in_shape, self.out_shape = first.in_shape, last.out_shape
        self.differentiable = last.differentiable and first.differentiable
        self.split = _count(first)
        self.theta_shape = torch.Size([self.split + _count(last)])
        forms = {_form(first), _form(last)}
        self.form = "general" if "general" in forms else "affine" if "affine" in forms else "linear"
        self.spec = spec

    def evaluate(self, x: Tensor, theta: Tensor) -> Tensor:
        return _measure(self.last, _measure(self.first, x, theta[:, : self.split]), theta[:, self.split :])

    def physical(self, theta: Tensor) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for part, own in ((self.first, theta[:, : self.split]), (self.last, theta[:, self.split :])):
            if isinstance(part, UncertainOperator):
                for name, value in part.physical(own).items():
                    values[name if name not in values else f"second {name}"] = value
        return values


def _count(operator: Operator) -> int:
    return operator.theta_shape.numel() if isinstance(operator, UncertainOperator) else 0


def _form(operator: Operator) -> Form:
    if isinstance(operator, UncertainOperator):
        return operator.form
    if isinstance(operator, LinearOperator):
        return "linear"
    return "affine" if isinstance(operator, Affine) else "general"


def _measure(operator: Operator, x: Tensor, theta: Tensor) -> Tensor:
    return operator.evaluate(x, theta) if isinstance(operator, UncertainOperator) else operator(x)


class Joined(Operator):
    """The same measurement as a map of one list (x, theta): what joint inference needs (`priors.joint`).

    Args:
        operator: the uncertain instrument; x is flattened.
    """

    def __init__(self, operator: UncertainOperator) -> None:
        super().__init__()
        self.operator, self.differentiable = operator, operator.differentiable
        self.size = operator.in_shape.numel()
        self.in_shape = torch.Size([self.size + operator.theta_shape.numel()])
        self.out_shape = operator.out_shape

    def apply(self, x: Tensor) -> Tensor:
        event = x[:, : self.size].reshape(-1, *self.operator.in_shape)
        return self.operator.evaluate(event, x[:, self.size :].reshape(-1, *self.operator.theta_shape))


def bound_by_words(operator: UncertainOperator, options: dict[str, str], words: str) -> Operator:
    """A known instrument of an uncertain family: `theta=0.3,-1` gives its numbers, `seed=S` draws them.

    Raises:
        InputError: for a list of another length, or what is no number.
    """
    count = operator.theta_shape.numel()
    try:
        if "theta" in options:
            numbers = torch.tensor([float(v) for v in options["theta"].split(",")], dtype=torch.float64)
            ending = f":theta={options['theta']}"
        else:
            seed = int(options.get("seed", "0"))
            numbers, ending = operator.drawn(Rows(1, seed=seed))[0].double(), f":seed={seed}"
    except ValueError:
        raise InputError("seed is a whole number, and theta numbers with commas between, as in theta=0.3,-1") from None
    if numbers.numel() != count or not bool(torch.isfinite(numbers).all()):
        raise InputError(f"{words!r} needs {count} finite numbers in theta, got {options.get('theta')}")
    return operator.at(numbers[None], words + ending)
