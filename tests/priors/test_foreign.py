"""Denoisers of other libraries: the laws, the units, and a class in deepinv's manner."""

import pytest
import torch
from torch import nn

from oneprior.core import AffineMap, InputError, Rows, ShapeError
from oneprior.inference import DAPS, bayes, exact_posterior
from oneprior.laws import check_prior
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import parse_operator
from oneprior.priors.diffusion.foreign import ForeignDenoiser
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser

SHAPE = (1, 3, 5)


def law():
    rows = Rows(15, seed=0)
    basis = torch.linalg.qr(rows.normal(3))[0]
    return LowRankGaussian(0.3 * rows.normal(1).reshape(SHAPE), basis, torch.tensor([0.3, 0.1, 0.05]), 0.02)


class Denoiser(nn.Module):
    """As deepinv has them: forward(x, sigma), images in [0, 1]."""

    def forward(self, x, sigma):
        return 0.5 + 0.5 * law().denoise(2 * x - 1, torch.ones_like(sigma), 2 * sigma)


def test_the_laws():
    check_prior(ForeignDenoiser(lambda x, s: law().denoise(x, torch.ones_like(s), s), SHAPE))
    check_prior(ForeignDenoiser(Denoiser(), SHAPE, units=AffineMap.from_range(0, 1), sigma_max=40.0))


@pytest.mark.parametrize("schedule", [None, EDMSchedule()], ids=["own", "preserving"])
def test_units_and_schedules_give_the_same_denoiser(schedule):
    theirs = ForeignDenoiser(Denoiser(), SHAPE, schedule, units=AffineMap.from_range(0, 1), sigma_max=40.0)
    ours = ClosedFormDenoiser(law(), theirs.schedule)
    x_t, t = Rows(3, seed=1).normal(*SHAPE), torch.tensor([0.1, 0.4, 0.9])
    assert torch.allclose(theirs.denoise(x_t, t), ours.denoise(x_t, t), atol=1e-4)
    assert theirs.calls.rows == 3
    assert float(theirs.schedule.noise_level(torch.tensor(1.0))) == pytest.approx(80.0, rel=1e-3)


def test_restores_with_moments():
    prior = ForeignDenoiser(Denoiser(), SHAPE, units=AffineMap.from_range(0, 1), sigma_max=40.0, moments=law())
    operator = parse_operator("mask:left", SHAPE)
    likelihood = GaussianLikelihood(operator(law().sample(Rows(2, seed=3))), operator, 0.1)
    draws = DAPS(steps=4)(bayes(prior, likelihood), 1500, Rows(2, seed=1)).x
    exact = exact_posterior(law(), likelihood)
    z = (draws.mean(0) - exact.mean()) / (exact.covariance_diag() / 1500).sqrt()
    assert z.abs().max() < 4.5
    assert ((draws.var(0) / exact.covariance_diag() - 1) / (2 / 1500) ** 0.5).abs().max() < 4.5


def test_what_is_wrong_is_said():
    with pytest.raises(InputError, match="sigma_max"):
        ForeignDenoiser(Denoiser(), SHAPE, sigma_max=0.0)
    cut = ForeignDenoiser(lambda x, s: x[..., 1:], SHAPE)
    with pytest.raises(ShapeError, match="what the denoiser returned"):
        cut.denoise(torch.zeros(2, *SHAPE), torch.tensor(0.5))
    with pytest.raises(ShapeError, match="x_t"):
        cut.denoise(torch.zeros(2, 1, 4, 4), torch.tensor(0.5))
