"""The Gaussian of few events in the axes of many: it finds a covariance that PPCA of the few cannot."""

import torch

from oneprior.core import Rows
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.moments import Moments
from oneprior.priors.residual import Residual
from oneprior.priors.shrinkage import fit_in_axes

SIZE = 64


def axes():
    return torch.linalg.qr(Rows(SIZE, seed=1).normal(SIZE, dtype=torch.float64))[0]


def drawn(n, variances, seed):
    return Rows(n, seed=seed).normal(SIZE, dtype=torch.float64) * variances.sqrt() @ axes().T


FALLING = torch.logspace(0, -4, SIZE, dtype=torch.float64)


def test_few_events_suffice_where_the_axes_are_known():
    few, others = drawn(40, FALLING, 2), drawn(400, FALLING, 3)
    law = fit_in_axes(few, axes())
    true = LowRankGaussian(torch.zeros(SIZE).double(), axes()[:, :-1], FALLING[:-1] - FALLING[-1], FALLING[-1])
    behind = float((true.log_prob(others) - law.log_prob(others)).mean()) / SIZE
    ppca = LowRankGaussian.fit([few], dtype=torch.float64)
    alone = float((true.log_prob(others) - ppca.log_prob(others)).mean()) / SIZE
    assert behind < 0.06
    assert alone > 3 * behind


def test_correlations_that_the_axes_do_not_show_are_kept_where_there_are_many_events():
    other = torch.linalg.qr(Rows(SIZE, seed=9).normal(SIZE, dtype=torch.float64))[0]
    x = Rows(4000, seed=4).normal(SIZE, dtype=torch.float64) * FALLING.sqrt() @ other.T
    law = fit_in_axes(x, axes())
    found = (law.basis * law.variances) @ law.basis.T + law.noise_variance * torch.eye(SIZE).double()
    true = other * FALLING @ other.T
    assert float((found - true).norm() / true.norm()) < 0.35  # the least share is .3
    assert torch.allclose(found.trace(), true.trace(), rtol=0.1)


def test_total_variance_and_mean_are_those_of_the_events_whatever_the_rank():
    x = drawn(60, FALLING, 5) + 3.0
    for rank in (1, 8, 256):
        law = fit_in_axes(x, axes(), rank)
        assert law.rank == min(rank, SIZE - 1)
        assert torch.allclose(law.mean, x.mean(0))
        total = law.variances.sum() + SIZE * law.noise_variance
        assert torch.allclose(total, x.var(0, correction=0).sum(), rtol=1e-6)


def test_a_constant_pixel_makes_no_infinite_density():
    x = drawn(60, FALLING, 6)
    x[:, :5] = 0.0
    law = fit_in_axes(x, torch.eye(SIZE).double())
    assert float(law.noise_variance) > 0
    assert bool(torch.isfinite(law.log_prob(x)).all())


def test_a_residual_takes_the_axes_of_the_scaled_events():
    """e = scale * v, so the axes of v are those of events / scale: of two equal laws the fits agree."""
    scale = 0.2 + Rows(SIZE, seed=7).uniform(1, dtype=torch.float64).flatten()
    moments, v = Moments(SIZE), drawn(500, FALLING, 8)
    moments.update(v * scale)
    left = drawn(48, FALLING, 10) * scale
    fitted, alone = Residual.fit(left, events=moments), Residual.fit(left)
    true = LowRankGaussian(torch.zeros(SIZE).double(), axes()[:, :-1], FALLING[:-1] - FALLING[-1], FALLING[-1])
    fresh = drawn(300, FALLING, 11) * scale

    def score(law):
        return float((law.law.log_prob(fresh / law.scale) - law.scale.log().sum()).mean())

    best = float((true.log_prob(fresh / scale) - scale.log().sum()).mean())
    assert score(alone) < score(fitted) < best + 1
