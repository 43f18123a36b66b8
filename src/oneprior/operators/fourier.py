"""The one Fourier convention of the package: orthonormal, and centred on both sides.

    y(k) = N^(-1/2) sum_r x(r) exp(-2 pi i k r / N),      r, k = -(n // 2) .. n - 1 - n // 2 along each axis,

where entry j of an axis of length n has the coordinate j - n // 2, in the image and in k-space alike, for even n and
odd. So the centre of the picture and the zero frequency are both entry n // 2, which is how scanners and fastMRI store
them, and the transform is unitary: its inverse is its adjoint, and white noise stays white with the same deviation.
"""

from __future__ import annotations

import torch
from torch import Tensor


def centred_fft(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Picture -> k-space along `axes`; orthonormal, zero at entry n // 2 on both sides."""
    moved = torch.fft.ifftshift(x, dim=axes)
    return torch.fft.fftshift(torch.fft.fftn(moved, dim=axes, norm="ortho"), dim=axes)


def centred_ifft(y: Tensor, axes: tuple[int, ...]) -> Tensor:
    """k-space -> picture along `axes`: the inverse and the adjoint of `centred_fft`."""
    moved = torch.fft.ifftshift(y, dim=axes)
    return torch.fft.fftshift(torch.fft.ifftn(moved, dim=axes, norm="ortho"), dim=axes)


def coordinates(n: int, **kind) -> Tensor:
    """-(n // 2) .. n - 1 - n // 2, the coordinates of an axis; (n,)."""
    return torch.arange(n, **kind) - n // 2


def middle(n: int, part: int) -> slice:
    """The `part` entries of an axis of length n that lie round its centre, so that entry n // 2 becomes part // 2."""
    start = n // 2 - part // 2
    return slice(start, start + part)
