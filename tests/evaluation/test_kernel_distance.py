"""The kernel distance against an independent implementation, and its error against repetition."""

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import kernel_distance, squared_discrepancy


def features(n=400, seed=0, shift=0.0):
    return Rows(n, seed=seed).normal(16, dtype=torch.float64) + shift


def test_one_block_is_that_of_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    a, b = features(seed=1), features(seed=2, shift=0.3)
    assert float(squared_discrepancy(a, b)) == pytest.approx(float(poly_mmd(a, b)), rel=1e-10)


def test_it_is_the_sum_over_pairs():
    a, b = features(7, seed=1), features(7, seed=2, shift=1.0)

    def k(x, y):
        return (float(x @ y) / 16 + 1) ** 3

    within = sum(k(z[i], z[j]) for z in (a, b) for i in range(7) for j in range(7) if i != j) / 42
    across = sum(k(x, y) for x in a for y in b) / 49
    assert float(squared_discrepancy(a, b)) == pytest.approx(within - 2 * across, rel=1e-10)


def test_equal_laws_have_distance_zero_within_the_error_and_the_error_is_right():
    found = [kernel_distance(features(400, 2 * s), features(400, 2 * s + 1), Rows(1), size=50) for s in range(60)]
    scores = torch.tensor([f.value / f.standard_error for f in found])
    assert abs(float(scores.mean())) < 4 * float(scores.std()) / 60**0.5
    assert 0.75 < float(scores.std()) < 1.6  # a t-variable of 7 degrees of freedom has 1.18
    assert found[0].blocks == 8
    far = kernel_distance(features(seed=1), features(seed=2, shift=0.5), Rows(1), size=50)
    assert far.value > 5 * far.standard_error


def test_mistakes_are_told():
    with pytest.raises(InputError, match="give a smaller size"):
        kernel_distance(features(10), features(10), Rows(1))
    with pytest.raises(ShapeError, match="one feature network"):
        kernel_distance(features(10), features(10)[:, :3], Rows(1), size=5)


def test_a_streamed_set_gives_the_blocks_of_its_parts() -> None:
    a, b = Rows(400, seed=1).normal(6), Rows(400, seed=2).normal(6) + 0.3
    parts = [kernel_distance(a[k : k + 100], b[k : k + 100], Rows(1, seed=k), size=50) for k in range(0, 400, 100)]
    whole = parts[0] + parts[1] + parts[2] + parts[3]
    assert whole.blocks == 8
    assert whole.value == pytest.approx(sum(p.value for p in parts) / 4)
    assert abs(whole.value - kernel_distance(a, b, Rows(1), size=50).value) < 4 * whole.standard_error
    with pytest.raises(InputError, match="one size"):
        parts[0] + kernel_distance(a, b, Rows(1), size=40)
