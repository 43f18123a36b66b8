"""The ODE's likelihood of exact denoisers, against their closed-form densities."""

import math

import pytest
import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation.flow_likelihood import flow_log_prob
from oneprior.priors.diffusion.samplers.base import Grid
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.diffusion.schedules import EDMSchedule, LinearSchedule, RectifiedFlow
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior

SHAPE = (1, 3, 2)
SHORT = Grid("logsnr", low=0.02, high=40.0)


def _gaussian(seed: int = 1) -> LowRankGaussian:
    rows = Rows(6, seed=seed)
    basis = torch.linalg.qr(rows.normal(2, dtype=torch.float64)).Q
    mean = 0.5 * rows.normal(dtype=torch.float64).reshape(SHAPE)
    return LowRankGaussian(mean, basis, torch.tensor([1.0, 0.3], dtype=torch.float64), 0.05)


def _mixture() -> GaussianMixturePrior:
    return GaussianMixturePrior([_gaussian(1), _gaussian(2)], torch.tensor([0.3, 0.7], dtype=torch.float64))


def _x(law: LowRankGaussian | GaussianMixturePrior, n: int) -> Tensor:
    return law.sample(Rows(n, seed=3)).double()


def test_a_gaussian_by_its_exact_trace():
    law = _gaussian()
    x, errors = _x(law, 10), []
    for steps in (16, 128):
        found = flow_log_prob(ClosedFormDenoiser(law, EDMSchedule()), x, Rows(10), steps=steps, probes=0, grid=SHORT)
        gap = (found.log_prob - law.noised_log_prob(x, 1.0, found.noise_level)).abs()
        assert bool((gap <= found.integrator_error.abs()).all())
        assert bool((found.trace_error == 0).all())
        errors.append(float(gap.max()))
    assert found.noise_level == pytest.approx(0.02)
    assert errors[1] < 1e-3
    assert errors[0] > 100 * errors[1]  # Heun's second order alone would give 64


@pytest.mark.parametrize(
    "schedule", [EDMSchedule(), EDMSchedule(preserving=False), LinearSchedule(), RectifiedFlow()], ids=str
)
def test_a_mixture_on_every_schedule(schedule):
    law = _mixture()
    x = _x(law, 10)
    prior = ClosedFormDenoiser(law, schedule, moments=_moments(law))
    found = flow_log_prob(prior, x, Rows(10), steps=48, probes=0, grid=SHORT)
    exact = law.joint(x, 1.0, found.noise_level).logsumexp(1)
    gap = (found.log_prob - exact).abs()
    assert bool((gap <= found.integrator_error.abs() + 1e-3).all())
    assert float(gap.max()) < 0.02


def _moments(law: GaussianMixturePrior) -> LowRankGaussian:
    """The Gaussian with the mixture's own mean and, by its draws, covariance: the top of the path."""
    return LowRankGaussian.fit([law.sample(Rows(4000, seed=4)).double()], 5, torch.float64)


def test_without_moments_the_top_is_a_little_wrong_and_less_so_higher_up():
    law = _mixture()
    x = _x(law, 10)
    gaps = []
    for high in (10.0, 80.0):
        found = flow_log_prob(
            ClosedFormDenoiser(law, EDMSchedule()), x, Rows(10), probes=0, grid=Grid("logsnr", low=0.02, high=high)
        )
        gaps.append(float((found.log_prob - law.joint(x, 1.0, 0.02).logsumexp(1)).abs().max()))
    assert gaps[1] < 0.02 < gaps[0]


def test_the_probes_standard_error_is_right():
    """Against the exact trace on the same path: nothing differs but the probes, so z-scores have unit variance."""
    law, n = _mixture(), 150
    prior, x = ClosedFormDenoiser(law, EDMSchedule(), moments=_moments(law)), _x(law, n)
    exact = flow_log_prob(prior, x, Rows(n), steps=16, probes=0, grid=SHORT)
    found = flow_log_prob(prior, x, Rows(n, seed=5), steps=16, probes=16, grid=SHORT)
    gap = found.log_prob - exact.log_prob
    assert abs(float((gap / found.trace_error).mean())) < 4 / math.sqrt(n)
    ratio = float(gap.square().mean() / found.trace_error.square().mean())
    assert abs(ratio - 1) < 4 * math.sqrt(2 / n) * 1.5
    assert float(found.trace_error.mean()) > 0.02


def test_a_row_does_not_depend_on_its_batch():
    law = _mixture()
    prior, x = ClosedFormDenoiser(law, EDMSchedule()), _x(law, 8).float()
    whole = flow_log_prob(prior, x, Rows(8, seed=6), steps=8, probes=3)
    part = flow_log_prob(prior, x[5:7], Rows([5, 6], seed=6), steps=8, probes=3)
    for name in ("log_prob", "trace_error", "integrator_error"):
        torch.testing.assert_close(getattr(whole, name)[5:7], getattr(part, name), rtol=1e-4, atol=1e-4)
    assert whole.log_prob.dtype == torch.float64


def test_the_law_is_that_of_the_denoiser_and_not_of_the_data():
    law, other = _gaussian(), _gaussian(7)
    x = _x(law, 10)
    found = flow_log_prob(ClosedFormDenoiser(other, EDMSchedule()), x, Rows(10), probes=0)
    gap = (found.log_prob - other.noised_log_prob(x, 1.0, found.noise_level)).abs()
    assert bool((gap <= found.integrator_error.abs()).all())
    assert float((found.log_prob - law.log_prob(x)).mean()) < -5


class _Opaque(DenoisingPrior):
    schedule, event_shape = EDMSchedule(), torch.Size(SHAPE)

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t.detach()


def test_errors():
    prior, x = ClosedFormDenoiser(_gaussian(), EDMSchedule()), torch.zeros(2, *SHAPE)
    with pytest.raises(ShapeError, match="events to score"):
        flow_log_prob(prior, x[..., :1], Rows(2))
    with pytest.raises(ShapeError, match="one row for each"):
        flow_log_prob(prior, x, Rows(3))
    with pytest.raises(InputError, match="even number of steps"):
        flow_log_prob(prior, x, Rows(2), steps=7)
    with pytest.raises(InputError, match="nan"):
        flow_log_prob(prior, x / 0, Rows(2))
    with pytest.raises(InputError, match="no gradient"):
        flow_log_prob(_Opaque(), x, Rows(2))
