"""Classifier accuracy score: what a classifier learns from generated events, tested on real ones.

A classifier is trained on generated events with the labels they were asked for, and its accuracy on real test events is
set beside that of the same classifier, trained for as many steps on as many real events (Ravuri and Vinyals 2019). It
sees what the distances miss: classes that are muddled, and variety that is not there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.evaluation.features import train_classifier


@dataclass(frozen=True)
class ClassifierScore:
    """Accuracies on the same test events.

    Args:
        generated: after training on generated events.
        generated_error: its standard error, over the test events.
        real: after training on real events; nan where none were given.
        real_error: its standard error.
        gap_error: standard error of `real - generated`, paired over the test events.
        n: training events of each kind.
        test: test events.
    """

    generated: float
    generated_error: float
    real: float
    real_error: float
    gap_error: float
    n: int
    test: int


@torch.enable_grad()
def classifier_accuracy_score(
    x: Tensor,
    labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    rows: Rows,
    *,
    real: Tensor | None = None,
    real_labels: Tensor | None = None,
    steps: int = 1000,
) -> ClassifierScore:
    """Train on generated events, test on real ones.

    Args:
        x: generated events in [-1, 1], (n, *event_shape).
        labels: what was asked for, int64 (n,).
        test: real events, (m, *event_shape).
        test_labels: int64 (m,).
        rows: places in a batch, as of `train_classifier`.
        real: real training events for comparison; as many as were generated are used.
        real_labels: their labels.
        steps: of each training.

    Raises:
        InputError: where real events come without labels, or the test labels are beyond the generated ones.
    """
    if (real is None) != (real_labels is None):
        raise InputError("real events for comparison need their labels, and labels their events")
    if int(test_labels.max()) > int(labels.max()):
        raise InputError(
            f"the test labels go to {int(test_labels.max())} and the generated ones to {int(labels.max())}: "
            "generate every class"
        )
    right = train_classifier(x, labels, rows, steps).classify(test) == test_labels
    generated, generated_error = _share(right)
    if real is None or real_labels is None:
        return ClassifierScore(generated, generated_error, math.nan, math.nan, math.nan, len(x), len(test))
    order = rows.take(slice(0, 1)).stream("real").bits(len(real))[0].argsort()[: len(x)]
    right_real = train_classifier(real[order], real_labels[order], rows, steps).classify(test) == test_labels
    value, error = _share(right_real)
    gap_error = float((right_real.double() - right.double()).std()) / math.sqrt(max(len(test), 1))
    return ClassifierScore(generated, generated_error, value, error, gap_error, len(x), len(test))


def _share(right: Tensor) -> tuple[float, float]:
    value = float(right.double().mean())
    return value, math.sqrt(value * (1 - value) / max(len(right), 1))
