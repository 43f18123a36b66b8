"""Was what was asked for delivered? Labels, amounts, and masks.

A conditional generator is told a class, an amount or a mask; a classifier, a measurement or a segmenter says what came
out. The judge errs too: its error on real events stands beside, and is the best that can be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError


@dataclass(frozen=True)
class LabelAccuracy:
    """Requested classes against delivered ones.

    Args:
        value: share that agrees.
        standard_error: of value.
        by_class: share of each requested class, (classes,); nan where none was requested.
        confusion: counts, requested by delivered, (classes, classes) int64.
    """

    value: float
    standard_error: float
    by_class: Tensor
    confusion: Tensor


def label_accuracy(requested: Tensor, delivered: Tensor, classes: int | None = None) -> LabelAccuracy:
    """How often the delivered class is the requested one.

    Args:
        requested: int64 (n,).
        delivered: int64 (n,), what a classifier says.
        classes: number of classes; the largest label + 1 by default.

    Raises:
        ShapeError: if the numbers of labels differ.
        InputError: for none.
    """
    if requested.shape != delivered.shape:
        raise ShapeError("delivered labels", tuple(delivered.shape), tuple(requested.shape))
    if not requested.numel():
        raise InputError("no labels were given to compare")
    k = classes or int(torch.maximum(requested.max(), delivered.max())) + 1
    confusion = torch.bincount(requested * k + delivered, minlength=k * k).reshape(k, k)
    value = float((requested == delivered).double().mean())
    by_class = confusion.diagonal().double() / confusion.sum(1)
    return LabelAccuracy(value, math.sqrt(value * (1 - value) / len(requested)), by_class, confusion)


@dataclass(frozen=True)
class AmountAgreement:
    """Requested amounts against delivered ones, delivered = intercept + slope * requested + scatter.

    Args:
        slope: 1 is right; below, the generator shrinks towards its average.
        slope_error: standard error of slope.
        intercept: delivered where 0 is requested.
        bias: mean of delivered - requested.
        error: root mean square of delivered - requested.
        correlation: of Pearson.
        n: pairs.
    """

    slope: float
    slope_error: float
    intercept: float
    bias: float
    error: float
    correlation: float
    n: int


def amount_agreement(requested: Tensor, delivered: Tensor) -> AmountAgreement:
    """Volumes, ages or any other number: slope and error of what was delivered.

    Args:
        requested: (n,).
        delivered: (n,).

    Raises:
        ShapeError: if they differ in number.
        InputError: for fewer than 3, or where only one amount was requested.
    """
    if requested.shape != delivered.shape or requested.dim() != 1:
        raise ShapeError("delivered amounts", tuple(delivered.shape), tuple(requested.shape))
    r, d = requested.double(), delivered.double()
    if len(r) < 3 or not float(r.var()) > 0:
        raise InputError("a slope needs at least 3 pairs and more than one requested amount")
    centred = r - r.mean()
    slope = float((centred * d).sum() / centred.square().sum())
    rest = d - d.mean() - slope * centred
    slope_error = math.sqrt(float(rest.square().sum()) / (len(r) - 2) / float(centred.square().sum()))
    spread = float(r.std() * d.std())
    return AmountAgreement(
        slope=slope,
        slope_error=slope_error,
        intercept=float(d.mean() - slope * r.mean()),
        bias=float((d - r).mean()),
        error=float((d - r).square().mean().sqrt()),
        correlation=float((centred * (d - d.mean())).sum()) / (len(r) - 1) / spread if spread > 0 else math.nan,
        n=len(r),
    )


def dice(a: Tensor, b: Tensor, classes: int = 2) -> Tensor:
    """Dice coefficient of two segmentations, 2 |A and B| / (|A| + |B|), for each row and each class but 0.

    Args:
        a: class of each pixel or voxel, int64 or bool (n, *space).
        b: same shape.
        classes: number of classes, background 0 among them.

    Returns:
        (n, classes - 1), float64; nan where neither has the class.

    Source: Dice 1945; Zijdenbos et al. 1994.
    """
    if a.shape != b.shape:
        raise ShapeError("the second segmentation", tuple(b.shape), tuple(a.shape))
    found = []
    for k in range(1, classes):
        in_a, in_b = (a.long() == k).flatten(1), (b.long() == k).flatten(1)
        both, sizes = (in_a & in_b).sum(1).double(), (in_a.sum(1) + in_b.sum(1)).double()
        found.append(torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), torch.nan))
    return torch.stack(found, 1)
