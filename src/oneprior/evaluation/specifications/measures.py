"""The library of named measures: what a check can look at. Each takes outputs and gives one number a trial.

Measures of one output are of its values in the user's units, of its texture, of its parts, or of what a judge sees in
it. None knows what is right: bounds say that, written down by a person or set on real data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from oneprior.core import InputError
from oneprior.evaluation.specifications.outputs import Outputs

# One output -----------------------------------------------------------------------------------------------------------


def smallest(outputs: Outputs) -> Tensor:
    """The smallest value, in the user's units."""
    return outputs.values.flatten(1).amin(1)


def largest(outputs: Outputs) -> Tensor:
    """The largest value, in the user's units."""
    return outputs.values.flatten(1).amax(1)


def mean(outputs: Outputs) -> Tensor:
    """The mean value, in the user's units."""
    return outputs.values.flatten(1).mean(1)


def contrast(outputs: Outputs) -> Tensor:
    """The standard deviation of the values within an output, in the user's units."""
    return outputs.values.flatten(1).std(1)


def plateau(outputs: Outputs, tolerance: float = 0.01) -> Tensor:
    """Share of entries within a hundredth of the value range of an output's own largest value: high where clipped."""
    flat = outputs.x.flatten(1)
    return (flat >= flat.amax(1, keepdim=True) - 2 * tolerance).double().mean(1)


def sharpness(outputs: Outputs) -> Tensor:
    """How much of the contrast a small blur takes away, |x - blurred x| / |x - mean of x|.

    It is low for blurred outputs and high for noise. The blur is the mean of each entry and its neighbours along every
    axis, with weights 1/4, 1/2, 1/4.
    """
    x = outputs.x.double()
    apart = (x - _smooth(x)).flatten(1).square().sum(1)
    whole = (x - x.flatten(1).mean(1).reshape(-1, *[1] * (x.dim() - 1))).flatten(1).square().sum(1)
    return (apart / whole.clamp_min(1e-12)).sqrt()


def fine_detail(outputs: Outputs) -> Tensor:
    """The share of texture in the finest scale: |x - blur x| / |blur x - blur of blur of x|, away from the level of x.

    Unlike `sharpness` it compares two neighbouring scales, and so depends little on how large a thing is shown.
    """
    x = outputs.x.double()
    one = _smooth(x)
    two = _smooth(_smooth(one))
    fine, coarse = ((a - b).flatten(1).square().sum(1) for a, b in ((x, one), (one, two)))
    return (fine / coarse.clamp_min(1e-12)).sqrt()


def foreground(outputs: Outputs, threshold: float) -> Tensor:
    """Share of entries above a threshold, in the user's units."""
    return (outputs.values > threshold).flatten(1).double().mean(1)


def parts(outputs: Outputs, threshold: float, ignore: float = 0.0) -> Tensor:
    """Number of connected parts above a threshold; parts of less than a share `ignore` of the space are not counted."""
    sizes, row = _parts(outputs, threshold)
    space = outputs.x[0, 0].numel()
    return torch.from_numpy(np.bincount(row[sizes > ignore * space], minlength=len(outputs))).double()


def largest_part(outputs: Outputs, threshold: float) -> Tensor:
    """Share of what lies above a threshold that its largest connected part holds; 0 where nothing does."""
    sizes, row = _parts(outputs, threshold)
    biggest, total = np.zeros(len(outputs)), np.bincount(row, sizes, minlength=len(outputs))
    np.maximum.at(biggest, row, sizes)
    return torch.from_numpy(np.divide(biggest, total, out=np.zeros_like(biggest), where=total > 0))


def border(outputs: Outputs) -> Tensor:
    """The largest value on the border, in the user's units: above the ground where a thing is cut off."""
    x = outputs.values
    edges = [x.select(axis, end).flatten(1) for axis in range(2, x.dim()) for end in (0, -1)]
    return torch.cat(edges, 1).amax(1)


