"""Chi-square of a measurement: the truth is accepted as often as promised."""

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.evaluation import data_consistency


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_the_truth_has_uniform_p_values(kind: torch.dtype) -> None:
    rows = Rows(2000, seed=3)
    parts = (2,) if kind.is_complex else ()
    noise = rows.normal(3, 5, *parts, dtype=torch.float64)
    noise = torch.view_as_complex(noise) if kind.is_complex else noise
    level = torch.linspace(0.1, 2, 2000, dtype=torch.float64)
    predicted = torch.ones(2000, 3, 5, dtype=kind)
    found = data_consistency(predicted + level[:, None, None] * noise, predicted, level)
    assert found.degrees == (30 if kind.is_complex else 15)
    assert float(found.reduced.mean()) == pytest.approx(1, abs=4 * (2 / found.degrees / 2000) ** 0.5)
    counts = torch.histc(found.p_value, 10, 0, 1)
    assert float(((counts - 200) ** 2 / 200).sum()) < 27.9  # chi-square of 9 degrees, 1 in 1,000


def test_a_wrong_noise_level_shows() -> None:
    noise = Rows(1, seed=1).normal(1000, dtype=torch.float64)
    assert float(data_consistency(0.2 * noise, torch.zeros_like(noise), 0.1).p_value) < 1e-6


def test_no_noise_is_refused() -> None:
    with pytest.raises(InputError, match="above 0"):
        data_consistency(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)
