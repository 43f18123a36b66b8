"""The joint verdict: its size for exact posteriors, its power, and what it says."""

import math

import pytest
import torch
from scipy import stats

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import verdict
from oneprior.evaluation.ranks import Ranks, rank_truth
from oneprior.evaluation.verdict import (
    WEIGHTS,
    _scores,
    calibration_verdict,
    exchanged_p_values,
    holm,
    rank_p_values,
)


def ranks_of(n, count, repetitions, *, factor=1.0, bias=0.0, seed=0):
    """Ranks of a truth N(0, 1) among draws of N(bias, factor^2): given the truth they are binomial."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(n, repetitions, generator=generator, dtype=torch.float64)
    u = torch.special.ndtr((truth - bias) / factor)
    return torch.binomial(torch.full_like(u, count), u, generator=generator).long()


def correlated(n, count, k, *, factor=1.0, bias=0.0, seed=0, rho=0.95):
    """k equally correlated functions of n images."""
    rows = Rows(n, seed=seed)
    common, own = rows.normal(count + 1, 1).movedim(1, 0), rows.normal(count + 1, k).movedim(1, 0)
    values = math.sqrt(rho) * common + math.sqrt(1 - rho) * own
    values[1:] = factor * values[1:] + bias
    functions = {f"f{j}": lambda e, j=j: e[:, j] for j in range(k)}
    return rank_truth(values[1:], values[0], functions, rows)


def within(rate, expected, repetitions):
    return abs(rate - expected) < 4 * math.sqrt(expected * (1 - expected) / repetitions)


@pytest.mark.parametrize(("n", "count"), [(1000, 99), (50, 19), (3, 4)])
def test_p_values_alone_are_uniform_for_exact_posteriors(n, count):
    """Each question rejects at its level: also for three images and four draws, where it may only reject less."""
    repetitions = 2000
    p = rank_p_values(ranks_of(n, count, repetitions), count)
    assert p.shape == (repetitions, 3)
    for level in (0.02, 0.2):
        error = math.sqrt(level * (1 - level) * (1 / repetitions + 1 / 8000))  # of the trials and of the simulations
        rates = (p <= level).double().mean(0)
        assert bool((rates < level + 4 * error).all())
        if n > 3:
            assert bool((rates > level - 4 * error).all())


def test_the_verdict_on_numbers_has_its_size_and_its_power():
    """The figures of the issue, with fewer repetitions; the benchmark has 2,000."""
    for defect, low, high in (({}, 0.02, 0.08), ({"factor": 0.9}, 0.93, 1), ({"factor": 1.1}, 0.93, 1)):
        p = rank_p_values(ranks_of(1000, 99, 600, seed=1, **defect), 99)
        assert low <= float((holm(p, WEIGHTS) <= 0.05).any(1).double().mean()) <= high
    p = rank_p_values(ranks_of(1000, 99, 600, seed=2, bias=0.15), 99)
    assert float((holm(p, WEIGHTS) <= 0.05).any(1).double().mean()) > 0.93


@pytest.mark.parametrize("rho", [0.0, 0.95])
def test_the_size_is_kept_for_several_functions_independent_or_not(rho, monkeypatch):
    monkeypatch.setattr(verdict, "EXCHANGES", 799)  # the size is exact for any number that fits the levels
    repetitions = 300
    flagged = sum(
        calibration_verdict(correlated(40, 19, 5, seed=seed, rho=rho), Rows(40, seed=seed)).flagged
        for seed in range(repetitions)
    )
    assert within(flagged / repetitions, 0.049, repetitions)


def test_exchanges_of_one_function_are_the_simulation():
    """Two independent ways to the same p-value."""
    ranks = correlated(200, 19, 1, factor=0.9, seed=3)
    alone, joint = exchanged_p_values(ranks.exchanged, Rows(200, seed=4))
    assert torch.equal(alone, joint)
    p = rank_p_values(ranks.values, 19)
    assert bool(((alone - p).abs() < 4 * (p * (1 - p) * 2 / 3999).sqrt() + 1e-3).all())


def test_equal_functions_cost_nothing():
    one = correlated(300, 39, 1, factor=0.92, seed=5)
    many = Ranks(tuple("abcdefgh"), one.values.expand(-1, 8), 39, one.exchanged.expand(-1, -1, 8))
    alone, joint = exchanged_p_values(many.exchanged, Rows(300, seed=6))
    assert torch.equal(alone, joint)
    within_holm = calibration_verdict(Ranks(many.names, many.values, 39), Rows(300))
    assert within_holm.findings[0].corrected > calibration_verdict(many, Rows(300)).findings[0].corrected


@pytest.mark.parametrize(
    ("defect", "question", "says", "size"),
    [
        ({"factor": 0.8}, "dispersion", "too narrow", -0.2),
        ({"factor": 1.25}, "dispersion", "too wide", 0.25),
        ({"bias": 0.3}, "location", "biased high", 0.3),
        ({"bias": -0.3}, "location", "biased low", -0.3),
    ],
)
def test_directions_and_sizes(defect, question, says, size):
    ranks = Ranks(("value",), ranks_of(2000, 99, 1, seed=7, **defect), 99)
    found = calibration_verdict(ranks, Rows(2000))
    finding = found.findings[0]
    assert (found.flagged, finding.question, finding.says) == (True, question, says)
    assert finding.size == pytest.approx(size, abs=0.07)
    assert "Miscalibrated" in found.sentence
    assert f"value is {says} by" in found.sentence
    assert finding in found.flags


def test_a_wrong_shape_is_found_where_mean_and_spread_are_right():
    """Truths from two narrow humps of unit variance, draws normal."""
    rows = Rows(1000, seed=8)
    sign = 2.0 * rows.integers(2) - 1
    u = torch.special.ndtr(0.9 * sign + math.sqrt(1 - 0.81) * rows.normal().double())
    ranks = torch.binomial(torch.full_like(u, 99), u, generator=torch.Generator().manual_seed(0)).long()
    found = calibration_verdict(Ranks(("value",), ranks[:, None], 99), Rows(1000))
    assert {flag.question for flag in found.flags} >= {"shape"}
    assert "location" not in {flag.question for flag in found.flags}


def test_the_function_at_fault_is_named():
    rows = Rows(400, seed=9)
    values = rows.normal(40, 4).movedim(1, 0).clone()
    values[1:, :, 2] *= 0.7
    functions = {name: lambda e, j=j: e[:, j] for j, name in enumerate("abcd")}
    found = calibration_verdict(rank_truth(values[1:], values[0], functions, rows), rows.stream("verdict"))
    assert {flag.functional for flag in found.flags} == {"c"}
    assert found.findings[0].says == "too narrow"


def test_few_images_conclude_nothing_and_more_would_notice_less():
    few = calibration_verdict(Ranks(("value",), ranks_of(12, 19, 1), 19), Rows(12))
    assert (few.flagged, few.conclusive) == (False, False)
    assert "Nothing can be concluded from 12 images with 19 draws" in few.sentence
    many = calibration_verdict(Ranks(("value",), ranks_of(1000, 99, 1), 99), Rows(1000))
    assert many.conclusive
    assert "No miscalibration found" in many.sentence
    assert many.detectable_bias < 0.15 < few.detectable_bias
    assert many.detectable_spread < 0.1
    single = calibration_verdict(Ranks(("value",), torch.tensor([[7]]), 19), Rows(1))
    assert not single.conclusive
    assert all(0 < f.p <= 1 and f.p <= f.corrected <= 1 for f in single.findings)


def test_what_would_be_noticed_is_noticed_so_often():
    n, repetitions = 300, 1000
    one = calibration_verdict(Ranks(("value",), ranks_of(n, 99, 1), 99), Rows(n))
    for defect in ({"bias": one.detectable_bias}, {"factor": 1 + one.detectable_spread}):
        p = rank_p_values(ranks_of(n, 99, repetitions, seed=11, **defect), 99)
        assert float((holm(p, WEIGHTS) <= 0.05).any(1).double().mean()) == pytest.approx(0.82, abs=0.06)


def test_the_verdict_is_the_same_every_time():
    ranks = correlated(50, 19, 3, seed=12)
    first, second = (calibration_verdict(ranks, Rows(50, seed=13)) for _ in range(2))
    assert str(first) == str(second)


def test_holm_by_hand_and_with_weights():
    p = torch.tensor([0.01, 0.04, 0.03, 0.005], dtype=torch.float64)
    assert torch.allclose(holm(p), torch.tensor([0.03, 0.06, 0.06, 0.02]).double())
    assert torch.equal(holm(p.expand(2, 4))[1], holm(p))
    weighted = holm(torch.tensor([0.02, 0.03, 0.5]), (0.25, 0.5, 0.25))  # p / w: 0.08, 0.06, 2
    assert torch.allclose(weighted, torch.tensor([0.06, 0.06, 0.5]).double())
    assert float(holm(torch.tensor([0.9, 0.8])).max()) == 1.0
    with pytest.raises(InputError, match="one positive weight"):
        holm(p, (1.0, 2.0))


@pytest.mark.parametrize("count", [4, 19, 99])
def test_scores_are_moments_of_ordered_normals(count):
    """Against simulation, and the exact sums: of all S + 1 means 0, of all second moments S + 1."""
    first, second, shape = _scores(count)
    drawn = torch.from_numpy(stats.norm.rvs(size=(20000, count + 1), random_state=1)).sort(1).values
    for exact, simulated in ((first, drawn), (second, drawn.square())):
        error = simulated.std(0) / math.sqrt(20000)
        assert bool(((simulated.mean(0) - exact).abs() < 4.5 * error).all())
    assert float(first.mean()) == pytest.approx(0, abs=1e-9)
    assert float(second.mean()) == pytest.approx(1, abs=1e-9)
    columns = torch.cat([torch.stack([torch.ones_like(first), first, second], 1), shape], 1)
    product = columns.T @ shape / (count + 1)
    assert torch.allclose(product[3:], torch.eye(shape.shape[1]).double(), atol=1e-9)
    assert float(product[:3].abs().max()) < 1e-9


def test_what_cannot_be_is_said():
    ranks = Ranks(("value",), torch.zeros(5, 1, dtype=torch.int64), 19)
    with pytest.raises(ShapeError, match="one row for each image"):
        calibration_verdict(ranks, Rows(4))
    with pytest.raises(InputError, match=r"\(0, 1\)"):
        calibration_verdict(ranks, Rows(5), level=5)
    with pytest.raises(InputError, match="at least 4, better 99"):
        calibration_verdict(Ranks(("value",), torch.zeros(5, 1, dtype=torch.int64), 3), Rows(5))
    with pytest.raises(InputError, match="at least one image"):
        calibration_verdict(Ranks(("value",), torch.zeros(0, 1, dtype=torch.int64), 19), Rows(0))
