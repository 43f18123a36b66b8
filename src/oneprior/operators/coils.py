"""Receiver coils: smooth maps for studies, and maps estimated from the fully sampled centre of k-space.

Each coil c sees the picture times its sensitivity S_c. ESPIRiT (Uecker et al. 2014, Magn Reson Med 71:990): smooth
sensitivities make neighbouring k-space samples of all coils linearly dependent. Let the patches of the calibration
region (coils x kernel) span the range of the projection P. Every patch of the data lies in it, so k-space reproduces
itself under the average over the places in a patch,

    y_c(k) = sum_d,D g_cd(D) y_d(k - D),      g_cd(D) = (1 / K) sum_(a - b = D) P_(c a),(d b),

which in the picture says m(r) = G(r) m(r), with G(r) = sum_D g(D) exp(2 pi i D r / N), Hermitian, its eigenvalues in
[0, 1]. Where there is signal the eigenvector of eigenvalue 1 is the sensitivity, up to a number for each pixel. That
number is not in the data: maps have unit norm over the coils, and the phase that makes the virtual coil with the most
energy real. Nothing is cut off in the background, where a measured zero is evidence like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.fourier import coordinates

_CHUNK = 1 << 22  # complex numbers of G worked on at once
_STEPS = 40


def birdcage(space: torch.Size | tuple[int, ...], coils: int) -> Tensor:
    """Smooth complex maps of coils on a circle round the picture, (coils, *space), sum_c |S_c|^2 = 1.

    A coil's strength falls as one over the distance and its phase turns with the direction; the circle has 1.5 times
    the half side of the picture, and in three dimensions the coils lie alternately above and below the middle.
    """
    if coils < 1 or not 2 <= len(space) <= 3:
        raise InputError(f"coil maps need at least 1 coil and 2 or 3 spatial axes; got {coils} for {tuple(space)}")
    axes = [coordinates(n, dtype=torch.float64) / max(n / 2, 1) for n in space]
    place = torch.meshgrid(*axes, indexing="ij")
    maps = []
    for c in range(coils):
        angle = 2 * math.pi * c / coils
        down, across = place[-2] - 1.5 * math.sin(angle), place[-1] - 1.5 * math.cos(angle)
        above = (place[0] - 0.5 * (-1) ** c).square() if len(space) == 3 else 0.0
        distance = (down.square() + across.square() + above).sqrt()
        maps.append(torch.polar(1 / distance, torch.atan2(down, across) - angle))
    return unit_norm(torch.stack(maps))


def unit_norm(maps: Tensor) -> Tensor:
    """Maps divided by their root of sum of squares, (coils, *space); zero where all are zero."""
    total = maps.abs().square().sum(0).sqrt()
    return maps / total.clamp_min(torch.finfo(total.dtype).tiny)


def estimate_maps(
    calibration: Tensor,
    space: torch.Size | tuple[int, ...],
    *,
    field: Sequence[float] | None = None,
    kernel: int = 6,
    threshold: float = 0.02,
) -> Tensor:
    """Sensitivities from the fully sampled centre of k-space.

    Args:
        calibration: (coils, *size) complex, zero frequency at size // 2, every sample measured.
        space: spatial shape of the maps.
        field: share of the field of view that the maps cover, along each axis; all of it by default.
        kernel: side of the patches, in samples; smaller where the calibration is.
        threshold: singular values of the patches below this share of the largest count as noise.

    Returns:
        (coils, *space) complex, sum_c |S_c|^2 = 1.

    Raises:
        InputError: where the calibration is too small, or empty.
    """
    coils, *size = calibration.shape
    sides = [min(kernel, max(1, n // 2)) for n in size]
    patches = calibration
    for axis, side in enumerate(sides, start=1):
        patches = patches.unfold(axis, side, 1)
    patches = patches.movedim(0, len(size)).reshape(math.prod(n - s + 1 for n, s in zip(size, sides, strict=True)), -1)
    if len(patches) < 2 or min(size) < 2 or not bool(calibration.abs().max() > 0):
        raise InputError(
            f"coil maps are estimated from a fully sampled centre, and this one has {tuple(size)} samples"
            + ("" if min(size) < 2 or len(patches) < 2 else ", all zero")
            + ": give maps, or measure more of the centre"
        )
    patches = patches.to(torch.complex128)
    values, vectors = torch.linalg.eigh(patches.T @ patches.conj())
    span = vectors[:, values > threshold**2 * values[-1]]
    count = math.prod(sides)
    projection = (span @ span.conj().T).reshape(coils, count, coils, count).permute(0, 2, 1, 3)
    offsets = torch.stack(torch.meshgrid(*[torch.arange(s) for s in sides], indexing="ij"), -1).reshape(count, -1)
    apart = offsets[:, None] - offsets[None]  # (count, count, axes)
    reach = [2 * s - 1 for s in sides]
    number = torch.zeros(count, count, dtype=torch.int64)
    for axis, (side, width) in enumerate(zip(sides, reach, strict=True)):
        number = number * width + apart[..., axis] + side - 1
    kernels = torch.zeros(coils * coils, math.prod(reach), dtype=torch.complex128)
    kernels.index_add_(1, number.flatten(), projection.reshape(coils * coils, -1) / count)
    shifts = torch.stack(torch.meshgrid(*[coordinates(w, dtype=torch.float64) for w in reach], indexing="ij"), -1)
    shifts = shifts.reshape(-1, len(size))

    field = field or [1.0] * len(size)
    places = [coordinates(n, dtype=torch.float64) * (f / n) for n, f in zip(space, field, strict=True)]
    place = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).reshape(-1, len(size))
    first = low_resolution(calibration, space, field=field).flatten(1).T.to(torch.complex64)  # (pixels, coils)
    parts = []
    for where, start in zip(
        place.split(max(1, _CHUNK // coils**2)), first.split(max(1, _CHUNK // coils**2)), strict=True
    ):
        wave = torch.polar(torch.ones(()).double(), 2 * math.pi * (shifts @ where.T))
        gram = (kernels @ wave).T.reshape(-1, coils, coils).to(torch.complex64)
        parts.append(_top_eigenvector(gram, start))
    maps = torch.cat(parts).T.reshape(coils, *space)
    return _principal_phase(maps, calibration).to(calibration.dtype)


def low_resolution(
    calibration: Tensor, space: torch.Size | tuple[int, ...], *, field: Sequence[float] | None = None
) -> Tensor:
    """The coils' pictures made of the centre of k-space alone, under a Hann window; (coils, *space) complex.

    Each is N^(-1/2) sum_k y(k) exp(2 pi i k r / N) with N the number of pixels that fill the field of view.

    Args:
        calibration: (coils, *size), zero frequency at size // 2.
        space, field: as in `estimate_maps`.
    """
    picture = calibration.to(torch.complex128)
    field = field or [1.0] * len(space)
    for axis, (n, pixels, share) in enumerate(zip(calibration.shape[1:], space, field, strict=True), start=1):
        k = coordinates(n, dtype=torch.float64)
        window = (math.pi * k / (n + 1)).cos().square()
        angle = 2 * math.pi * (share / pixels) * coordinates(pixels, dtype=torch.float64)[:, None] * k
        wave = torch.polar((share / pixels) ** 0.5 * window.expand_as(angle), angle)
        picture = (picture.movedim(axis, -1) @ wave.T).movedim(-1, axis)
    return picture.to(calibration.dtype)


def combined(pictures: Tensor, maps: Tensor) -> Tensor:
    """sum_c conj(S_c) m_c, the coils' pictures as one; (coils, *space) twice -> (*space)."""
    return (maps.conj() * pictures).sum(0)


def _top_eigenvector(gram: Tensor, start: Tensor) -> Tensor:
    """Power iteration from the low-resolution pictures, which point there already; (p, c, c), (p, c) -> (p, c)."""
    v = start + 1e-6 * start.abs().max()
    for _ in range(_STEPS):
        v = v / v.abs().square().sum(1, keepdim=True).sqrt().clamp_min(1e-30)
        v = (gram @ v[..., None])[..., 0]
    return v / v.abs().square().sum(1, keepdim=True).sqrt().clamp_min(1e-30)


def _principal_phase(maps: Tensor, calibration: Tensor) -> Tensor:
    """Maps turned, pixel by pixel, so that the virtual coil of most energy is real and positive."""
    seen = calibration.flatten(1).to(torch.complex128)
    principal = torch.linalg.eigh(seen @ seen.conj().T).eigenvectors[:, -1].to(maps.dtype)
    virtual = torch.tensordot(principal.conj(), maps, dims=1)
    return maps * torch.polar(torch.ones_like(virtual.real), -virtual.angle())
