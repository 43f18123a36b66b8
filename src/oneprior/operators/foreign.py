"""Instruments from elsewhere: another library's physics, or a function of one's own.

- `Foreign`: an object with `A(x)` and `A_adjoint(y)`, which is the shape of deepinv's linear physics. Values go through
  as they are: where that library works in [0, 1] the measurement's value range is 0 .. 1.
- `LinearFunction`: a linear function y = A x of one's own. Its adjoint is given, or comes from autograd: the product
  v' dA/dx of a linear map is A' v, whatever x.
- `Function`: any other function, differentiable or not.

All act on a batch, (n, *in_shape) -> (n, *out_shape), row by row; the shape of y is found by one trial. A linear one is
tried before the work: it must map 0 to 0, and its adjoint must satisfy |A x|^2 = <x, A' A x> for a random x. A wrong
adjoint (upsampling by nearest neighbours for a bicubic shrink, the image of A itself for a blur) gives a wrong
posterior without a sign of it. `oneprior.laws.check_operator` tries the same at 1e-10 and more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError, inner, user_function
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.words import Grammar, near

_YES_OR_NO = {"yes": True, "no": False}


@runtime_checkable
class Physics(Protocol):
    """What `Foreign` takes: a linear map and its adjoint."""

    def A(self, x: Tensor, /) -> Tensor: ...

    def A_adjoint(self, y: Tensor, /) -> Tensor: ...


class Function(Operator):
    """y = fn(x), not linear.

    Args:
        fn: (n, *in_shape) -> (n, *out_shape), row by row, the same output for the same input.
        in_shape: shape of one x.
        differentiable: whether autograd may go through it.
        spec: the words that make it, if any.

    Raises:
        InputError: where fn fails, gives no tensor, or has no gradient though it should.
        ShapeError: where fn does not keep the rows.
    """

    def __init__(
        self,
        fn: Callable[[Tensor], Tensor],
        in_shape: torch.Size | tuple[int, ...],
        *,
        differentiable: bool = True,
        spec: str = "",
    ) -> None:
        super().__init__()
        self.fn, self.in_shape, self.spec = fn, torch.Size(in_shape), spec
        self.differentiable = differentiable
        y = _trial(fn, self.in_shape)
        self.out_shape = y.shape[1:]
        if differentiable and not _tracked(fn, self.in_shape):
            raise InputError(f"{_name(fn)} has no gradient: write it in torch, or say differentiable=False")

    def apply(self, x: Tensor) -> Tensor:
        return self.fn(x)


class LinearFunction(LinearOperator):
    """y = fn(x), linear, with the adjoint from autograd or as given.

    Args:
        fn: (n, *in_shape) -> (n, *out_shape), linear, row by row.
        in_shape: shape of one x.
        adjoint: (n, *out_shape) -> (n, *in_shape); that of autograd by default.
        spec: the words that make it, if any.
        tolerance: how far the given adjoint may be off, relative, in single precision; infinity asks nothing.

    Raises:
        InputError: where fn fails, is not linear, has no gradient and no adjoint is given, or a wrong one.
        ShapeError: where fn or its adjoint does not keep the rows or the shape.
    """

    def __init__(
        self,
        fn: Callable[[Tensor], Tensor],
        in_shape: torch.Size | tuple[int, ...],
        adjoint: Callable[[Tensor], Tensor] | None = None,
        *,
        spec: str = "",
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__()
        self.fn, self.back, self.in_shape, self.spec = fn, adjoint, torch.Size(in_shape), spec
        self.out_shape = _trial(fn, self.in_shape).shape[1:]
        self.differentiable = _tracked(fn, self.in_shape)
        if adjoint is None and not self.differentiable:
            raise InputError(
                f"{_name(fn)} has no gradient to take its adjoint from: write it in torch, or give adjoint="
            )
        _check_linear(fn, self.in_shape)
        if adjoint is not None:
            _check_adjoint(self, tolerance, "leave adjoint= away, and autograd makes it")

    def apply(self, x: Tensor) -> Tensor:
        return self.fn(x)

    def adjoint(self, y: Tensor) -> Tensor:
        if self.back is not None:
            return self.back(y)
        tracking = torch.is_grad_enabled() and y.requires_grad
        with torch.enable_grad():
            x = torch.zeros(y.shape[0], *self.in_shape, dtype=y.real.dtype, device=y.device, requires_grad=True)
            (back,) = torch.autograd.grad(self.fn(x), x, y, create_graph=tracking)
        return back


class Foreign(LinearOperator):
    """Another library's linear instrument.

    Args:
        physics: an object with `A(x)` and `A_adjoint(y)`, batched; a module of torch is moved along with this one.
        in_shape: shape of one x.
        spec: the words that make it, if any.
        tolerance: how far the adjoint may be off, relative, in single precision; infinity asks nothing.

    Raises:
        InputError: for an object without these two, one that is not linear, or whose adjoint is wrong.
        ShapeError: where A or A_adjoint does not keep the rows or the shape.
    """

    def __init__(
        self,
        physics: Physics,
        in_shape: torch.Size | tuple[int, ...],
        *,
        spec: str = "",
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__()
        if not isinstance(physics, Physics):
            raise InputError(
                f"{type(physics).__name__} has not both A(x) and A_adjoint(y); a linear function alone goes into "
                "LinearFunction, another into Function"
            )
        self.physics, self.in_shape, self.spec = physics, torch.Size(in_shape), spec
        place = _place(physics)
        self.out_shape = _trial(physics.A, self.in_shape, place).shape[1:]
        self.differentiable = _tracked(physics.A, self.in_shape, place)
        _check_linear(physics.A, self.in_shape, place)
        _check_adjoint(
            self, tolerance, "mend it, or give A alone to LinearFunction, whose adjoint autograd makes", place
        )

    def apply(self, x: Tensor) -> Tensor:
        return self.physics.A(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.physics.A_adjoint(y)


def _place(physics: object) -> torch.device:
    """Where an instrument of another library keeps its tensors."""
    if isinstance(physics, torch.nn.Module):
        for tensor in (*physics.parameters(), *physics.buffers()):
            return tensor.device
    return torch.device("cpu")


def _name(fn: object) -> str:
    return getattr(fn, "__qualname__", type(fn).__name__)


def _trial(fn: Callable[[Tensor], Tensor], in_shape: torch.Size, place: torch.device | str = "cpu") -> Tensor:
    """fn of two empty events."""
    try:
        with torch.no_grad():
            y = fn(torch.zeros(2, *in_shape, device=place))
    except Exception as error:  # whatever the user's function raises
        raise InputError(
            f"{_name(fn)} fails on a batch of shape {(2, *in_shape)}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(y, Tensor):
        raise InputError(f"{_name(fn)} gives a {type(y).__name__}, and a tensor is needed: stack() joins several parts")
    if y.dim() < 2 or y.shape[0] != 2:
        raise ShapeError(f"output of {_name(fn)}", tuple(y.shape), "(2, ...) for 2 rows", "It must act row by row.")
    return y


def _tracked(fn: Callable[[Tensor], Tensor], in_shape: torch.Size, place: torch.device | str = "cpu") -> bool:
    """Whether autograd follows fn."""
    x = torch.zeros(1, *in_shape, device=place, requires_grad=True)
    try:
        with torch.enable_grad():
            return fn(x).requires_grad
    except RuntimeError:  # x.numpy() of a tensor that requires grad
        return False


def _check_linear(fn: Callable[[Tensor], Tensor], in_shape: torch.Size, place: torch.device | str = "cpu") -> None:
    x, v = Rows(2, stream="linearity", device=place).normal(2, *in_shape).unbind(1)
    with torch.no_grad():
        gap = (fn(100 * x - 3 * v) - 100 * fn(x) + 3 * fn(v)).abs().amax()
        scale = 100 * fn(x).abs().amax()
    if not bool(gap <= 1e-3 * scale):
        raise InputError(
            f"{_name(fn)} is not linear: A(100 x - 3 v) and 100 A x - 3 A v differ by {float(gap / scale):.1e} of "
            "themselves; give it to Function"
        )


def _check_adjoint(operator: LinearOperator, tolerance: float, remedy: str, place: torch.device | str = "cpu") -> None:
    x = Rows(2, stream="adjoint", device=place).normal(*operator.in_shape)
    with torch.no_grad():
        y = operator.apply(x)
        back = operator.adjoint(y)
    if back.shape != x.shape:
        raise ShapeError("output of the adjoint", tuple(back.shape), tuple(x.shape))
    energy = inner(y, y)
    gap = float(((inner(x, back) - energy).abs() / energy.clamp_min(torch.finfo(energy.dtype).tiny)).amax())
    if not gap <= tolerance:
        raise InputError(
            f"the adjoint of this instrument is wrong: |A x|^2 and <x, A' A x> differ by {gap:.1e} of themselves, and "
            f"{tolerance:g} is allowed; {remedy}"
        )


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    if len(values) != 2:
        raise InputError(f"function needs a module and a name, as in function:mymodule:myname; got {values or 'none'}")
    flags = {"linear": "no", "differentiable": "yes"} | options
    for key, value in flags.items():
        if value not in _YES_OR_NO:
            raise InputError(f"{key} is yes or no, got {value!r}{near(value, _YES_OR_NO)}")
    found = user_function(":".join(values))
    words = ":".join(["function", *values, *(f"{key}={value}" for key, value in options.items())])
    if isinstance(found, Operator):
        return found
    if isinstance(found, Physics):
        return Foreign(found, in_shape, spec=words)
    if _YES_OR_NO[flags["linear"]]:
        return LinearFunction(found, in_shape, spec=words)
    return Function(found, in_shape, differentiable=_YES_OR_NO[flags["differentiable"]], spec=words)


WORDS = Grammar(
    "function",
    ("function:MODULE:NAME", "function:MODULE:NAME:linear=yes", "function:MODULE:NAME:differentiable=no"),
    "Your own function of a batch (n, channels, ...), operator, or object with A and A_adjoint (deepinv's physics).",
    ("function:torch:tanh", "function:torch:neg:linear=yes", "function:torch:round:differentiable=no"),
    _parse,
    ("linear", "differentiable"),
)
