"""Adaptive discriminator augmentation: what lets a critic learn from few events without learning them by heart.

Karras, Aittala, Hellsten, Laine, Lehtinen and Aila 2020, "Training generative adversarial networks with limited
data". The critic never sees an event as it is: real and generated ones pass through the same random transformations,
each of which is applied with probability p. Because p < 1 leaves part of the events alone, the transformation of
*distributions* is invertible, so that the generator still learns the law of the untransformed events (section 2.2; it
does not leak for p up to about 0.8). How large p must be is read off the critic itself: r = E[sign D(real)] grows
towards 1 as it overfits, and p follows, up where r is above the target 0.6 and down where it is below.

A relativistic critic fixes its logits only up to a constant, so the sign is taken of D(real) - (E D(real) + E
D(fake)) / 2, which for a critic that is centred at zero is the paper's statistic.

Five steps, in this order: `blit` (flips, quarter turns of square pictures, integer shifts up to 1/8; exact),
`geometric` (scale, rotation, stretch, fractional shift as one affine map, with bilinear interpolation and reflection;
2-D), `colour` (brightness, contrast, inversion; for RGB also hue and saturation), `noise`, `cutout`. Lines and
volumes have flips and shifts along every axis. Departures from the paper: the warp does not filter at twice the
resolution with wavelets, and penalties are taken at the critic's own input, after augmentation (a warp has no second
derivative in torch).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import InputError, Rows

STEPS = ("blit", "geometric", "colour", "noise", "cutout")
_SHIFT = 0.125


class Augment(nn.Module):
    """x -> x transformed, every transformation with probability p, row by row; differentiable; p = 0 is the identity.

    Args:
        event_shape: (channels, *space) with 1, 2 or 3 axes.
        steps: which of `STEPS`.
        target: the overfitting r that `adapt` steers for.
        images: real images in which p can go from 0 to 1.

    Attributes:
        p: the probability, a buffer.
    """

    p: Tensor
    signs: Tensor

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        steps: tuple[str, ...] = ("blit", "geometric", "colour"),
        *,
        target: float = 0.6,
        images: int = 200_000,
    ) -> None:
        super().__init__()
        unknown = [s for s in steps if s not in STEPS]
        if unknown:
            raise InputError(f"augmentation {unknown[0]!r} is not known; choose from {', '.join(STEPS)}")
        self.steps = tuple(s for s in STEPS if s in steps)
        self.dims = len(event_shape) - 1
        self.target, self.images = target, images
        self.register_buffer("p", torch.zeros([]))
        self.register_buffer("signs", torch.zeros(2))  # their sum and their number since the last change of p

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """(n, *event_shape) to the same; row i depends on rows.index[i] alone."""
        p = float(self.p)
        if p == 0.0:
            return x
        for step in self.steps:
            x = _TRANSFORMS[step](x, p, rows.stream(step))
        return x

    @torch.no_grad()
    def observe(self, centred: Tensor) -> None:
        """Take note of the critic's centred logits on real events, (n,), over all processes."""
        seen = torch.stack([centred.sign().sum(), centred.new_tensor(float(centred.numel()))])
        self.signs += sum_over_processes(seen.to(self.signs))

    @torch.no_grad()
    def adapt(self) -> None:
        """Move p by (events seen since the last change) / `images`, up where r > target, down where r < target."""
        total, count = self.signs.tolist()
        if count == 0:
            return
        step = math.copysign(count / self.images, total / count - self.target)
        self.p.add_(step).clamp_(0.0, 1.0)
        self.signs.zero_()


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum over data-parallel processes, or `value` itself where there is one."""
    dist = torch.distributed
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def _blit(x: Tensor, p: float, rows: Rows) -> Tensor:
    """Flips, quarter turns and integer shifts: values are moved and never mixed."""
    dims, space = x.dim() - 2, x.shape[2:]
    chance, amount = _uniform(rows, x, 6), _uniform(rows, x, 6)
    flips = (3,) if dims == 2 else tuple(range(2, x.dim()))  # left and right for pictures; quarter turns give the rest
    for k, axis in enumerate(flips):
        x = _pick((chance[:, k] < p) & (amount[:, k] < 0.5), x.flip(axis), x)
    if dims == 2:
        turn = torch.where(chance[:, 3] < p, (amount[:, 3] * 4).floor(), 0.0)
        x = _pick(turn >= 2, x.flip(2, 3), x)
        if space[0] == space[1]:
            x = _pick(turn % 2 == 1, x.transpose(2, 3).flip(2), x)
    shifted = chance[:, 4] < p
    direction = _uniform(rows, x, dims)
    for k, size in enumerate(space):
        reach = math.floor(_SHIFT * size + 0.5)
        shift = ((direction[:, k] * 2 - 1) * reach).round().long()
        x = _shift_axis(x, torch.where(shifted, shift, 0), k + 2)
    return x


def _shift_axis(x: Tensor, shift: Tensor, axis: int) -> Tensor:
    """x moved by shift[i] places along one axis, mirrored at the edges (with the edge repeated)."""
    size = x.shape[axis]
    place = (torch.arange(size, device=x.device)[None, :] - shift[:, None]) % (2 * size)
    place = torch.where(place < size, place, 2 * size - 1 - place)
    index = place.reshape(x.shape[0], *[size if d == axis else 1 for d in range(1, x.dim())])
    return x.gather(axis, index.expand_as(x))


def _geometric(x: Tensor, p: float, rows: Rows) -> Tensor:
    """Scale 2^N(0, 0.2), rotation, stretch 2^N(0, 0.2), rotation, shift N(0, 1/8), as one affine map of the grid."""
    if x.dim() != 4:
        return x
    n, _, height, width = x.shape
    chance, u = _uniform(rows, x, 5), _uniform(rows, x, 2)
    normal = rows.normal(4).to(x)
    p_turn = 1.0 - math.sqrt(1.0 - p)  # two turns, either of which makes the picture turned with probability p
    do = chance < torch.tensor([p, p_turn, p, p_turn, p], device=x.device, dtype=x.dtype)
    scale = torch.where(do[:, 0], torch.exp2(0.2 * normal[:, 0]), 1.0)
    stretch = torch.where(do[:, 2], torch.exp2(0.2 * normal[:, 1]), 1.0)
    turns = torch.where(do[:, [1, 3]], (u * 2 - 1) * math.pi, 0.0)
    shift = torch.where(do[:, 4:], 0.125 * normal[:, 2:], 0.0)  # in parts of the picture
    matrix = _rotation(turns[:, 0]) @ torch.diag_embed(torch.stack([scale * stretch, scale / stretch], 1))
    matrix = matrix @ _rotation(turns[:, 1])
    # grid_sample's axes run from -1 to 1 over each side: go to pixels and back, so that rotations stay rigid
    side = torch.tensor([width, height], device=x.device, dtype=x.dtype)
    theta = torch.cat([matrix * side[None, None, :] / side[None, :, None], 2.0 * shift[:, :, None]], 2)
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
    warped = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return _pick(do.any(1), warped, x)


def _rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)


def _colour(x: Tensor, p: float, rows: Rows) -> Tensor:
    """Brightness + N(0, 0.2), contrast x 2^N(0, 0.5), inversion; for RGB hue and saturation x 2^N(0, 1)."""
    n, channels = x.shape[:2]
    chance, u = _uniform(rows, x, 5), _uniform(rows, x, 2)
    normal = rows.normal(3).to(x)
    contrast = torch.where(chance[:, 1] < p, torch.exp2(0.5 * normal[:, 1]), 1.0)
    offset = torch.where(chance[:, 0] < p, 0.2 * normal[:, 0], 0.0) * contrast
    invert = torch.where((chance[:, 2] < p) & (u[:, 0] < 0.5), -1.0, 1.0).to(x)
    one = [1] * (x.dim() - 2)
    if channels != 3:
        return x * (contrast * invert).reshape(n, 1, *one) + (offset * invert).reshape(n, 1, *one)
    grey = x.new_full((3, 3), 1.0 / 3.0)  # the projection on the grey axis
    colours = torch.eye(3, device=x.device, dtype=x.dtype) - grey
    angle = torch.where(chance[:, 3] < p, (u[:, 1] * 2 - 1) * math.pi, 0.0)
    saturation = torch.where(chance[:, 4] < p, torch.exp2(normal[:, 2]), 1.0)
    across = x.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)  # v x (.)
    c, s = (saturation * contrast * angle.cos())[:, None, None], (saturation * contrast * angle.sin())[:, None, None]
    matrix = (invert * contrast)[:, None, None] * grey + c * colours + s * across
    mixed = torch.einsum("nij,nj...->ni...", matrix, x)
    return mixed + (offset * invert).reshape(n, 1, *one)


def _noise(x: Tensor, p: float, rows: Rows) -> Tensor:
    """Additive white noise of standard deviation |N(0, 0.1)|."""
    sigma = torch.where(_uniform(rows, x, 1)[:, 0] < p, 0.1 * rows.normal(1).to(x)[:, 0].abs(), 0.0)
    return x + sigma.reshape(-1, *[1] * (x.dim() - 1)) * rows.normal(*x.shape[1:]).to(x)


def _cutout(x: Tensor, p: float, rows: Rows) -> Tensor:
    """A box of half the side, anywhere, is set to zero."""
    chance, centre = _uniform(rows, x, 1)[:, 0] < p, _uniform(rows, x, x.dim() - 2)
    inside = chance.reshape(-1, *[1] * (x.dim() - 1))
    for k, size in enumerate(x.shape[2:]):
        place = (torch.arange(size, device=x.device, dtype=x.dtype) + 0.5) / size
        near = (place[None, :] - centre[:, k, None]).abs() < 0.25
        inside = inside & near.reshape(-1, *[size if d == k + 2 else 1 for d in range(1, x.dim())])
    return x.masked_fill(inside, 0.0)


def _uniform(rows: Rows, x: Tensor, k: int) -> Tensor:
    return rows.uniform(k).to(x)


def _pick(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where which, (n,), else b."""
    return torch.where(which.reshape(-1, *[1] * (a.dim() - 1)), a, b)


_TRANSFORMS = {"blit": _blit, "geometric": _geometric, "colour": _colour, "noise": _noise, "cutout": _cutout}
