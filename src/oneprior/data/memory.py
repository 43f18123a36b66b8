"""Data sets that are in memory already: an array or a tensor, and the digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from oneprior.core import AffineMap, ConditionSpec, Geometry, InputError
from oneprior.data import labels as labelling
from oneprior.data.layouts import array_layout, check_layout
from oneprior.data.ranges import map_for
from oneprior.data.sources import ArraySource
from oneprior.data.stored import StoredDataset


def array_dataset(
    array: np.ndarray | Tensor,
    labels: np.ndarray | Tensor | Sequence[int] | Sequence[str] | None = None,
    units: AffineMap | None = None,
    *,
    layout: str | None = None,
    conditions: Mapping[ConditionSpec, np.ndarray | Tensor] | None = None,
    value_range: tuple[float, float] | None = None,
) -> StoredDataset:
    """A data set from an array or a tensor.

    Args:
        array: (n, channels, *space), or (n, length) for signals of one channel; other orders with `layout`.
        labels: one class per row, or a vector per row, (n, k) floats; becomes the condition "label".
        units: the map from [-1, 1] to the array's values; by default that of `oneprior.data.ranges` (uint8: 0 .. 255;
            floats: smallest to largest value). Give `AffineMap()` for an array that is in [-1, 1] already.
        layout: one letter an axis, such as "nhw", "nhwc" or "ndhw".
        conditions: further conditions, each spec with its values, first axis n.
        value_range: (low, high), instead of `units`.

    Raises:
        InputError: for NaN, an unclear order of axes, labels that do not fit.
    """
    if isinstance(array, Tensor):
        array = array.detach().cpu().numpy() if array.dtype != torch.bfloat16 else array.detach().float().cpu().numpy()
    array = np.asarray(array)
    if array.ndim < 2 or not len(array) or array.dtype.kind not in "biuf":
        raise InputError(f"an array of shape {array.shape} and type {array.dtype} is no set of events")
    layout = array_layout(array.shape) if layout is None else check_layout(layout, array.shape)
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
        if wrong.size:
            raise InputError(f"{wrong.size} of {len(array)} rows hold NaN or infinite values, such as row {wrong[0]}")
    if units is None:
        units = map_for(array.dtype, float(array.min()), float(array.max()), given=value_range, what="the array")
    told: dict[ConditionSpec, np.ndarray] = {s: np.asarray(v) for s, v in (conditions or {}).items()}
    if labels is not None:
        spec, values = labelling.from_values(np.asarray(labels), "labels")
        told[spec] = values
    geometry = Geometry(dtype=array.dtype.newbyteorder("=").name, format="npy")
    return StoredDataset(ArraySource(array, layout), units, geometry, conditions=told, clip=value_range is not None)


def digits() -> StoredDataset:
    """1797 handwritten digits, 8 x 8, values 0 .. 16, with their labels; they come with scikit-learn.

    Source: Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits", UCI (the test part).
    """
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    images = np.asarray(pixels).reshape(-1, 8, 8).astype(np.uint8)
    units = AffineMap.from_range(0, 16, "grey level")
    return array_dataset(images, np.asarray(target), units, layout="nhw")
