"""Blur of unknown width, shape, path or kernel: blind deconvolution, with what is known of the kernel as its prior.

    y = k_theta * x,    theta ~ N(0, I)

- width: k is a Gaussian of deviation sigma exp(s theta).
- ellipse: its covariance is sigma^2 exp(2 s M), M = [[a + b, c], [c, a - b]]: the exponential of a symmetric matrix,
  smooth also where the ellipse is a circle and has no angle.
- motion: a straight path of length L exp(s theta_1) at angle a + t theta_2, seen through a Gaussian of 0.4 pixels so
  that the kernel is smooth in both: the closed form is the difference of two normal distribution functions.
- kernel: every entry of a small support is free, k = softmax(log k0 + s theta): positive and summing to 1, a
  logistic-normal law around the nominal k0 (Aitchison and Shen 1980). Its centroid is free too, and trades against a
  translation of x, as in all blind deconvolution (Levin et al. 2009): read x and k together.

Kernels end at 4 nominal deviations times exp(2 s), and sum to 1 whatever theta is. Borders as in `blur`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.blur import Boundary, _convolve, _source
from oneprior.operators.uncertain import Form, UncertainOperator
from oneprior.operators.words import Grammar, near, no_values, number, whole

_PIXEL = 0.4  # deviation of the footprint of a pixel that a path is seen through


class UncertainBlur(UncertainOperator):
    """y = k_theta * x; a subclass says what kernels theta makes.

    Args:
        in_shape: (channels, *space), 1 to 3 spatial axes.
        boundary: how x goes on beyond its border.

    Raises:
        InputError: for an unknown boundary, or more axes.
    """

    form: Form = "linear"

    boundary: Boundary

    def __init__(self, in_shape: torch.Size | tuple[int, ...], boundary: Boundary = "reflect") -> None:
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(in_shape)
        self.axes, self.boundary = len(self.in_shape) - 1, boundary
        if not 1 <= self.axes <= 3:
            raise InputError(f"a blur has 1 to 3 spatial axes, and the event has shape {tuple(self.in_shape)}")
        if boundary not in get_args(Boundary):
            raise InputError(f"a blur has no boundary {boundary!r}{near(boundary, get_args(Boundary))}")

    @abstractmethod
    def kernels(self, theta: Tensor) -> list[Tensor]:
        """The kernels of each row, applied in turn, each (n, *sides) with odd sides and summing to 1."""

    def evaluate(self, x: Tensor, theta: Tensor) -> Tensor:
        for kernel in self.kernels(theta):
            long = [axis for axis, side in enumerate(kernel.shape[1:]) if side > 1]
            if len(long) == 1:
                x = self._along(x, kernel.flatten(1), long[0])
            else:
                x = self._over(x, kernel)
        return x

    def _along(self, x: Tensor, line: Tensor, axis: int) -> Tensor:
        """A pass along one axis by the matrix of each row's kernel, (n, side): many small products are quicker than
        many convolutions of one channel."""
        size, side = self.in_shape[1 + axis], line.shape[1]
        source = self._source(side, size, x.device)
        window = torch.arange(size, device=x.device)[:, None] + torch.arange(side - 1, -1, -1, device=x.device)
        hit = (source[window][..., None] == torch.arange(size, device=x.device)).to(x)  # (size, side, size)
        matrix = torch.einsum("nk,ikj->nij", line, hit)
        return torch.einsum("nij,nj...->ni...", matrix, x.movedim(2 + axis, 1)).movedim(1, 2 + axis)

    def _over(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Each row with its own kernel over several axes."""
        n, c = x.shape[:2]
        x = x.reshape(1, n * c, *x.shape[2:])  # a row's kernel serves its channels
        for axis, (side, size) in enumerate(zip(kernel.shape[1:], self.in_shape[1:], strict=True), start=2):
            if self.boundary == "zero":
                x = pad(x, [0, 0] * (x.dim() - 1 - axis) + [side // 2, side // 2])
            else:
                x = x.index_select(axis, self._source(side, size, x.device))
        x = _convolve(x, kernel.repeat_interleave(c, 0))
        return x.reshape(n, c, *x.shape[2:])

    def _source(self, side: int, size: int, device: torch.device) -> Tensor:
        """Which entry each place of a continued axis is copied from, (size + side - 1,); `size` and more for none."""
        place = _source(side, size, self.boundary, device)
        return torch.where(place < 0, size, place)

    def _named(self, words: str) -> str:
        return words if self.boundary == "reflect" else f"{words}:boundary={self.boundary}"


class UncertainGaussianBlur(UncertainBlur):
    """A Gaussian of unknown width, deviation sigma exp(spread theta) in pixels, axis by axis.

    Args:
        in_shape: (channels, *space).
        sigma: nominal deviation in pixels.
        spread: s; 0.3 is "known to about 30 %".
        boundary: how x goes on beyond its border.
    """

    def __init__(
        self,
        in_shape: torch.Size | tuple[int, ...],
        sigma: float,
        spread: float = 0.3,
        boundary: Boundary = "reflect",
    ) -> None:
        super().__init__(in_shape, boundary)
        _check("width", sigma, spread)
        self.sigma, self.spread, self.theta_shape = sigma, spread, torch.Size([1])
        self.reach = math.ceil(4 * sigma * math.exp(2 * spread))
        self.spec = self._named(f"unknown-blur:{sigma!r}:spread={spread!r}")

    def width(self, theta: Tensor) -> Tensor:
        """Deviation in pixels, (n,)."""
        return self.sigma * (self.spread * theta[:, 0]).exp()

    def kernels(self, theta: Tensor) -> list[Tensor]:
        place = torch.arange(-self.reach, self.reach + 1, device=theta.device, dtype=theta.dtype)
        kernel = (-0.5 * (place / self.width(theta)[:, None]).square()).softmax(1)
        line = [1] * self.axes
        return [kernel.reshape(-1, *line[:a], kernel.shape[1], *line[a + 1 :]) for a in range(self.axes)]

    def physical(self, theta: Tensor) -> dict[str, Tensor]:
        return {"blur width in pixels": self.width(theta)}


class UncertainEllipseBlur(UncertainBlur):
    """A Gaussian of unknown covariance sigma^2 exp(2 spread M(theta)), 2-D only.

    Args:
        in_shape: (channels, height, width).
        sigma: nominal deviation in pixels.
        spread: of the logarithms of the axes.
        boundary: how x goes on beyond its border.
    """

    def __init__(
        self,
        in_shape: torch.Size | tuple[int, ...],
        sigma: float,
        spread: float = 0.3,
        boundary: Boundary = "reflect",
    ) -> None:
        super().__init__(in_shape, boundary)
        _check("width", sigma, spread)
        if self.axes != 2:
            raise InputError(f"an elliptic blur needs 2 spatial axes, and the event has {self.axes}")
        self.sigma, self.spread, self.theta_shape = sigma, spread, torch.Size([3])
        self.reach = math.ceil(4 * sigma * math.exp(2 * spread))
        self.spec = self._named(f"unknown-blur:{sigma!r}:spread={spread!r}:shape=ellipse")

    def _matrix(self, theta: Tensor) -> Tensor:
        """M, (n, 2, 2), over (row, column)."""
        a, b, c = theta.unbind(1)
        return torch.stack([torch.stack([a + b, c], 1), torch.stack([c, a - b], 1)], 1)

    def kernels(self, theta: Tensor) -> list[Tensor]:
        precision = torch.linalg.matrix_exp(-2 * self.spread * self._matrix(theta)) / self.sigma**2
        rows, columns = _grid(self.reach, theta)
        place = torch.stack([rows, columns], -1)
        quadratic = torch.einsum("hwi,nij,hwj->nhw", place, precision, place)
        return [(-0.5 * quadratic).flatten(1).softmax(1).reshape(quadratic.shape)]

    def physical(self, theta: Tensor) -> dict[str, Tensor]:
        """Deviations along the long and the short axis, and the angle of the long one, counter-clockwise from the
        right, in [0, 180)."""
        a, b, c = theta.unbind(1)
        radius = torch.hypot(b, c)
        angle = torch.rad2deg(torch.atan2(-c, -b)) / 2 % 180
        return {
            "long axis in pixels": self.sigma * (self.spread * (a + radius)).exp(),
            "short axis in pixels": self.sigma * (self.spread * (a - radius)).exp(),
            "angle in degrees": angle,
        }


class UncertainMotionBlur(UncertainBlur):
    """A straight path of unknown length and angle, 2-D only.

    Args:
        in_shape: (channels, height, width).
        length: nominal length in pixels.
        angle: nominal angle in degrees, counter-clockwise from the right.
        spread: of the logarithm of the length.
        turn: deviation of the angle in degrees.
        boundary: how x goes on beyond its border.
    """

    def __init__(
        self,
        in_shape: torch.Size | tuple[int, ...],
        length: float,
        angle: float = 0.0,
        spread: float = 0.3,
        turn: float = 20.0,
        boundary: Boundary = "reflect",
    ) -> None:
        super().__init__(in_shape, boundary)
        _check("length", length, spread)
        if self.axes != 2 or not 0 < turn < 360 or not math.isfinite(angle):
            raise InputError(
                "an unknown motion needs 2 spatial axes, an angle and its deviation (turn) in degrees, turn > 0; got "
                f"{self.axes} axes, {angle:g} and {turn:g}"
            )
        self.length, self.angle, self.spread, self.turn = length, angle, spread, turn
        self.theta_shape = torch.Size([2])
        self.reach = math.ceil(length / 2 * math.exp(2 * spread) + 3 * _PIXEL)
        self.spec = self._named(f"unknown-motion:{length!r}:angle={angle!r}:spread={spread!r}:turn={turn!r}")

    def path(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Length in pixels and angle in degrees, each (n,)."""
        return self.length * (self.spread * theta[:, 0]).exp(), self.angle + self.turn * theta[:, 1]

    def kernels(self, theta: Tensor) -> list[Tensor]:
        length, angle = (v[:, None, None] for v in self.path(theta))
        turn, (rows, columns) = torch.deg2rad(angle), _grid(self.reach, theta)
        along = columns * turn.cos() - rows * turn.sin()
        across = columns * turn.sin() + rows * turn.cos()
        seen = [torch.special.ndtr((along + sign * length / 2) / _PIXEL) for sign in (1, -1)]
        kernel = (seen[0] - seen[1]) * torch.exp(-0.5 * (across / _PIXEL).square())
        return [kernel / kernel.sum((1, 2), keepdim=True)]

    def physical(self, theta: Tensor) -> dict[str, Tensor]:
        length, angle = self.path(theta)
        return {"motion in pixels": length, "angle in degrees": angle}


class UncertainKernel(UncertainBlur):
    """A free kernel on a small support, softmax(log k0 + spread theta), k0 a Gaussian.

    Args:
        in_shape: (channels, *space).
        side: of the support, odd, in pixels.
        sigma: of the nominal Gaussian, in pixels.
        spread: deviation of the logarithm of each entry.
        boundary: how x goes on beyond its border.

    Source: Aitchison and Shen 1980 for the law of the kernel.
    """

    nominal: Tensor

    def __init__(
        self,
        in_shape: torch.Size | tuple[int, ...],
        side: int,
        sigma: float = 1.0,
        spread: float = 1.0,
        boundary: Boundary = "reflect",
    ) -> None:
        super().__init__(in_shape, boundary)
        _check("width", sigma, spread)
        if side < 3 or side % 2 == 0:
            raise InputError(f"a free kernel has an odd side of 3 or more, got {side}")
        self.side, self.sigma, self.spread = side, sigma, spread
        self.theta_shape = torch.Size([side**self.axes])
        line = -0.5 * (torch.arange(side, dtype=torch.float64) - side // 2).square() / sigma**2
        nominal = torch.zeros((), dtype=torch.float64)
        for _ in range(self.axes):
            nominal = nominal[..., None] + line
        self.register_buffer("nominal", nominal)
        self.spec = self._named(f"unknown-kernel:{side}:sigma={sigma!r}:spread={spread!r}")

    def kernels(self, theta: Tensor) -> list[Tensor]:
        logits = self.nominal.to(theta).flatten() + self.spread * theta
        return [logits.softmax(1).reshape(-1, *self.nominal.shape)]

    def physical(self, theta: Tensor) -> dict[str, Tensor]:
        return {"kernel": self.kernels(theta)[0]}


def _grid(reach: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column offsets, each (2 reach + 1, 2 reach + 1)."""
    place = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype)
    return torch.meshgrid(place, place, indexing="ij")  # type: ignore[return-value]


def _check(what: str, value: float, spread: float) -> None:
    if not (0 < value < math.inf and 0 < spread < 3):
        raise InputError(
            f"an unknown blur needs a {what} > 0 and a spread between 0 and 3, got {value:g} and {spread:g}"
        )


def _share(text: str) -> float:
    """0.3 or 30 %."""
    return number("spread", text.removesuffix("%")) / (100 if text.endswith("%") else 1)


def _blur(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("unknown-blur", values, 1)
    kinds = {"circle": UncertainGaussianBlur, "ellipse": UncertainEllipseBlur}
    shape = options.get("shape", "circle")
    if shape not in kinds:
        raise InputError(f"unknown-blur has no shape {shape!r}{near(shape, kinds)}")
    sigma = number("sigma", options.get("sigma", values[0] if values else ""))
    return kinds[shape](in_shape, sigma, _share(options.get("spread", "30%")), _boundary(options))


def _motion(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("unknown-motion", values, 1)
    length = number("length", options.get("length", values[0] if values else ""))
    angle, turn = (number(k, options.get(k, v)) for k, v in (("angle", "0"), ("turn", "20")))
    return UncertainMotionBlur(in_shape, length, angle, _share(options.get("spread", "30%")), turn, _boundary(options))


def _kernel(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("unknown-kernel", values, 1)
    side = whole("side", options.get("side", values[0] if values else "5"))
    sigma, spread = number("sigma", options.get("sigma", "1")), _share(options.get("spread", "1"))
    return UncertainKernel(in_shape, side, sigma, spread, _boundary(options))


def _boundary(options: dict[str, str]) -> Boundary:
    return options.get("boundary", "reflect")  # type: ignore[return-value]


WORDS = Grammar(
    "unknown-blur",
    ("unknown-blur:SIGMA:spread=SHARE:shape=circle|ellipse", "...:boundary=reflect|symmetric|nearest|zero|circular"),
    "A Gaussian blur whose width (and shape) is inferred with the picture; SIGMA in pixels is known to SHARE.",
    ("unknown-blur:1.5:spread=30%", "unknown-blur:1:shape=ellipse"),
    _blur,
    ("sigma", "spread", "shape", "boundary"),
)

MOTION = Grammar(
    "unknown-motion",
    ("unknown-motion:LENGTH:angle=DEGREES:spread=SHARE:turn=DEGREES",),
    "A straight motion whose length (known to SHARE) and angle (known to turn) are inferred with the picture.",
    ("unknown-motion:5:angle=45",),
    _motion,
    ("length", "angle", "spread", "turn", "boundary"),
)

KERNEL = Grammar(
    "unknown-kernel",
    ("unknown-kernel:SIDE:sigma=PIXELS:spread=SHARE",),
    "A free positive kernel of SIDE pixels, around a Gaussian, that is inferred with the picture.",
    ("unknown-kernel:5",),
    _kernel,
    ("side", "sigma", "spread", "boundary"),
)
