"""How events were measured is said in few digits, of each and of all together."""

import pytest
import torch

from oneprior.apps.restored_words import differing, instrument, of_all, rounded, told_of
from oneprior.core import AffineMap, Rows
from oneprior.likelihoods.noise import GaussianNoise
from oneprior.operators.mri import MRI
from oneprior.operators.mri_sampling import Lines
from oneprior.tasks import Measurement, simulate


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("gaussian:2.1079876795351773e-06", "gaussian:2.108e-06"),
        ("gaussian:5.1000000000000005", "gaussian:5.1"),
        ("outliers:0.123456:share=0.1:spread=12.75", "outliers:0.1235:share=0.1:spread=12.75"),
        ("unknown:0.1:100", "unknown:0.1:100"),
        ("5%", "5%"),
        ("mask:scan12345.png", "mask:scan12345.png"),
    ],
)
def test_numbers_are_shown_with_four_digits(words, shown):
    assert rounded(words) == shown


def test_the_noise_of_each_row_is_its_own():
    x = torch.zeros(2, 1, 4, 4)
    measurement = simulate(x, "identity", torch.tensor([0.25, 0.5]), Rows(2), units=AffineMap.from_range(0, 9))
    told = [told_of(measurement, k) for k in range(2)]
    assert [one["noise"] for one in told] == ["gaussian:0.25", "gaussian:0.5"]
    assert told[0]["value_range"] == [0, 9]
    assert told[0]["operator"] == "identity"


def test_measured_k_space_says_its_lines_and_coils():
    lines = Lines((4, 6), torch.tensor([-2, 0, 1]), field=0.5)
    for coils, said in ((1, "k-space, 3 of 12 lines"), (2, "k-space, 3 of 12 lines, 2 coils")):
        operator = MRI((1, 4, 6), lines, torch.ones(coils, 4, 6))
        y = torch.zeros(1, *operator.out_shape, dtype=torch.complex64)
        assert instrument(Measurement(y, operator, GaussianNoise(1.0))) == said


def test_what_differs_is_a_span_and_a_column():
    rows = [
        {"operator": "k-space", "noise": f"gaussian:{s}", "value_range": [0, 2]} for s in (3e-6, 2.00001e-6, 2.5e-5)
    ]
    assert of_all(rows, "noise") == "gaussian:2e-06 to gaussian:2.5e-05"
    assert of_all(rows[:1], "noise") == "gaussian:3e-06"
    assert of_all(rows, "value_range") == "0 .. 2"
    assert of_all([{}], "noise") == "as each file says"
    assert differing(rows) == {"noise": ["gaussian:3e-06", "gaussian:2e-06", "gaussian:2.5e-05"]}
    assert differing(rows[:1]) == {}
