"""A blur: every output is a weighted mean of its neighbourhood, with weights that are the same everywhere.

    y[i] = sum_j k[j] x[i - j + c],    c = the kernel's centre,

a true convolution: light of one point makes the picture k around it. (Correlation, which the convolutions of network
libraries compute, makes it upside down; deepinv's `BlurFFT` did so up to 0.4.0.) Beyond the border x is continued by
`boundary`: "reflect" (mirrored without repeating the border, as in NumPy), "zero" or "circular". Continuing is linear
too, x -> P x, so that A = K P and A' = P' K': what the adjoint of the convolution puts beyond the border is folded back
onto the entries it was copied from. (Many codes return the image of A itself as A' y.)

A Gaussian is blurred axis by axis; kernels of more than 100 entries go through the FFT, and circular ones always: there
the FFT diagonalises A, and the pseudo-inverse is a division.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators import kernels
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.words import Grammar, near, number, whole

Boundary = Literal["reflect", "zero", "circular"]

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONVOLVE_BACK = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_FACTORED = 1024  # entries of an event (of an axis, where separable) up to which the matrix is factorised
_DIRECT = 100  # entries of a kernel up to which convolving directly is quicker than by FFT


class Blur(LinearOperator):
    """Convolution with one kernel or with several in turn, along 1, 2 or 3 spatial axes.

    Args:
        in_shape: (channels, *space).
        kernel: (*k), shared by the channels, or (channels, *k); or a sequence of kernels applied in turn (a
            separable blur: kernels with sides of 1 are passes along the other axes). Odd or even sides.
        boundary: how x goes on beyond its border.
        spec: the words that make it; a self-contained spelling of one kernel by default.

    Raises:
        InputError: for a kernel that fits neither the space nor the event, or an unknown boundary.
    """

    def __init__(
        self,
        in_shape: torch.Size | tuple[int, ...],
        kernel: Tensor | Sequence[Tensor],
        boundary: Boundary = "reflect",
        spec: str = "",
    ) -> None:
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(in_shape)
        axes = len(self.in_shape) - 1
        passes = [kernel] if isinstance(kernel, Tensor) else list(kernel)
        if axes not in _CONVOLVE:
            raise InputError(f"a blur has 1 to 3 spatial axes, and the event has shape {tuple(self.in_shape)}")
        if boundary not in get_args(Boundary):
            raise InputError(f"a blur has no boundary {boundary!r}{near(boundary, get_args(Boundary))}")
        for k, one in enumerate(passes):
            several = one.dim() == axes + 1 and one.shape[0] == self.in_shape[0]
            if not (one.dim() == axes or several) or not one.numel():
                raise InputError(
                    f"the kernel has shape {tuple(one.shape)}, and events of shape {tuple(self.in_shape)} need one of "
                    f"{axes} axes, or with the {self.in_shape[0]} channels first"
                )
            weights = one if several else one[None]
            self.register_buffer(f"kernel_{k}", weights.detach().double().clone())
        self.passes = len(passes)
        self.boundary: Boundary = boundary
        ending = "" if boundary == "reflect" else f":boundary={boundary}"
        self.spec = spec or (f"blur:{kernels.spell(passes[0])}{ending}" if len(passes) == 1 else "")

    def kernel(self, k: int, like: Tensor) -> Tensor:
        """The kernel of one pass, (1 or channels, *k), in the type and place of `like`."""
        return self.get_buffer(f"kernel_{k}").to(like)

    def apply(self, x: Tensor) -> Tensor:
        for k in range(self.passes):
            kernel = self.kernel(k, x)
            x = self._circular(x, kernel) if self.boundary == "circular" else _convolve(self._extend(x, kernel), kernel)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        for k in reversed(range(self.passes)):
            kernel = self.kernel(k, y)
            if self.boundary == "circular":
                y = self._circular(y, kernel, back=True)
            else:
                y = self._fold(_convolve_back(y, kernel), kernel)
        return y

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y. A circular blur divides Fourier coefficients, a separable one solves axis by axis, others go by
        conjugate gradients where they are large. Nothing is regularised: what a blur has nearly erased comes back with
        its noise."""
        if self.boundary == "circular":
            return self._divided(y)
        if self.in_shape.numel() <= _FACTORED:
            inverse = torch.linalg.pinv(self.dense(device=y.device), rtol=1e-12)
            return (y.flatten(1).double() @ inverse.T).reshape(y.shape).to(y)
        shapes = [self.get_buffer(f"kernel_{k}").shape for k in range(self.passes)]
        single = all(shape[0] == 1 and sum(side > 1 for side in shape) <= 1 for shape in shapes)
        if not single or max(self.in_shape[1:]) > _FACTORED:
            return super().pinv(y)
        x = y.double()
        for axis, size in enumerate(self.in_shape[1:], start=2):
            unit = torch.eye(size, dtype=torch.float64, device=y.device)
            for k in range(self.passes):
                if shapes[k][axis - 1] > 1:
                    kernel = self.kernel(k, unit).reshape(1, -1)
                    unit = _convolve(_continued(unit[:, None], 2, kernel.numel(), self.boundary), kernel).squeeze(1)
            inverse = torch.linalg.pinv(unit.T, rtol=1e-12)
            x = (x.movedim(axis, -1) @ inverse.T).movedim(-1, axis)
        scale = math.prod(float(self.get_buffer(f"kernel_{k}").sum()) for k, s in enumerate(shapes) if max(s) == 1)
        return (x / scale if scale else torch.zeros_like(x)).to(y)

    def _divided(self, y: Tensor) -> Tensor:
        space = self.in_shape[1:]
        total = self._transfer(self.kernel(0, y.double()))
        for k in range(1, self.passes):
            total = total * self._transfer(self.kernel(k, y.double()))
        power = total.abs().square()
        least = 1e-24 * power.amax()
        inverse = torch.where(power > least, total.conj() / power.clamp_min(least), 0.0)
        dims = tuple(range(-len(space), 0))
        return torch.fft.irfftn(torch.fft.rfftn(y.double(), dim=dims) * inverse, s=space, dim=dims).to(y)

    def _transfer(self, kernel: Tensor) -> Tensor:
        """Fourier coefficients of a kernel wrapped around the torus with its centre at 0, (1 or channels, *f)."""
        space = self.in_shape[1:]
        for axis, (side, size) in enumerate(zip(kernel.shape[1:], space, strict=True), start=1):
            place = (torch.arange(side, device=kernel.device) - side // 2) % size
            wrapped = kernel.new_zeros(*kernel.shape[:axis], size, *kernel.shape[axis + 1 :])
            kernel = wrapped.index_add(axis, place, kernel)
        return torch.fft.rfftn(kernel, dim=tuple(range(-len(space), 0)))

    def _circular(self, x: Tensor, kernel: Tensor, back: bool = False) -> Tensor:
        space, transfer = self.in_shape[1:], self._transfer(kernel)
        dims = tuple(range(-len(space), 0))
        seen = torch.fft.rfftn(x, dim=dims) * (transfer.conj() if back else transfer)
        return torch.fft.irfftn(seen, s=space, dim=dims)

    def _extend(self, x: Tensor, kernel: Tensor) -> Tensor:
        """P x: x continued beyond its border, so far as the kernel reaches."""
        for axis, side in enumerate(kernel.shape[1:], start=2):
            if side > 1:
                x = _continued(x, axis, side, self.boundary)
        return x

    def _fold(self, x: Tensor, kernel: Tensor) -> Tensor:
        """P' x: what lies beyond the border is added to what it was copied from."""
        for axis, side in enumerate(kernel.shape[1:], start=2):
            size = x.shape[axis] - side + 1
            if side == 1:
                continue
            if self.boundary == "zero":
                x = x.narrow(axis, side - 1 - side // 2, size)
            else:
                folded = x.new_zeros(*x.shape[:axis], size, *x.shape[axis + 1 :])
                x = folded.index_add(axis, _mirrored(side, size, x.device), x)
        return x


def gaussian_blur(
    in_shape: torch.Size | tuple[int, ...], sigma: float | Sequence[float], boundary: Boundary = "reflect"
) -> Blur:
    """Gaussian blur, axis by axis.

    Args:
        in_shape: (channels, *space).
        sigma: standard deviation in pixels, one for all axes or one for each.
        boundary: see `Blur`.
    """
    axes = len(in_shape) - 1
    sigmas = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,) * axes
    if len(sigmas) != axes:
        raise InputError(f"a Gaussian blur of {axes} axes takes one deviation or {axes}, got {sigma}")
    passes = []
    for axis, one in enumerate(sigmas):
        shape = [1] * axes
        shape[axis] = -1
        passes.append(kernels.gaussian(one).reshape(shape))
    words = "x".join(f"{s:g}" for s in (sigmas if len(set(sigmas)) > 1 else sigmas[:1]))
    return Blur(in_shape, passes, boundary, _spec(f"gaussian:{words}", boundary))


def motion_blur(
    in_shape: torch.Size | tuple[int, ...],
    length: float,
    angle: float = 0.0,
    boundary: Boundary = "reflect",
    axes: tuple[int, int] = (-2, -1),
) -> Blur:
    """Blur along a straight path in one plane.

    Args:
        in_shape: (channels, *space).
        length: of the path, in pixels.
        angle: degrees, counter-clockwise from the second axis of the plane; must be 0 for events of one axis.
        boundary: see `Blur`.
        axes: the plane, as spatial axes; the last two by default.

    Raises:
        InputError: for a plane or an angle that the event has not.
    """
    space = len(in_shape) - 1
    kernel = kernels.motion(length, angle)
    if space == 1:
        if angle % 180:
            raise InputError(f"events of one spatial axis move along it: give angle=0, not {angle:g}")
        kernel = kernel.sum(0)
        return Blur(in_shape, kernel, boundary, _spec(f"motion:{length:g}", boundary))
    plane = tuple(a % space if -space <= a < space else -1 for a in axes)
    if len(plane) != 2 or plane[0] == plane[1] or min(plane) < 0:
        raise InputError(f"the plane of a motion is two different spatial axes of {space}, got {axes}")
    shape = [1] * space
    shape[plane[0]], shape[plane[1]] = kernel.shape
    kernel = (kernel if plane[0] < plane[1] else kernel.T).reshape(shape)
    words = f"motion:{length:g}:angle={angle:g}"
    if plane != (space - 2, space - 1):
        words += f":axes={plane[0]}x{plane[1]}"
    return Blur(in_shape, kernel, boundary, _spec(words, boundary))


def _spec(words: str, boundary: str) -> str:
    return f"blur:{words}" + ("" if boundary == "reflect" else f":boundary={boundary}")


def _continued(x: Tensor, axis: int, side: int, boundary: Boundary) -> Tensor:
    """x with side - 1 entries more along one axis, so that a kernel of this side is seen whole at every entry."""
    if boundary == "zero":
        later = [0, 0] * (x.dim() - 1 - axis)
        return F.pad(x, [*later, side - 1 - side // 2, side // 2])
    return x.index_select(axis, _mirrored(side, x.shape[axis], x.device))


def _mirrored(side: int, size: int, device: torch.device) -> Tensor:
    """Which entry each place of the continued axis is copied from, (size + side - 1,)."""
    place = torch.arange(-(side - 1 - side // 2), size + side // 2, device=device)
    if size == 1:
        return torch.zeros_like(place)
    period = 2 * (size - 1)
    place = place % period
    return torch.where(place < size, place, period - place)


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """The places of the convolution that see the whole kernel; (n, c, *s), (1 or c, *k) -> (n, c, *(s - k + 1))."""
    axes = x.dim() - 2
    if kernel[0].numel() > _DIRECT:
        size, sides, dims = x.shape[2:], kernel.shape[1:], tuple(range(-axes, 0))
        seen = torch.fft.rfftn(x, dim=dims) * torch.fft.rfftn(kernel, s=size, dim=dims)
        y = torch.fft.irfftn(seen, s=size, dim=dims)
        for axis, side in enumerate(sides, start=2):
            y = y.narrow(axis, side - 1, size[axis - 2] - side + 1)
        return y
    events, weights, groups = _grouped(x, kernel)
    y = _CONVOLVE[axes](events, weights.flip(tuple(range(2, axes + 2))), groups=groups)
    return y.reshape(*x.shape[:2], *y.shape[2:])


def _convolve_back(y: Tensor, kernel: Tensor) -> Tensor:
    """The adjoint of `_convolve`; (n, c, *s) -> (n, c, *(s + k - 1))."""
    axes = y.dim() - 2
    if kernel[0].numel() > _DIRECT:
        sides, dims = kernel.shape[1:], tuple(range(-axes, 0))
        pad = [n for side in reversed(sides) for n in (side - 1, 0)]
        x = F.pad(y, pad)
        size = x.shape[2:]
        seen = torch.fft.rfftn(x, dim=dims) * torch.fft.rfftn(kernel, s=size, dim=dims).conj()
        return torch.fft.irfftn(seen, s=size, dim=dims)
    events, weights, groups = _grouped(y, kernel)
    x = _CONVOLVE_BACK[axes](events, weights.flip(tuple(range(2, axes + 2))), groups=groups)
    return x.reshape(*y.shape[:2], *x.shape[2:])


def _grouped(x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor, int]:
    """Events, weights and groups: channels with one kernel are rows of their own."""
    if kernel.shape[0] == 1:
        return x.reshape(-1, 1, *x.shape[2:]), kernel[:, None], 1
    return x, kernel[:, None], kernel.shape[0]


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    axes, boundary = len(in_shape) - 1, options.get("boundary", "reflect")
    if boundary not in get_args(Boundary):
        raise InputError(f"blur has no boundary {boundary!r}{near(boundary, get_args(Boundary))}")
    if "bits" in options:
        shape = tuple(whole("shape", n) for n in options.get("shape", "").split("x"))
        return Blur(in_shape, kernels.unspell(options["bits"], shape), boundary)  # type: ignore[arg-type]
    kind = values[0] if values else options.get("file", "")
    value = values[1] if len(values) > 1 else ""
    if kind == "gaussian":
        sigmas = [number("sigma", s) for s in options.get("sigma", value).split("x")]
        sigma = sigmas[0] if len(sigmas) == 1 else sigmas
        return gaussian_blur(in_shape, sigma, boundary)  # type: ignore[arg-type]
    if kind == "motion":
        length = number("length", options.get("length", value))
        angle = number("angle", options.get("angle", "0"))
        plane = tuple(whole("axes", a) for a in options.get("axes", f"{axes - 2}x{axes - 1}").split("x"))
        return motion_blur(in_shape, length, angle, boundary, plane)  # type: ignore[arg-type]
    if "." in kind or kind == options.get("file"):
        return Blur(in_shape, kernels.read(kind), boundary)  # type: ignore[arg-type]
    raise InputError(f"blur has no form {kind!r}{near(kind, ('gaussian', 'motion'))}; or give a kernel's file name")


WORDS = Grammar(
    "blur",
    ("blur:gaussian:SIGMA", "blur:motion:LENGTH:angle=DEGREES", "blur:FILE", "...:boundary=reflect|zero|circular"),
    "Gaussian, along a straight path, or with a kernel: .npy as it is, a picture scaled to sum 1. In pixels.",
    ("blur:gaussian:1.5", "blur:motion:5:boundary=zero", "blur:gaussian:1:boundary=circular"),
    _parse,
    ("sigma", "length", "angle", "axes", "boundary", "file", "bits", "shape"),
)
