"""Other explanations of a measurement: their Bayes factors are exact, and they name what was wrong."""

import pytest
import torch
from sklearn.datasets import load_digits

from oneprior.core import AffineMap, Rows
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import parse_operator
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import GaussianMixturePrior
from oneprior.tasks import explanations, simulate
from oneprior.tasks.explanations import (
    DECISIVE,
    any_picture,
    better,
    compared,
    displacement,
    other_explanations,
    other_words,
)

X = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
SHAPE = X.shape[1:]
LAW = LowRankGaussian.fit([X[:1500]])
UNSEEN = X[1500:1700]


def asked(x, words, by=None, noise=0.1, law=LAW, units=None):
    given = simulate(x, by or words, noise, Rows(len(x), seed=3), units=units)
    return compared(law, given.told(words))


def test_the_gain_is_the_difference_of_the_exact_evidences(monkeypatch):
    """With all directions, one scale and one Gaussian it is that of `GaussianPosterior`."""
    monkeypatch.setattr(explanations, "SCALES", (1.0,))
    words, other = "blur:gaussian:1", "blur:gaussian:2"
    given = simulate(UNSEEN[:5], words, 0.1, Rows(5, seed=3))
    found = compared(LAW, given)
    prior = GaussianMixturePrior([LAW], torch.ones(1))
    evidence = [
        prior.posterior(GaussianLikelihood(given.y, parse_operator(w, SHAPE), 0.1)).log_evidence for w in (words, other)
    ]
    gain = found.gain[:, found.said.index(f"another operator made it, such as {other}")]
    assert torch.allclose(gain, (evidence[1] - evidence[0]).to(gain), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("words", ["downsample:2", "identity", "blur:gaussian:1", "mri:random:2:seed=0"])
def test_familiar_events_have_no_better_explanation(words):
    assert float((asked(UNSEEN, words).gain.amax(1) > DECISIVE).double().mean()) <= 0.05


@pytest.mark.parametrize("words", ["downsample:2", "identity", "mask:random:0.4"])
@pytest.mark.parametrize("kind", ["negative", "picture"])
def test_other_pictures_have(words, kind):
    x = {"negative": -UNSEEN, "picture": any_picture(SHAPE).sample(Rows(200, seed=1)).float()}[kind]
    found = asked(x, words)
    assert float((found.gain.amax(1) > DECISIVE).double().mean()) > 0.9
    assert "another kind of image" in better(found.said, found.gain.median(0).values)


@pytest.mark.parametrize(("axis", "steps", "where"), [(0, 2, "down"), (0, -2, "up"), (1, 2, "right"), (1, -2, "left")])
def test_a_displaced_event_is_told_with_its_direction(axis, steps, where):
    found = asked(displacement(SHAPE, axis, steps)(UNSEEN), "identity")
    assert float((found.gain.amax(1) > DECISIVE).double().mean()) > 0.95
    assert f"misaligned, {where} by about 2" in better(found.said, found.gain.median(0).values)


def test_a_wrong_blur_is_named():
    wide = asked(UNSEEN, "blur:gaussian:0.8", "blur:gaussian:1.6", 0.02)
    assert float((wide.gain.amax(1) > DECISIVE).double().mean()) > 0.95
    assert "blur:gaussian:1.6" in better(wide.said, wide.gain.median(0).values)
    motion = asked(UNSEEN, "blur:gaussian:1", "blur:motion:3.46:angle=90", 0.02)
    assert "blur:motion:3.46:angle=90" in better(motion.said, motion.gain.median(0).values)


def test_units_and_neighbours_change_nothing():
    plain = asked(UNSEEN[:6], "blur:gaussian:1", noise=0.1).gain
    scaled = asked(UNSEEN[:6], "blur:gaussian:1", noise=12.75, units=AffineMap(127.5, 127.5)).gain
    # the last is a blur with zeros beyond the border: grey in [-1, 1], black in 0 .. 255, as the instrument has it
    assert "boundary=zero" in other_words("blur:gaussian:1")[-1]
    assert torch.allclose(plain[:, :-1], scaled[:, :-1], atol=0.02)
    given = simulate(UNSEEN[:6], "blur:gaussian:1", torch.tensor([0.1, 0.3] * 3), Rows(6, seed=3))
    assert torch.allclose(compared(LAW, given).gain[1:2], compared(LAW, given.take(slice(1, 2))).gain, atol=1e-3)


def test_few_directions_of_a_large_measurement_tell_as_much(monkeypatch):
    moved = displacement(SHAPE, 1, 2)(UNSEEN)
    monkeypatch.setattr(explanations, "DIRECTIONS", 40)
    assert float((asked(moved, "identity").gain.amax(1) > DECISIVE).double().mean()) > 0.9
    assert float((asked(UNSEEN, "identity").gain.amax(1) > DECISIVE).double().mean()) <= 0.05


def test_a_mixture_is_taken_for_its_gaussian():
    parts = [LowRankGaussian.fit([X[k:1500:2]]) for k in (0, 1)]
    mixture = GaussianMixturePrior(parts, torch.ones(2))
    one = mixture.moments()
    assert torch.allclose(
        asked(UNSEEN[:4], "identity", law=mixture).gain, asked(UNSEEN[:4], "identity", law=one).gain, atol=0.3
    )


def test_what_cannot_be_compared_is_not():
    assert asked(UNSEEN[:2], "identity", noise=0.0) is None
    assert asked(UNSEEN[:2], "jpeg:50") is None
    assert asked(UNSEEN[:2], "identity", noise="poisson:100", units=AffineMap(1.0, 1.0)) is None
    assert asked(UNSEEN[:2, :, :4], "identity") is None


def test_the_words_of_other_blurs():
    assert other_words("downsample:2") == []
    found = other_words("mask:left blur:gaussian:2:boundary=zero")
    assert "mask:left blur:gaussian:4:boundary=zero" in found
    assert "mask:left blur:motion:6.93:angle=30:boundary=zero" in found
    assert "mask:left blur:gaussian:2:boundary=nearest" in found
    assert "mask:left blur:gaussian:2" in found
    assert "mask:left blur:gaussian:2:boundary=zero" not in found  # which was said
    assert "blur:gaussian:2" in other_words("blur:motion:6.93:angle=10")
    assert all(parse_operator(words, (1, 16, 16)) for words in found)


def test_explanations_of_volumes_and_signals():
    for shape in ((1, 12), (2, 6, 8, 10)):
        found = other_explanations(parse_operator("identity", shape))
        assert len(found) == 1 + 2 * (len(shape) - 1)
        x = any_picture(torch.Size(shape)).sample(Rows(3))
        assert all(one.operator(x.double()).shape == (3, *shape) for one in found)