def symmetry(outputs: Outputs) -> Tensor:
    """Correlation of an output with its mirror image along the last axis, -1 to 1."""
    flat = outputs.x.double().flatten(1)
    mirrored = outputs.x.double().flip(-1).flatten(1)
    flat, mirrored = (t - t.mean(1, keepdim=True) for t in (flat, mirrored))
    return F.cosine_similarity(flat, mirrored, dim=1)


def residual(outputs: Outputs, components: int = 64) -> Tensor:
    """Share of an output's deviation from the training mean that principal components of training events leave, 0 to 1.

    High for what no combination of training events shows: holes, seams, noise, another scale.
    """
    mean, directions = outputs.judges.subspace
    if not 1 <= components <= 256:
        raise InputError(f"residual: components lies in 1 .. 256, got {components}")
    apart = outputs.x.flatten(1).double() - mean
    inside = apart @ directions[:, :components]
    return (1 - inside.square().sum(1) / apart.square().sum(1).clamp_min(1e-12)).clamp_min(0).sqrt()


def confidence(outputs: Outputs) -> Tensor:
    """The probability of the class that a classifier finds likeliest: low for what is none of them."""
    return outputs.probabilities.amax(1)


def class_share(outputs: Outputs, label: int = 1, threshold: float | None = None) -> Tensor:
    """Share of the space that a segmenter gives to a class; with a threshold, of the class and what lies above it."""
    inside = (outputs.judge("segment")(outputs.x) == label).flatten(1)
    if threshold is None:
        return inside.double().mean(1)
    whole = (outputs.values > threshold).any(1).flatten(1) | inside
    return inside.sum(1).double() / whole.sum(1).clamp_min(1)


# What was asked -------------------------------------------------------------------------------------------------------


def label_probability(outputs: Outputs, condition: str = "label") -> Tensor:
    """The probability that a classifier gives to the class that was asked for."""
    asked = outputs.told(condition).long().reshape(-1, 1)
    return outputs.probabilities.gather(1, asked)[:, 0]


def label_rank(outputs: Outputs, condition: str = "label") -> Tensor:
    """Which place a classifier gives to the class that was asked for: 1 for the likeliest."""
    asked = outputs.told(condition).long().reshape(-1, 1)
    return (outputs.probabilities > outputs.probabilities.gather(1, asked)).sum(1) + 1.0


def delivered_error(
    outputs: Outputs, measure: Callable[[Outputs], Tensor], condition: str, slope: float = 1.0, offset: float = 0.0
) -> Tensor:
    """What was delivered less what was asked, measure(x) - (offset + slope * condition).

    Args:
        measure: another measure of the library, by name in a file.
        condition: a vector of one number, or a class number.
        slope: of the condition's scale against the measure's.
        offset: where the condition is 0.
    """
    asked = outputs.told(condition).double().reshape(len(outputs), -1)
    if asked.shape[1] != 1:
        raise InputError(f"delivered_error compares one number, and {condition!r} has {asked.shape[1]}")
    return torch.as_tensor(measure(outputs)).double() - (offset + slope * asked[:, 0])


# Pairs of one seed ----------------------------------------------------------------------------------------------------


def rises_with(outputs: Outputs, measure: Callable[[Outputs], Tensor], condition: str, by: float = 1.0) -> Tensor:
    """How much a measure rises when the same seed is told more: measure(x') - measure(x), x' asked for `by` more.

    Args:
        measure: another measure of the library, by name in a file.
        condition: a vector; all its numbers rise.
        by: by how much, in the condition's own units.
    """
    told = dict(outputs.condition) | {condition: outputs.told(condition) + by}
    other = outputs.judge("generate")(outputs.rows, told)
    after = Outputs(other, told, outputs.rows, outputs.units, judges=outputs.judges, tokens=outputs.tokens)
    return torch.as_tensor(measure(after)).double() - torch.as_tensor(measure(outputs)).double()


def repeat_distance(outputs: Outputs) -> Tensor:
    """Root mean square difference, in the user's units, to the output of the same seed and condition made again."""
    again = outputs.judge("generate")(outputs.rows, outputs.condition)
    return (again - outputs.x).double().flatten(1).square().mean(1).sqrt() * outputs.units.scale


