"""FD_infinity against distances that are known."""

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.evaluation import frechet_distance, frechet_infinity


def gaussian(n: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    return Rows(n, seed=seed).normal(8, dtype=torch.float64) * scale + shift


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.2, 1.0), (0.0, 1.3)])
def test_the_bias_of_few_events_is_gone_and_the_error_says_how_well(shift: float, scale: float) -> None:
    true = 8 * (shift**2 + (scale - 1) ** 2)
    z, plain = [], []
    for seed in range(12):
        a, b = gaussian(600, 2 * seed), gaussian(600, 2 * seed + 1, shift, scale)
        found = frechet_infinity(a, b, Rows(1, seed=seed))
        z.append((found.value - true) / found.standard_error)
        plain.append(float(frechet_distance(a, b)) - true)
    z = torch.tensor(z)
    assert abs(float(z.mean())) < 3 / 12**0.5
    assert 0.3 < float(z.std()) < 2.0  # the stated errors are of the right size
    bias, error = float(torch.tensor(plain).mean()), float(torch.tensor(plain).std()) / 12**0.5
    assert bias > 2 * error  # what was to be removed is there


def test_too_few_events_are_refused_with_their_number() -> None:
    with pytest.raises(InputError, match=r"at least 48 events in each set, got 30 and 100"):
        frechet_infinity(gaussian(30, 0), gaussian(100, 1), Rows(1))
