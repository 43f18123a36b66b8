"""Where k-space is measured: on its grid, on some lines of it, or off the grid.

A `Sampling` is the linear map from one complex picture to the list of its measured Fourier samples, in the convention
of `fourier`; coils and what the picture is made of are the business of `MRI`. Only what was measured is listed: missing
samples carry no noise, no residual and no weight in the evidence.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from oneprior.core import InputError
from oneprior.operators.fourier import centred_fft, centred_ifft, coordinates


class Sampling(nn.Module, ABC):
    """Complex pictures to measured samples, linear, with an exact adjoint.

    Attributes:
        space: spatial shape of the picture.
        size: number of samples of one picture.
        orthogonal: whether its rows are orthonormal, F F' = I.
    """

    space: torch.Size
    size: int
    orthogonal: bool = False

    @abstractmethod
    def samples(self, z: Tensor) -> Tensor:
        """(n, *space) complex -> (n, size) complex."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """(n, size) complex -> (n, *space) complex."""

    @property
    def acceleration(self) -> float:
        """Pixels for each sample."""
        return self.space.numel() / self.size


class Cartesian(Sampling):
    """Some points of the k-space grid.

    Args:
        keep: bool, of the shape of the space, zero frequency at n // 2: which are measured.
    """

    orthogonal = True
    index: Tensor

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.space = torch.Size(keep.shape)
        index = keep.flatten().nonzero().squeeze(1)
        if not index.numel():
            raise InputError("the k-space mask keeps no sample at all: nothing would be measured")
        self.register_buffer("index", index)
        self.size = index.numel()
        self._axes = tuple(range(1, 1 + len(self.space)))

    @property
    def keep(self) -> Tensor:
        """bool, of the shape of the space: which points are measured."""
        keep = torch.zeros(self.space.numel(), dtype=torch.bool, device=self.index.device)
        keep[self.index] = True
        return keep.reshape(self.space)

    def samples(self, z: Tensor) -> Tensor:
        return centred_fft(z, self._axes).flatten(1)[:, self.index]

    def adjoint(self, y: Tensor) -> Tensor:
        full = y.new_zeros(y.shape[0], self.space.numel()).index_copy(1, self.index, y)
        return centred_ifft(full.reshape(-1, *self.space), self._axes)


class Lines(Sampling):
    """Phase-encoding lines along the last axis, of a scan whose other axes have been transformed back to the picture.

    A fully sampled readout can be undone exactly (its transform is unitary), and what is left is one sum along the
    last axis, over pixels that need not fill the field of view:

        y(k) = M^(-1/2) sum_r x(r) exp(-2 pi i k r / M),     M = P / field,

    with r the P pixel's coordinates, k whole, and M the number of such pixels in the whole field. M need not be whole:
    the sum is done as it stands, by a matrix.

    Args:
        space: spatial shape.
        lines: measured frequencies k in cycles of the whole field of view, 0 the centre, (lines,).
        field: the share of the field of view that the pixels cover, in (0, 1].

    Attributes:
        whole: lines that would measure the whole field of view at this resolution.
    """

    matrix: Tensor

    def __init__(self, space: torch.Size | tuple[int, ...], lines: Tensor, field: float = 1.0) -> None:
        super().__init__()
        self.space = torch.Size(space)
        pixels = self.space[-1]
        if not 0 < field <= 1 or not lines.numel():
            raise InputError(
                f"lines need a field in (0, 1] and at least one line; got {field:g}, {lines.numel()} lines"
            )
        whole = pixels / field
        phase = lines.double()[:, None] * coordinates(pixels, dtype=torch.float64) / whole
        self.register_buffer("matrix", torch.polar(torch.full_like(phase, whole**-0.5), -2 * math.pi * phase))
        self.size, self.whole = self.space[:-1].numel() * lines.numel(), round(whole)

    def samples(self, z: Tensor) -> Tensor:
        return (z @ self.matrix.T.to(z.dtype)).flatten(1)

    def adjoint(self, y: Tensor) -> Tensor:
        return y.reshape(-1, *self.space[:-1], self.matrix.shape[0]) @ self.matrix.conj().to(y.dtype)
