"""The classifier accuracy score tells good samples from poor ones."""

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.data import digits
from oneprior.evaluation import classifier_accuracy_score


def test_real_images_score_as_real_ones_and_muddled_labels_do_not() -> None:
    data = digits()
    batch = data.batch(torch.arange(1500))
    x, labels = batch.x, batch.condition["label"].long()
    train, test = slice(0, 600), slice(1200, 1500)
    told = {"real": x[600:1200], "real_labels": labels[600:1200], "steps": 80}
    rows = Rows(64, seed=0)
    good = classifier_accuracy_score(x[train], labels[train], x[test], labels[test], rows, **told)
    assert good.real > 0.85
    assert abs(good.real - good.generated) < 4 * good.gap_error + 0.02
    muddled = classifier_accuracy_score(
        x[train], (labels[train] + (torch.arange(600) % 2) * 3) % 10, x[test], labels[test], rows, steps=80
    )
    assert muddled.generated < good.generated - 0.1
    assert muddled.real != muddled.real  # no real events were given


def test_missing_classes_are_refused() -> None:
    x = torch.zeros(4, 1, 8, 8)
    with pytest.raises(InputError, match="generate every class"):
        classifier_accuracy_score(x, torch.tensor([0, 1, 0, 1]), x, torch.tensor([0, 1, 2, 2]), Rows(4))
