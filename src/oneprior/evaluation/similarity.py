"""Structural similarity of pictures and volumes, at one scale and at several.

    SSIM = (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2))

with local means, variances and covariance under a Gaussian window of deviation 1.5 (11 samples along each axis),
c1 = (.01 L)^2, c2 = (.03 L)^2 for the range of values L (Wang, Bovik, Sheikh, Simoncelli 2004). Only windows that lie
within the picture count. It is symmetric, 1 for equal pictures, and blind to what the window averages away.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from oneprior.core import InputError, ShapeError
from oneprior.evaluation.accuracy import region_mean

WINDOW, DEVIATION = 11, 1.5
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first (Wang, Simoncelli, Bovik 2003)
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def ssim(x: Tensor, y: Tensor, data_range: float = 2.0, mask: Tensor | None = None) -> Tensor:
    """Mean structural similarity of each row.

    Args:
        x, y: events, (n, channels, *space) with 1 to 3 spatial axes of at least 11 samples.
        data_range: L, high - low of the values; 2 for [-1, 1].
        mask: a region, bool, broadcastable to x: the windows that count are those whose middle lies in it.

    Returns:
        (n,), float64, at most 1; nan for a row whose region holds no window's middle.

    Raises:
        ShapeError: where x and y differ in shape, or have no window.
    """
    whole, _ = _maps(*_checked(x, y, 1), data_range)
    if mask is None:
        return region_mean(whole)
    inside = mask.to(x.device).bool().expand(x.shape)
    for axis in range(2, x.dim()):
        inside = inside.narrow(axis, WINDOW // 2, x.shape[axis] - WINDOW + 1)
    return region_mean(whole, inside)


def ms_ssim(x: Tensor, y: Tensor, data_range: float = 2.0, weights: tuple[float, ...] = WEIGHTS) -> Tensor:
    """Multi-scale structural similarity of each row: contrast and structure at every scale, luminance at the coarsest.

    Args:
        x, y: events, (n, channels, *space), each axis at least 11 * 2^(scales - 1) samples (176 for five scales).
        data_range: L.
        weights: of the scales, finest first; fewer for small events.

    Returns:
        (n,), float64. Channels are worked on apart and averaged; a negative term counts as 0.

    Source: Wang, Simoncelli, Bovik 2003, "Multi-scale structural similarity for image quality assessment".
    """
    if not weights:
        raise InputError("multi-scale similarity needs the weight of at least one scale")
    x, y = _checked(x, y, 2 ** (len(weights) - 1))
    total = torch.ones(x.shape[:2], dtype=torch.float64, device=x.device)
    for scale, weight in enumerate(weights):
        whole, structure = (part.flatten(2).mean(2).clamp_min(0) for part in _maps(x, y, data_range))
        total = total * (whole if scale == len(weights) - 1 else structure) ** weight
        if scale < len(weights) - 1:
            pool = _POOL[x.dim() - 2]
            x, y = pool(x, 2), pool(y, 2)
    return total.mean(1)


def _checked(x: Tensor, y: Tensor, times: int) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape or not 3 <= x.dim() <= 5:
        raise ShapeError(
            "the second set of events", tuple(y.shape), tuple(x.shape), "Events are (n, channels, *space)."
        )
    if min(x.shape[2:]) < WINDOW * times:
        needed = f"at least {WINDOW * times} samples along each axis"
        raise ShapeError("structural similarity", tuple(x.shape[2:]), needed, "Give weights of fewer scales.")
    return x.double(), y.double()


def _maps(x: Tensor, y: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """SSIM, and its factor of contrast and structure, window by window; (n, channels, *space - 10)."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance = _blur(x * x) - mean_x.square() + _blur(y * y) - mean_y.square()
    covariance = _blur(x * y) - mean_x * mean_y
    structure = (2 * covariance + c2) / (variance + c2)
    return (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1) * structure, structure


def _blur(x: Tensor) -> Tensor:
    """The Gaussian window along each axis in turn, where it fits."""
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-0.5 * (place / DEVIATION) ** 2)
    window, dims = window / window.sum(), x.dim() - 2
    flat = x.flatten(0, 1).unsqueeze(1)
    for axis in range(dims):
        shape = [1] * dims
        shape[axis] = WINDOW
        flat = _CONV[dims](flat, window.reshape(1, 1, *shape))
    return flat.squeeze(1).unflatten(0, x.shape[:2])
