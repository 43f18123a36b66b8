"""Fourier samples off the grid: radial spokes, and any other trajectory.

    y(w) = scale N^(-1/2) sum_r x(r) exp(-2 pi i w r),      w in cycles a pixel, |w| <= 1/2.

The sum itself costs samples times pixels. Instead (Beatty, Nishimura, Pauly 2005; Fessler and Sutton 2003): divide the
picture by the transform of a Kaiser-Bessel kernel, transform it on a grid twice as fine, and read each sample off its
8 x 8 neighbours with the kernel's values as weights,

    kernel(t) = I0(beta sqrt(1 - (2 t / J)^2)) / I0(beta),   beta = pi sqrt((J / s)^2 (s - 1/2)^2 - 0.8),
    J = 8,   s = 2.

The readings are one sparse matrix, and the adjoint is the transpose of each step, so it is exact; the forward sum is
met to about 1e-7 of its largest value. The scale makes the norm 1. Rows of this matrix are not orthogonal: where spokes
crowd, near the centre, samples repeat each other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.operators.fourier import centred_fft, centred_ifft, coordinates
from oneprior.operators.mri_sampling import Sampling
from oneprior.operators.sparse import SparseMap
from oneprior.operators.spectral_norm import largest_singular_value

_WIDTH, _FINER = 8, 2.0


class NonCartesian(Sampling):
    """Samples at given frequencies of the last two axes; a third, first axis is Fourier encoded in full (a stack).

    Args:
        space: spatial shape, 2 or 3 axes.
        points: frequencies along the last two axes in cycles a pixel, (samples, 2), in [-1/2, 1/2].

    Attributes:
        scale: what the orthonormal sum is multiplied by, so that the norm is 1.
    """

    damping_rows: Tensor
    damping_columns: Tensor

    def __init__(self, space: torch.Size | tuple[int, ...], points: Tensor) -> None:
        super().__init__()
        self.space = torch.Size(space)
        if len(self.space) not in (2, 3):
            raise InputError(f"a trajectory in the plane needs 2 or 3 spatial axes; got {tuple(self.space)}")
        if points.dim() != 2 or points.shape[1] != 2 or not len(points):
            raise ShapeError("trajectory", tuple(points.shape), ("samples", 2))
        if not bool((points.abs() <= 0.5).all()):
            raise InputError("a trajectory is in cycles a pixel, within -1/2 and 1/2")
        self.plane = tuple(self.space[-2:])
        self.grid = tuple(round(_FINER * n) for n in self.plane)
        self.size = len(points) * self.space[:-2].numel()
        sides = [_neighbours(points[:, axis].double(), grid) for axis, grid in enumerate(self.grid)]
        (rows, row_weights), (columns, column_weights) = sides
        place = rows[:, :, None] * self.grid[1] + columns[:, None, :]
        weight = row_weights[:, :, None] * column_weights[:, None, :]
        sample = torch.arange(len(points))[:, None, None].expand_as(place)
        shape = (len(points), math.prod(self.grid))
        self.readings = SparseMap(sample.flatten(), place.flatten(), weight.flatten(), shape)
        for name, n, grid in zip(("damping_rows", "damping_columns"), self.plane, self.grid, strict=True):
            self.register_buffer(name, 1 / _kernel_transform(coordinates(n, dtype=torch.float64) / grid))
        # The FFT on the fine grid is orthonormal: its N^(-1/2) is taken back, and the picture's put in.
        self._factor = math.sqrt(math.prod(self.grid) / math.prod(self.plane))
        self.scale = 1.0
        start = Rows(1).stream("norm").normal(2, *self.plane, dtype=torch.float64)
        start = torch.complex(start[:, 0], start[:, 1])
        self.scale = 1 / largest_singular_value(lambda v: self._spread(self._read(v)), start)

    def samples(self, z: Tensor) -> Tensor:
        if len(self.space) == 3:
            z = centred_fft(z, (1,))
        return self._read(z.reshape(-1, *self.plane)).reshape(z.shape[0], -1)

    def adjoint(self, y: Tensor) -> Tensor:
        z = self._spread(y.reshape(-1, self.readings.shape[0])).reshape(-1, *self.space)
        return centred_ifft(z, (1,)) if len(self.space) == 3 else z

    def _damping(self, like: Tensor) -> Tensor:
        return (self.damping_rows[:, None] * self.damping_columns * self.scale * self._factor).to(like.real.dtype)

    def _margins(self) -> tuple[int, ...]:
        """Entries to add round the picture, last axis first, that bring its centre to the fine grid's."""
        before = [grid // 2 - n // 2 for n, grid in zip(self.plane, self.grid, strict=True)]
        after = [grid - n - b for n, grid, b in zip(self.plane, self.grid, before, strict=True)]
        return before[1], after[1], before[0], after[0]

    def _read(self, z: Tensor) -> Tensor:
        fine = centred_fft(torch.nn.functional.pad(z * self._damping(z), self._margins()), (1, 2))
        return self.readings.apply_to(fine.flatten(1))

    def _spread(self, y: Tensor) -> Tensor:
        fine = centred_ifft(self.readings.adjoint(y).reshape(-1, *self.grid), (1, 2))
        left, _, top, _ = self._margins()
        z = fine[:, top : top + self.plane[0], left : left + self.plane[1]]
        return z * self._damping(z)


def spokes(space: torch.Size | tuple[int, ...], count: int, order: str = "golden") -> Tensor:
    """A radial trajectory in the plane of the last two axes, (count * samples, 2) in cycles a pixel.

    Each spoke runs through the centre with steps of 1 / n, n the longer side.

    Args:
        space: spatial shape.
        count: number of spokes.
        order: "golden", each turned by 111.25 degrees from the one before (Winkelmann et al. 2007), or "uniform",
            spread evenly over 180 degrees.
    """
    if count < 1 or len(space) < 2:
        raise InputError(f"radial sampling needs at least 1 spoke and 2 spatial axes; got {count} for {tuple(space)}")
    n = max(space[-2:])
    turn = math.pi / ((1 + math.sqrt(5)) / 2) if order == "golden" else math.pi / count
    angle = torch.arange(count, dtype=torch.float64) * turn
    along = coordinates(n, dtype=torch.float64) / n
    return torch.stack([angle.sin()[:, None] * along, angle.cos()[:, None] * along], dim=-1).reshape(-1, 2)


def _beta() -> float:
    return math.pi * math.sqrt((_WIDTH / _FINER) ** 2 * (_FINER - 0.5) ** 2 - 0.8)


def _neighbours(frequency: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Places on the fine, centred grid and kernel weights; (samples,) -> (samples, J) each."""
    place = frequency * grid
    near = (place - _WIDTH / 2).ceil()[:, None] + torch.arange(_WIDTH)
    apart = (2 / _WIDTH) * (place[:, None] - near)
    beta = _beta()
    weight = torch.special.i0e(beta * (1 - apart.square()).clamp_min(0).sqrt())
    weight = (
        weight
        * (beta * ((1 - apart.square()).clamp_min(0).sqrt() - 1)).exp()
        / torch.special.i0e(torch.tensor(beta, dtype=torch.float64))
    )
    return (near.long() + grid // 2) % grid, weight


def _kernel_transform(x: Tensor) -> Tensor:
    """The Fourier transform of the kernel at x cycles a grid step, |x| <= 1 / (2 s)."""
    beta = _beta()
    root = (beta**2 - (math.pi * _WIDTH * x).square()).sqrt()
    return _WIDTH * root.sinh() / root / torch.special.i0(torch.tensor(beta, dtype=torch.float64))
