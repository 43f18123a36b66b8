"""Does a generator reach every mode of the data, and how evenly?

Two settings have an answer. On a mixture with known centres a sample belongs to the nearest one, and counts if it lies
within a radius (Srivastava et al. 2017, "VEEGAN", count samples within three standard deviations). On labelled data a
classifier says to which class a sample belongs (the stacked-MNIST test of Metz et al. 2017: modes reached, and the
Kullback-Leibler divergence of the class frequencies from those of the data).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError


@dataclass(frozen=True)
class Modes:
    """What a set of samples reached.

    Args:
        recovered: number of modes with at least `at_least` samples.
        total: number of modes there are.
        near: share of samples that belong to a mode at all.
        divergence: KL(frequencies of the samples | frequencies of the data), nats; 0 for perfectly even, log(total)
            for one mode alone out of equal ones; infinite if no sample belongs to any mode.
    """

    recovered: int
    total: int
    near: float
    divergence: float


def modes_recovered(x: Tensor, centres: Tensor, radius: float, at_least: int = 1) -> Modes:
    """Modes of a mixture that samples reach.

    Args:
        x: samples, (n, *event_shape).
        centres: centres of the modes, (k, *event_shape), equally likely.
        radius: largest distance from its centre at which a sample counts.
        at_least: samples that make a mode recovered.

    Raises:
        ShapeError: if samples and centres differ in shape.
    """
    if x.shape[1:] != centres.shape[1:]:
        raise ShapeError("samples", x.shape[1:], centres.shape[1:], "Samples and centres are events of one shape.")
    distance, nearest = torch.cdist(x.flatten(1).double(), centres.flatten(1).double()).min(1)
    return label_modes(nearest[distance <= radius], len(centres), at_least=at_least, samples=len(x))


def label_modes(
    labels: Tensor, classes: int, *, frequencies: Tensor | None = None, at_least: int = 1, samples: int | None = None
) -> Modes:
    """Classes that labelled samples reach.

    Args:
        labels: class of each sample, int64 (n,).
        classes: number of classes.
        frequencies: of the classes in the data, (classes,); equal by default.
        at_least: samples that make a class recovered.
        samples: number of samples drawn, if some of them got no label.

    Raises:
        InputError: for a label that is no class.
    """
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(f"labels run from {int(labels.min())} to {int(labels.max())}, needed 0 to {classes - 1}")
    counts = torch.bincount(labels.reshape(-1), minlength=classes).double()
    data = torch.ones_like(counts) if frequencies is None else frequencies.double().to(counts.device)
    p, q = counts / counts.sum(), data / data.sum()
    drawn_from = p > 0
    divergence = float((p * (p / q).log())[drawn_from].sum()) if labels.numel() else float("inf")
    drawn = labels.numel() if samples is None else samples
    return Modes(int((counts >= at_least).sum()), classes, labels.numel() / max(drawn, 1), divergence)
