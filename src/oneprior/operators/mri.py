"""Magnetic resonance: a picture's Fourier samples, seen by one coil or several.

    y_c = F (S_c e^(i phase) x) + noise,      c = 1 .. coils,

with F the orthonormal, centred transform at the measured places (`fourier`, `mri_sampling`, `nufft`) and S_c the coils'
sensitivities (`coils`). An event of one channel is a real picture, whose phase is known or none; one of two channels is
the real and the imaginary part of a complex one. y is complex, (coils, samples), and lists what was measured only; each
of its two parts has the noise level.

Norm: F has norm 1, and so has the whole where sum_c |S_c|^2 = 1, as simulated and estimated maps have it. Maps of the
user's are taken as they are, since they belong to their own measurement.

A real picture's samples at k and -k are conjugate, so that A A' is not diagonal for one channel, even of one coil
without a phase; for two channels and one coil without a map A A' is the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError
from oneprior.operators.ill_conditioned import IllConditioned
from oneprior.operators.mri_sampling import Sampling


class MRI(IllConditioned):
    """Fourier samples of a real (1 channel) or complex (2 channels) picture.

    Args:
        in_shape: (1 or 2, *space).
        sampling: where k-space is measured.
        maps: sensitivities, (coils, *space), real or complex; one coil that sees all alike by default.
        phase: of a real picture, in radians, of the shape of the space; 0 by default.
        spec: the words that make it.

    Raises:
        ShapeError: where maps, phase or sampling are of another space.
        InputError: for other numbers of channels, or a phase of a picture that is complex.
    """

    maps: Tensor | None
    turn: Tensor | None

    def __init__(
        self,
        in_shape: torch.Size | tuple[int, ...],
        sampling: Sampling,
        maps: Tensor | None = None,
        phase: Tensor | None = None,
        spec: str = "",
    ) -> None:
        super().__init__()
        self.in_shape, self.sampling, self.spec = torch.Size(in_shape), sampling, spec
        channels, *space = self.in_shape
        if channels not in (1, 2):
            raise InputError(
                f"MRI measures a real picture (1 channel) or a complex one (2: real, imaginary part); got {channels}"
            )
        if sampling.space != torch.Size(space):
            raise ShapeError("k-space sampling", tuple(sampling.space), tuple(space))
        if maps is not None and (maps.dim() != len(space) + 1 or list(maps.shape[1:]) != space):
            raise ShapeError("coil maps", tuple(maps.shape), ("coils", *space))
        if phase is not None and (channels == 2 or list(phase.shape) != space):
            if channels == 2:
                raise InputError("a complex picture (2 channels) has its own phase; a phase map is for 1 channel")
            raise ShapeError("phase map", tuple(phase.shape), tuple(space))
        self.register_buffer("maps", maps)
        self.register_buffer("turn", None if phase is None else torch.polar(torch.ones_like(phase), phase))
        self.out_shape = torch.Size([1 if maps is None else len(maps), sampling.size])

    def apply(self, x: Tensor) -> Tensor:
        z = torch.complex(x[:, 0], x[:, 1] if x.shape[1] == 2 else torch.zeros_like(x[:, 0]))
        if self.turn is not None:
            z = z * self.turn.to(z.dtype)
        seen = z[:, None] if self.maps is None else z[:, None] * self.maps.to(z.dtype)
        return self.sampling.samples(seen.flatten(0, 1)).reshape(-1, *self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        y = y if y.is_complex() else torch.complex(y, torch.zeros_like(y))
        z = self.sampling.adjoint(y.flatten(0, 1)).reshape(-1, self.out_shape[0], *self.in_shape[1:])
        z = z[:, 0] if self.maps is None else (z * self.maps.to(z.dtype).conj()).sum(1)
        if self.turn is not None:
            z = z * self.turn.to(z.dtype).conj()
        return z.real[:, None] if self.in_shape[0] == 1 else torch.stack([z.real, z.imag], dim=1)

    def pinv(self, y: Tensor) -> Tensor:
        orthogonal = self.in_shape[0] == 2 and self.maps is None and self.sampling.orthogonal
        return self.adjoint(y) if orthogonal else super().pinv(y)
