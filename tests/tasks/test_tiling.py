"""Events larger than the prior's own are restored in tiles under one data term; nothing is resized unsaid."""

import pytest
import torch

from oneprior.core import IncompatiblePrior, Rows, ShapeError
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.tasks import restore
from oneprior.tasks.tiling import can_tile, event_shape_of

SHAPE = (1, 8, 8)


def texture(shape):
    """A stationary Gaussian texture: white noise under a small kernel."""
    x = Rows(400, seed=1).normal(shape[0], shape[1] + 2, shape[2] + 2)
    return 0.4 * torch.nn.functional.avg_pool2d(x, 3, 1) * 3


@pytest.fixture(scope="module")
def law():
    return LowRankGaussian.fit([texture(SHAPE)], 40)


@pytest.mark.parametrize("words", ["mask:random:0.5", "downsample:2"])
@pytest.mark.parametrize("denoiser", [False, True])
def test_a_larger_measurement_is_covered(law, words, denoiser):
    from oneprior.operators import parse_operator

    prior = ClosedFormDenoiser(law, EDMSchedule(sigma_max=20.0)) if denoiser else law
    large = (1, 8, 20)
    x = texture(large)[:3]
    operator = parse_operator(words, large)
    y = operator(x) + 0.1 * Rows(3, seed=2).normal(*operator.out_shape)
    given = y if words.startswith("downsample") else operator.adjoint(y)  # a picture with holes
    result = restore(prior, given, words, 0.1, samples=5)
    (note,) = result.notes[0]
    assert "the measurement is larger than the prior (8 x 20 against 8 x 8): covered by 4 overlapping tiles" in note
    assert ("exact for the law of the tiles only" in note) == (not denoiser)
    assert result.mean.shape == (3, *large)
    assert 0.7 < float(result.diagnostics["misfit_draw"].mean()) < 1.4
    error = (result.mean - x).square().mean()
    assert error < 0.6 * x.square().mean()


def test_the_size_is_read_off_the_measurement():
    own = torch.Size((1, 28, 28))
    assert event_shape_of("downsample:4", torch.zeros(1, 7, 7), own) == own
    assert event_shape_of("downsample:4", torch.zeros(2, 1, 16, 12), own) == (1, 64, 48)
    assert event_shape_of("mask:left", torch.zeros(1, 40, 30), own) == (1, 40, 30)
    assert event_shape_of("downsample:4", torch.zeros(1, 3, 3), own) == own  # too small: the error tells


def test_what_cannot_be_tiled_is_told_with_remedies(law):
    mixture = GaussianMixturePrior([law, law], torch.tensor([0.5, 0.5]))
    assert can_tile(law)
    assert can_tile(ClosedFormDenoiser(mixture, EDMSchedule(sigma_max=20.0)))
    assert not can_tile(mixture)
    with pytest.raises(IncompatiblePrior, match="of 12 x 12 and the prior of 8 x 8, which cannot be laid in tiles"):
        restore(mixture, torch.zeros(1, 1, 12, 12), "identity", 0.1)


def test_events_of_the_own_size_have_no_notes(law):
    assert restore(law, texture(SHAPE)[:2], "identity", 0.1, samples=1).notes == [[], []]


def test_smaller_ones_are_refused(law):
    with pytest.raises(ShapeError, match="measure"):
        restore(law, torch.zeros(1, 1, 4, 8), "identity", 0.1)
