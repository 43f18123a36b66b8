"""A restoration that cannot be trusted says so: foreign events, wrong instruments, wrong noise."""

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits

import oneprior
from oneprior.core import AffineMap, Rows
from oneprior.data import array_dataset
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import parse_operator
from oneprior.tasks import restore, simulate
from oneprior.tasks.familiarity import FOREIGN, least_misfit, strangeness
from oneprior.training import load

X = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
TRAIN, TEST = X[:1500], X[1500:1600]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doubts") / "ppca"
    oneprior.train("ppca", data=array_dataset(TRAIN), out=folder)
    return load(folder)


def restored(run, x, words="mask:left", noise=0.1, said=None, told=None):
    given = simulate(x, words, noise, Rows(len(x), seed=2), units=AffineMap())
    return restore(run, given.told(told, said), samples=3)


@pytest.mark.parametrize("words", ["mask:left", "downsample:2", "identity"])
def test_familiar_events_are_not_doubted(run, words):
    result = restored(run, X[1500:], words)
    assert sum(map(bool, result.doubts)) <= 0.05 * 297
    assert float(result.diagnostics["misfit_draw"].mean()) == pytest.approx(1.0, abs=0.15)
    assert 0.6 < float(result.diagnostics["strangeness"].median()) < 1.5


@pytest.mark.parametrize("kind", ["negative", "noise"])
def test_foreign_events_are(run, kind):
    x = {"negative": -TEST, "noise": Rows(100, seed=5).uniform(1, 8, 8) * 2 - 1}[kind]
    assert sum(map(bool, restored(run, x, "identity").doubts)) > 90
    assert "do not" not in restored(run, x, "identity").doubts[0]
    assert "another kind of image" in restored(run, x, "identity").doubts[0]


def test_a_wrong_noise_level_is(run):
    result = restored(run, TEST, "identity", noise=0.8, said=0.05)
    assert sum(map(bool, result.doubts)) > 90


@pytest.mark.parametrize("words", ["mask:left", "downsample:2", "identity"])
@pytest.mark.parametrize("noise", [0.04, 0.2, 0.6])
@pytest.mark.parametrize("cut", [False, True])
def test_a_noise_level_stated_much_too_large_is_noted_and_a_right_one_is_not(run, words, noise, cut):
    """Clipped at black and white too, as noise in a picture of 8 bits is."""
    given = simulate(X[1500:], words, noise, Rows(297, seed=3), units=AffineMap())
    given = replace(given, y=given.y.clamp(-1, 1)) if cut else given
    right = restore(run, given, samples=1)
    assert sum(map(bool, right.notes)) <= 2  # of 297
    if noise > 0.1:
        wrong = restore(run, given.told(None, 8 * noise), samples=1)
        assert sum(map(bool, wrong.notes)) > 200
        assert not any(wrong.doubts)
        first = next(filter(None, wrong.notes))[0]
        assert "perhaps the stated noise is too large" in first


def test_methods_that_give_one_answer_are_not_judged_by_its_nearness(run):
    given = simulate(TEST[:20], "identity", 0.1, Rows(20, seed=3), units=AffineMap())
    found = restore(run, given, samples=1, method="map")
    assert float(found.diagnostics["misfit_draw"].median()) < 0.6
    assert not any(found.notes)


def test_the_least_misfit_of_a_right_draw():
    for numbers in (4, 16, 32, 1000):
        misfit = (Rows(20000, seed=1).normal(numbers).square().mean(1)).sqrt()
        limit = least_misfit(numbers, clipped=False)
        assert float((misfit < limit).double().mean()) < 0.002
        assert least_misfit(numbers, clipped=True) < limit <= 0.6
    assert least_misfit(1, clipped=False) < 0.01


def test_what_is_warned_of_stands_in_the_result(run):
    given = simulate(TEST[:2], "identity", 0.1, Rows(2), units=AffineMap())
    shrunk = replace(given, y=torch.cat([given.y[:1], given.y[1:] / 255 - 1]))
    with pytest.warns(UserWarning, match="the noise, 9, is more than any value"):
        assert "is more than any value" in restore(run, given, noise=9.0, samples=1).warnings[0][0]
    alone = restore(run, shrunk, samples=1).warnings
    assert alone[0] == []
    assert "hardly touch the range" in alone[1][0]


def test_strangeness_is_one_on_average_and_a_row_is_judged_alone():
    law = load_law()
    operator = parse_operator("downsample:2", law.event_shape)
    x = law.sample(Rows(4000, seed=1))
    y = operator(x) + 0.2 * Rows(4000, seed=2).normal(*operator.out_shape)
    T = strangeness(law, GaussianLikelihood(y, operator, 0.2))
    assert float(T.mean()) == pytest.approx(1.0, abs=0.05)
    alone = strangeness(law, GaussianLikelihood(y[7:8], operator, 0.2))
    assert float(alone) == pytest.approx(float(T[7]), rel=1e-4)
    assert float((T > FOREIGN).double().mean()) < 0.01
    assert strangeness(law, GaussianLikelihood(y, operator, 0.2).pullback(torch.tanh)) is None


def load_law():
    from oneprior.priors.gaussian import LowRankGaussian

    return LowRankGaussian.fit([TRAIN], 20)
