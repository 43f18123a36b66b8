"""Features without labels: the loss against its formula, what is learned, and the file."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.evaluation.features import Classifier
from oneprior.evaluation.self_supervised import train_self_supervised, vicreg_loss
from oneprior.evaluation.views import Views


def _plain(a: np.ndarray, b: np.ndarray) -> float:
    """The formula, entry by entry."""
    n, d = a.shape
    loss = 25 * ((a - b) ** 2).sum() / (n * d)
    for z in (a, b):
        loss += 25 * sum(max(0.0, 1 - math.sqrt(z[:, j].var(ddof=1) + 1e-4)) for j in range(d)) / d / 2
        c = np.cov(z.T)
        loss += sum(c[j, k] ** 2 for j in range(d) for k in range(d) if j != k) / d
    return float(loss)


def test_the_loss_is_the_formula():
    a, b = 0.6 * Rows(20, seed=1).normal(5, dtype=torch.float64), Rows(20, seed=2).normal(5, dtype=torch.float64)
    assert float(vicreg_loss(a, b)) == pytest.approx(_plain(a.numpy(), b.numpy()), rel=1e-10)


def test_the_loss_is_least_for_white_embeddings_that_agree_and_punishes_collapse():
    draws = Rows(40, seed=3).normal(5, dtype=torch.float64)
    white = torch.linalg.qr(draws - draws.mean(0)).Q * math.sqrt(39)
    assert float(vicreg_loss(white, white)) == pytest.approx(0.0, abs=1e-9)
    assert float(vicreg_loss(white * 0, white * 0)) == pytest.approx(25 * 0.99)
    same = white[:, :1].expand(-1, 5)
    assert float(vicreg_loss(same, same)) == pytest.approx(2 * 4.0)


def _shapes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rings and crosses, anywhere in the picture, of any brightness, in noise."""
    rows = Rows(n, seed=seed)
    labels, u = rows.integers(2), rows.uniform(3)
    axis = torch.arange(16.0)
    y, x = axis[:, None] - 4 - 8 * u[:, 0, None, None], axis[None, :] - 4 - 8 * u[:, 1, None, None]
    ring = (((x * x + y * y).sqrt() - 3).abs() < 0.8).float()
    cross = (((x - y).abs() < 1) | ((x + y).abs() < 1)).float() * ((x.abs() < 3.5) & (y.abs() < 3.5)).float()
    shape = torch.where(labels[:, None, None].bool(), ring, cross)
    return (1.5 * shape * (0.5 + u[:, 2, None, None]) - 1 + 0.3 * rows.normal(16, 16)).unsqueeze(1), labels


def _probe(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Accuracy of a ridge regression on the standardised features."""
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    a, b = (torch.cat([(f - mean) / deviation, torch.ones(len(f), 1)], 1).double() for f in (train, test))
    w = torch.linalg.solve(a.T @ a + 10 * torch.eye(a.shape[1]).double(), a.T @ (2.0 * labels.double() - 1))
    return float(((b @ w > 0).long() == truth).double().mean())


@pytest.fixture(scope="module")
def network() -> Classifier:
    return train_self_supervised(_shapes(600, 1)[0], Rows(64, seed=2), steps=150, width=8, label="shapes")


def test_what_it_learns_without_labels_beats_pixels_and_a_network_without_training(network):
    (x, y), (test, truth) = _shapes(100, 3), _shapes(500, 4)
    raw = _probe(x.flatten(1), y, test.flatten(1), truth)
    untrained = Classifier(x.shape[1:], 0, Rows(64, seed=2), width=8)
    before, after = (_probe(n.embed(x), y, n.embed(test), truth) for n in (untrained, network))
    error = math.sqrt(0.5 / 500)  # of a difference of two accuracies, at most
    assert after > raw + 4 * error
    assert after > before + 4 * error


def test_the_file_is_that_of_every_own_network(network, tmp_path):
    network.save(tmp_path / "f.safetensors")
    again = Classifier.load(tmp_path / "f.safetensors")
    x = _shapes(10, 5)[0]
    assert torch.equal(network.embed(x), again.embed(x))
    assert again.classes == 0
    assert again.name == network.name == f"shapes-{network.fingerprint[:8]}"
    with pytest.raises(InputError, match="without labels"):
        again.classify(x)


def test_the_same_rows_give_the_same_network():
    x = _shapes(40, 6)[0]
    a, b, c = (train_self_supervised(x, Rows(16, seed=s), steps=3, width=4) for s in (1, 1, 2))
    assert a.fingerprint == b.fingerprint != c.fingerprint


@pytest.mark.parametrize("space", [(24,), (8, 10, 6)])
def test_signals_and_volumes(space):
    x = Rows(24, seed=7).normal(2, *space)
    before = Classifier((2, *space), 0, Rows(16, seed=1), width=4)
    found = train_self_supervised(x, Rows(16, seed=1), steps=2, width=4, views=Views(flips=(0,)))
    features = found.embed(x)
    assert features.shape == (24, 16)
    assert bool(torch.isfinite(features).all())
    assert found.fingerprint != before.fingerprint
    assert not found.training


def test_errors():
    x = torch.zeros(40, 1, 8)
    with pytest.raises(InputError, match="at least 16 rows"):
        train_self_supervised(x, Rows(8))
    with pytest.raises(InputError, match="as many events"):
        train_self_supervised(x[:10], Rows(16))
    with pytest.raises(InputError, match="nan"):
        train_self_supervised(x / 0, Rows(16))
