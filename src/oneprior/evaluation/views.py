"""Random views of an event: what a network is told to overlook when it learns without labels.

Two views of one event are two crops of it, slightly stretched and moved, with another contrast and brightness, some
noise, and a box cut out (the transformations of Chen et al. 2020, SimCLR, figure 4, without those of colour; the box of
DeVries and Taylor 2017). Everything that a view changes is lost to the features, so the list is one of claims about the
data: flips are off, as left and right differ in a chest and in a digit, and there are no rotations. The same settings
serve signals, pictures and volumes; lengths are shares of an axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from oneprior.core import InputError, Rows


@dataclass(frozen=True)
class Views:
    """How far a view may lie from its event; every amount is drawn anew for each row.

    Args:
        crop: the least side of the crop, as a share of the event's; the most is 1.
        stretch: how much a side may differ from the others, as a factor up to 1 + stretch either way.
        shift: how far the crop may reach over the edge, as a share of the axis; the edge's values go on there.
        contrast: the values are multiplied by a number between 1 / (1 + contrast) and 1 + contrast.
        brightness: a number between -brightness and brightness is added, in units of x.
        noise: deviation of the white noise is between 0 and this, in units of x.
        cutout: side of the box, of the event's mean value, as a share of each axis; 0 for none. Half of the rows.
        flips: which spatial axes may be mirrored, 0 the first.

    Raises:
        InputError: for an amount out of its range.
    """

    crop: float = 0.7
    stretch: float = 0.15
    shift: float = 0.1
    contrast: float = 0.5
    brightness: float = 0.2
    noise: float = 0.1
    cutout: float = 0.25
    flips: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        amounts = (self.stretch, self.shift, self.contrast, self.brightness, self.noise)
        if not (0 < self.crop <= 1 and 0 <= self.cutout < 1 and min(amounts) >= 0):
            raise InputError(f"views need 0 < crop <= 1, 0 <= cutout < 1 and amounts >= 0, got {self}")

    def __call__(self, x: Tensor, rows: Rows) -> Tensor:
        """One view of each event, (n, *event_shape) to the same; row i depends on rows.index[i] alone.

        Raises:
            InputError: for a flip of an axis that the events do not have.
        """
        dims = x.dim() - 2
        if any(not 0 <= axis < dims for axis in self.flips):
            raise InputError(f"flips {self.flips} name axes that events with {dims} spatial axes do not have")
        rows = rows.to(x.device)
        x = self._cropped(x, rows.stream("crop"))
        u = rows.stream("values").uniform(3, dtype=x.dtype)
        column = (len(x), *[1] * (dims + 1))
        factor = (1 + self.contrast) ** (2 * u[:, 0] - 1)
        centre = x.flatten(1).mean(1).reshape(column)
        x = (x - centre) * factor.reshape(column) + centre + self.brightness * (2 * u[:, 1] - 1).reshape(column)
        if self.noise:
            noise = rows.stream("noise").normal(*x.shape[1:], dtype=x.dtype)
            x = x + self.noise * u[:, 2].reshape(column) * noise
        return self._cut(x, rows.stream("cutout")) if self.cutout else x

    def _cropped(self, x: Tensor, rows: Rows) -> Tensor:
        """A box of each event, stretched to the event's size by linear interpolation."""
        n, dims = len(x), x.dim() - 2
        u = rows.uniform(2 * dims + 1, dtype=x.dtype)
        side = self.crop + (1 - self.crop) * u[:, :1]
        scale = (side * (1 + self.stretch) ** (2 * u[:, 1 : dims + 1] - 1)).clamp(max=1.0)
        centre = (2 * u[:, dims + 1 :] - 1) * (1 - scale + 2 * self.shift)
        mirror = rows.bits(dims) & 1
        for axis in self.flips:
            scale[:, axis] = torch.where(mirror[:, axis].bool(), -scale[:, axis], scale[:, axis])
        if dims == 1:  # torch samples pictures and volumes: a signal is a picture of one line
            x = x.unsqueeze(2)
            scale = torch.cat([torch.ones_like(scale), scale], 1)
            centre = torch.cat([torch.zeros_like(centre), centre], 1)
        affine = torch.diag_embed(scale.flip(1))  # grids run through the axes in reverse, last axis first
        affine = torch.cat([affine, centre.flip(1).unsqueeze(2)], 2)
        grid = F.affine_grid(affine, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        return x.squeeze(2) if dims == 1 else x.reshape(n, *x.shape[1:])

    def _cut(self, x: Tensor, rows: Rows) -> Tensor:
        """Half of the events with a box of their mean value."""
        dims = x.dim() - 2
        u = rows.uniform(dims + 1, dtype=x.dtype)
        inside = (u[:, -1] < 0.5).reshape(-1, 1, *[1] * dims)
        for axis, size in enumerate(x.shape[2:]):
            place = (torch.arange(size, device=x.device) + 0.5) / size
            near = (place - u[:, axis : axis + 1]).abs() < self.cutout / 2
            inside = inside & near.reshape(len(x), 1, *[size if k == axis else 1 for k in range(dims)])
        return torch.where(inside, x.flatten(1).mean(1).reshape(-1, 1, *[1] * dims), x)