def misfit(outputs: Outputs) -> Tensor:
    """Root mean square of (y - A x) / sigma: the restored image measured again against its measurement."""
    evidence = outputs.judges.evidence
    if evidence is None:
        raise InputError("misfit needs the measurements that the outputs were restored from: Judges(evidence=...)")
    apart = evidence.y - evidence.operator(outputs.x)
    apart = (torch.view_as_real(apart) if apart.is_complex() else apart).double().flatten(1)
    level = torch.as_tensor(evidence.noise_level, dtype=torch.float64).reshape(-1, 1)
    return (apart / level).square().mean(1).sqrt()


# The whole set --------------------------------------------------------------------------------------------------------


def distinct(outputs: Outputs) -> Tensor:
    """Root mean square distance, in the user's units, of each output to the nearest one before it."""
    flat, place = outputs.x.double().flatten(1), torch.arange(len(outputs), device=outputs.x.device)
    step = max(1, (1 << 24) // len(flat))
    nearest = []
    for some in place.split(step):
        far = torch.cdist(flat[some], flat[: int(some[-1]) + 1])
        far = far.masked_fill(place[: far.shape[1]] >= some[:, None], torch.inf)
        nearest.append(far.amin(1))
    found = torch.cat(nearest) / flat.shape[1] ** 0.5 * outputs.units.scale
    return found.masked_fill(found.isinf(), torch.finfo(torch.float64).max)


def novel(outputs: Outputs) -> Tensor:
    """Root mean square distance, in the user's units, of each output to the nearest training event."""
    from oneprior.evaluation.neighbours import nearest

    if outputs.judges.train is None:
        raise InputError("novel needs the training events: give --train DATA, or Judges(train=...)")
    far, _ = nearest(outputs.x, outputs.judges.train)
    return far[:, 0] / outputs.x[0].numel() ** 0.5 * outputs.units.scale


def class_imbalance(outputs: Outputs, condition: str = "") -> Tensor:
    """Total variation between the class frequencies of the set (by a classifier) and those of the data; one number.

    With a condition the frequencies that were asked for stand in place of the data's.
    """
    classes = outputs.probabilities.shape[1]
    found = torch.bincount(outputs.probabilities.argmax(1), minlength=classes).double()
    if condition:
        wanted = torch.bincount(outputs.told(condition).long(), minlength=classes).double()
    elif outputs.judges.frequencies is not None:
        wanted = outputs.judges.frequencies.double()
    else:
        wanted = torch.ones_like(found)
    return 0.5 * (found / found.sum() - wanted / wanted.sum()).abs().sum().reshape(1)


def variety(outputs: Outputs) -> Tensor:
    """Root mean square deviation of the outputs from their mean, in the user's units; one number."""
    return (outputs.x.double().var(0).mean().sqrt() * outputs.units.scale).reshape(1)


def _smooth(x: Tensor) -> Tensor:
    """Weights 1/4, 1/2, 1/4 along every axis, the border repeated."""
    for axis in range(2, x.dim()):
        index = torch.arange(x.shape[axis], device=x.device)
        before, after = (index - 1).clamp_min(0), (index + 1).clamp_max(x.shape[axis] - 1)
        x = (x.index_select(axis, before) + 2 * x + x.index_select(axis, after)) / 4
    return x


def _parts(outputs: Outputs, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the connected parts of all outputs, and the output that each belongs to; channels are joined by any."""
    from scipy import ndimage

    above = (outputs.values > threshold).any(1).cpu().numpy()
    dims = above.ndim - 1
    structure = np.zeros((3,) * (dims + 1), dtype=bool)  # no neighbours along the axis of the outputs
    structure[1] = ndimage.generate_binary_structure(dims, 1)
    found: tuple[np.ndarray, int] = ndimage.label(above, structure)  # type: ignore[assignment]
    labels, count = found
    if not count:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    labels = labels.reshape(len(above), -1).astype(np.int64)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)[1:].astype(np.float64)
    where = np.zeros(count + 1, dtype=np.int64)
    where[labels.reshape(-1)] = np.repeat(np.arange(len(above)), labels.shape[1])
    return sizes, where[1:]
