"""A blur: every output is a weighted mean of its neighbourhood, with weights that are the same everywhere.

    y[i] = sum_j k[j] x[i - j + c],    c = the kernel's centre,

a true convolution: light of one point makes the picture k around it. (Correlation, which the convolutions of network
libraries compute, makes it upside down; deepinv's `BlurFFT` did so up to 0.4.0.) Beyond the border x is continued by
`boundary`: "reflect" (mirrored without repeating the border: NumPy's "reflect", SciPy's "mirror"), "symmetric" (with
the border repeated: SciPy's "reflect"), "nearest" (the border goes on), "zero" or "circular". Continuing is linear
too, x -> P x, so that A = K P and A' = P' K': what the adjoint of the convolution puts beyond the border is folded back
onto the entries it was copied from. (Many codes return the image of A itself as A' y.)

A Gaussian is a matrix for each axis (`Separable`). Other kernels of more than 100 entries go through the FFT, and
circular ones always: there the FFT diagonalises A, and the pseudo-inverse is a division.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators import kernels
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.separable import Separable, band
from oneprior.operators.words import Grammar, near, no_values, number, spelled, whole

Boundary = Literal["reflect", "symmetric", "nearest", "zero", "circular"]

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_FACTORED = 1024  # entries of an event up to which the matrix is inverted
_DIRECT = 100  # entries of a kernel up to which convolving directly is quicker than by FFT


class Blur(LinearOperator):
    """Convolution with a kernel, along 1, 2 or 3 spatial axes.

    Args:
        in_shape: (channels, *space).
        kernel: (*k), shared by the channels, or (channels, *k); odd or even sides.
        boundary: how x goes on beyond its border.
        spec: the words that make it; a self-contained spelling of the kernel by default.

    Raises:
        InputError: for a kernel that fits neither the space nor the event, or an unknown boundary.
    """

    kernel: Tensor

    def __init__(
        self,
        in_shape: torch.Size | tuple[int, ...],
        kernel: Tensor,
        boundary: Boundary = "reflect",
        spec: str = "",
    ) -> None:
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(in_shape)
        axes = len(self.in_shape) - 1
        if axes not in _CONVOLVE:
            raise InputError(f"a blur has 1 to 3 spatial axes, and the event has shape {tuple(self.in_shape)}")
        self.boundary: Boundary = _boundary(boundary)
        several = kernel.dim() == axes + 1 and kernel.shape[0] == self.in_shape[0]
        if not (kernel.dim() == axes or several) or not kernel.numel():
            raise InputError(
                f"the kernel has shape {tuple(kernel.shape)}, and events of shape {tuple(self.in_shape)} need one of "
                f"{axes} axes, or with the {self.in_shape[0]} channels first"
            )
        if kernel.is_complex() or not bool(torch.isfinite(kernel).all()):
            raise InputError("a kernel is real and finite, and this one is complex or holds NaN or infinite entries")
        self.register_buffer("kernel", (kernel if several else kernel[None]).detach().double().clone())
        self.spec = spec or _spec(kernels.spell(kernel), boundary)

    def apply(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x)
        return self._circular(x, kernel) if self.boundary == "circular" else _convolve(self._extend(x), kernel)

    def adjoint(self, y: Tensor) -> Tensor:
        kernel = self.kernel.to(y)
        if self.boundary == "circular":
            return self._circular(y, kernel, back=True)
        return self._fold(_convolve_back(y, kernel))

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y. A circular blur divides Fourier coefficients, a small one solves with its matrix, others go by
        conjugate gradients. Nothing is regularised: what a blur has nearly erased comes back with its noise."""
        if self.boundary == "circular":
            return self._divided(y)
        if self.in_shape.numel() <= _FACTORED:
            return (y.flatten(1).double() @ self._inverse.to(y.device).T).reshape(y.shape).to(y)
        return super().pinv(y)

    @cached_property
    def _inverse(self) -> Tensor:
        """A^+, (in, out), float64; made once, since guided methods ask for it in every step."""
        return torch.linalg.pinv(self.dense(device=self.kernel.device), rtol=1e-12)

    def _divided(self, y: Tensor) -> Tensor:
        space = self.in_shape[1:]
        transfer = self._transfer(self.kernel.to(y.device))
        power = transfer.abs().square()
        least = 1e-24 * power.amax()
        inverse = torch.where(power > least, transfer.conj() / power.clamp_min(least), 0.0)
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

    def _extend(self, x: Tensor) -> Tensor:
        """P x: x continued beyond its border, so far as the kernel reaches."""
        for axis, (side, size) in enumerate(zip(self.kernel.shape[1:], self.in_shape[1:], strict=True), start=2):
            if side == 1:
                continue
            if self.boundary == "zero":
                later = [0, 0] * (x.dim() - 1 - axis)
                x = F.pad(x, [*later, side - 1 - side // 2, side // 2])
            else:
                x = x.index_select(axis, _source(side, size, self.boundary).to(x.device))
        return x

    def _fold(self, x: Tensor) -> Tensor:
        """P' x: what lies beyond the border is added to what it was copied from."""
        for axis, (side, size) in enumerate(zip(self.kernel.shape[1:], self.in_shape[1:], strict=True), start=2):
            if side == 1:
                continue
            if self.boundary == "zero":
                x = x.narrow(axis, side - 1 - side // 2, size)
            else:
                folded = x.new_zeros(*x.shape[:axis], size, *x.shape[axis + 1 :])
                x = folded.index_add(axis, _source(side, size, self.boundary).to(x.device), x)
        return x


def gaussian_blur(
    in_shape: torch.Size | tuple[int, ...], sigma: float | Sequence[float], boundary: Boundary = "reflect"
) -> Separable:
    """Gaussian blur, axis by axis.

    Args:
        in_shape: (channels, *space).
        sigma: standard deviation in pixels, one for all axes or one for each.
        boundary: see `Blur`.
    """
    axes, boundary = len(in_shape) - 1, _boundary(boundary)
    sigmas = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,) * axes
    if len(sigmas) != axes:
        raise InputError(f"a Gaussian blur of {axes} axes takes one deviation or {axes}, got {sigma}")
    matrices = []
    for size, one in zip(in_shape[1:], sigmas, strict=True):
        kernel = kernels.gaussian(one)
        place = _source(len(kernel), size, boundary).unfold(0, len(kernel), 1)
        matrices.append(band(place, kernel.expand(place.shape), size))
    words = "x".join(spelled(s) for s in (sigmas if len(set(sigmas)) > 1 else sigmas[:1]))
    return Separable(in_shape, matrices, _spec(f"gaussian:{words}", boundary))


def motion_blur(
    in_shape: torch.Size | tuple[int, ...],
    length: float,
    angle: float = 0.0,
    boundary: Boundary = "reflect",
    axes: Sequence[int] = (-2, -1),
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
        return Blur(in_shape, kernel, boundary, _spec(f"motion:{spelled(length)}", boundary))
    plane = tuple(a % space if -space <= a < space else -1 for a in axes)
    if len(plane) != 2 or plane[0] == plane[1] or min(plane) < 0:
        raise InputError(f"the plane of a motion is two different spatial axes of {space}, got {axes}")
    shape = [1] * space
    shape[plane[0]], shape[plane[1]] = kernel.shape
    kernel = (kernel if plane[0] < plane[1] else kernel.T).reshape(shape)
    words = f"motion:{spelled(length)}:angle={spelled(angle)}"
    if plane != (space - 2, space - 1):
        words += f":axes={plane[0]}x{plane[1]}"
    return Blur(in_shape, kernel, boundary, _spec(words, boundary))


def _spec(words: str, boundary: str) -> str:
    return f"blur:{words}" + ("" if boundary == "reflect" else f":boundary={boundary}")


def _boundary(name: str) -> Boundary:
    """The boundary of this name.

    Raises:
        InputError: where there is none.
    """
    if name not in get_args(Boundary):
        raise InputError(f"blur has no boundary {name!r}{near(name, get_args(Boundary))}")
    return name  # type: ignore[return-value]


def _source(side: int, size: int, boundary: Boundary, device: torch.device | str = "cpu") -> Tensor:
    """Which entry each place of the continued axis is copied from, (size + side - 1,); -1 for none."""
    place = torch.arange(-(side - 1 - side // 2), size + side // 2, device=device)
    match boundary:
        case "zero":
            return torch.where((place >= 0) & (place < size), place, -1)
        case "circular":
            return place % size
        case "nearest":
            return place.clamp(0, size - 1)
        case "symmetric":
            place = place % (2 * size)
            return torch.where(place < size, place, 2 * size - 1 - place)
        case "reflect":
            period = max(1, 2 * (size - 1))
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
    pad = [side - 1 for side in reversed(kernel.shape[1:]) for _ in range(2)]
    events, weights, groups = _grouped(F.pad(y, pad), kernel)
    x = _CONVOLVE[axes](events, weights, groups=groups)  # much quicker than conv_transpose on a CPU
    return x.reshape(*y.shape[:2], *x.shape[2:])


def _grouped(x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor, int]:
    """Events, weights and groups: channels with one kernel are rows of their own."""
    if kernel.shape[0] == 1:
        return x.reshape(-1, 1, *x.shape[2:]), kernel[:, None], 1
    return x, kernel[:, None], kernel.shape[0]


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    axes, boundary = len(in_shape) - 1, _boundary(options.get("boundary", "reflect"))
    if "bits" in options:
        shape = tuple(whole("shape", n) for n in options.get("shape", "").split("x"))
        return Blur(in_shape, kernels.unspell(options["bits"], shape), boundary)
    no_values("blur", values, 2)
    kind = values[0] if values else options.get("file", "")
    value = values[1] if len(values) > 1 else ""
    if kind == "gaussian":
        sigmas = [number("sigma", s) for s in options.get("sigma", value).split("x")]
        sigma = sigmas[0] if len(sigmas) == 1 else sigmas
        return gaussian_blur(in_shape, sigma, boundary)
    if kind == "motion":
        length = number("length", options.get("length", value))
        angle = number("angle", options.get("angle", "0"))
        plane = [whole("axes", a) for a in options.get("axes", f"{axes - 2}x{axes - 1}").split("x")]
        return motion_blur(in_shape, length, angle, boundary, plane)
    if "." in kind or kind == options.get("file"):
        return Blur(in_shape, kernels.read(kind), boundary)
    raise InputError(f"blur has no form {kind!r}{near(kind, ('gaussian', 'motion'))}; or give a kernel's file name")


WORDS = Grammar(
    "blur",
    (
        "blur:gaussian:SIGMA",
        "blur:motion:LENGTH:angle=DEGREES",
        "blur:FILE",
        "...:boundary=reflect|symmetric|nearest|zero|circular",
    ),
    "Gaussian, along a straight path, or with a kernel: .npy as it is, a picture scaled to sum 1. In pixels. "
    "Beyond the border: mirrored (as SciPy's mirror), the border twice (its reflect), the border on, black, around.",
    ("blur:gaussian:1.5", "blur:motion:5:boundary=zero", "blur:gaussian:1:boundary=circular"),
    _parse,
    ("sigma", "length", "angle", "axes", "boundary", "file", "bits", "shape"),
)
