"""Precision, recall, density and coverage against plain loops, and on sets where the answer is known."""

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.evaluation import support


def cloud(n, seed, shift=0.0):
    return Rows(n, seed=seed).normal(3) + shift


def brute(real, fake, k):
    def reach(x):
        return [sorted(float((a - b).norm()) for b in x)[k] for a in x]

    r, f = reach(real), reach(fake)
    inside = [[float((x - real[i]).norm()) <= r[i] for i in range(len(real))] for x in fake]
    precision = sum(any(row) for row in inside) / len(fake)
    density = sum(map(sum, inside)) / len(fake) / k
    recall = sum(any(float((y - fake[j]).norm()) <= f[j] for j in range(len(fake))) for y in real) / len(real)
    coverage = sum(any(row[i] for row in inside) for i in range(len(real))) / len(real)
    return precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 3])
def test_it_is_the_plain_loop(k, monkeypatch):
    real, fake = cloud(25, 1).double(), cloud(18, 2, 0.4).double()
    found = support(real, fake, k)
    expected = brute(real, fake, k)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("oneprior.evaluation.neighbours._CHUNK", 60)
    assert support(real, fake, k) == found


def test_a_narrow_generator_is_precise_and_covers_little():
    found = support(cloud(500, 1), 0.2 * cloud(500, 2))
    assert found.precision > 0.95
    assert found.recall < 0.3
    assert found.coverage < 0.5
    assert found.density > 0.9


def test_another_real_set_has_figures_near_one():
    found = support(cloud(800, 1), cloud(800, 2))
    assert min(found.precision, found.recall, found.coverage) > 0.85
    assert abs(found.density - 1) < 0.1


def test_too_few_are_told():
    with pytest.raises(InputError, match="needs more than 5 events"):
        support(torch.zeros(5, 2), torch.zeros(9, 2))
