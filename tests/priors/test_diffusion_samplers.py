"""Samplers on a Gaussian, where the denoiser, the ODE and the law are known in closed form."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.laws import LawBroken, check_prior
from oneprior.priors.diffusion.ode import OdePrior
from oneprior.priors.diffusion.rescheduled import Rescheduled
from oneprior.priors.diffusion.samplers import DDIM, Ancestral, DPMSolver, Grid, Heun
from oneprior.priors.diffusion.samplers.base import first_u, first_x
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.diffusion.schedules import CosineSchedule, EDMSchedule, LinearSchedule, RectifiedFlow
from oneprior.priors.gaussian import LowRankGaussian

SCHEDULES = {
    "edm": EDMSchedule(),
    "exploding": EDMSchedule(preserving=False),
    "linear": LinearSchedule(),
    "scaled": LinearSchedule(0.00085, 0.012, scaled=True),
    "cosine": CosineSchedule(),
    "flow": RectifiedFlow(),
}
ORDERS = {DDIM: 1, Heun: 2, DPMSolver: 2}
MEAN = torch.linspace(-0.5, 0.5, 8, dtype=torch.float64).reshape(1, 2, 4)
VARIANCE = torch.logspace(-2, 0, 8, dtype=torch.float64).reshape(1, 2, 4)


class Gaussian(DenoisingPrior):
    """N(MEAN, diag VARIANCE), counting its calls."""

    event_shape = torch.Size((1, 2, 4))

    def __init__(self, schedule):
        self.schedule, self.calls = schedule, 0

    def denoise(self, x_t, t):
        self.calls += 1
        alpha, sigma = (
            v.reshape(-1, *[1] * 3) if v.dim() else v for v in (self.schedule.alpha(t), self.schedule.sigma(t))
        )
        mean, variance = MEAN.to(x_t), VARIANCE.to(x_t)
        return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean)


def flow_map(x, high, low):
    """The exact ODE from noise level `high` to `low`, x in units of data."""
    return MEAN + ((VARIANCE + low**2) / (VARIANCE + high**2)).sqrt() * (x - MEAN)


@pytest.mark.parametrize("sampler", ORDERS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_order_of_convergence(sampler, schedule):
    """The slope of log error against log steps is the declared order."""
    u = Rows(40).normal(1, 2, 4, dtype=torch.float64)
    counts, errors = (24, 48, 96), []
    for steps in counts:
        walk = sampler(steps=steps, grid=Grid("logsnr", low=0.05, high=30.0), final=False)
        path = walk.grid.path(schedule, steps)
        x = path.sigma[0] * u
        exact = flow_map(x / path.alpha[0], path.level(0), path.level(steps - 1))
        errors.append(float((walk(Gaussian(schedule), None, x) / path.alpha[-1] - exact).square().mean().sqrt()))
    slope = -torch.tensor(errors).log().diff().mean() / math.log(2)
    assert abs(float(slope) - ORDERS[sampler]) < 0.25, f"{errors}"
    assert errors[-1] < 0.02


@pytest.mark.parametrize("kind", ["karras", "logsnr", "uniform"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_grids_fall_from_the_top(schedule, kind):
    path = Grid(kind).path(schedule, 12)
    levels = torch.tensor([path.level(k) for k in range(12)])
    assert (path.t.diff() < 0).all()
    assert levels[0] <= 80.0 * (1 + 1e-6)
    assert path.t[-1] >= -1e-9
    if kind == "logsnr":
        assert torch.allclose(levels.log().diff(), levels.log().diff()[:1], atol=1e-4)


@pytest.mark.parametrize(
    "sampler",
    [Ancestral(120), DDIM(60), DDIM(80, eta=0.5), Heun(24), DPMSolver(32)],
    ids=lambda s: f"{type(s).__name__}{s.steps}",
)
@pytest.mark.parametrize("name", ["edm", "exploding", "flow", "cosine"])
def test_samples_have_the_law(sampler, name):
    """Mean and variance within four standard errors, plus the declared share for the finite number of steps."""
    n = 3000
    x = sampler(Gaussian(SCHEDULES[name]), Rows(n, seed=3)).double()
    error = (x.mean(0) - MEAN) / (VARIANCE / n).sqrt()
    assert float(error.abs().max()) < 4.5
    ratio = x.var(0) / VARIANCE
    bias = 0.12 if isinstance(sampler, DDIM | Ancestral) else 0.03
    assert float((ratio - 1).abs().max()) < 4.5 * math.sqrt(2 / n) + bias, ratio


@pytest.mark.parametrize(
    "sampler", [Ancestral(5), DDIM(5), DDIM(5, final=False), Heun(5), Heun(5, final=False), DPMSolver(5)]
)
def test_network_calls_are_counted_exactly(sampler):
    prior = Gaussian(EDMSchedule())
    states = list(sampler.iterate(prior, Rows(2)))
    assert prior.calls == sampler.nfe == states[-1].calls
    assert [s.done for s in states] == sorted(s.done for s in states)
    assert states[-1].done == (1.0 if sampler.final else 0.8)


def test_ancestral_is_ddim_with_eta_one():
    prior = Gaussian(LinearSchedule())
    assert torch.equal(Ancestral(9)(prior, Rows(3)), DDIM(9, eta=1.0)(prior, Rows(3)))


def test_ddpm_posterior_is_the_textbook_one():
    """a, b and c of one step against Ho et al. 2020, equations 6 and 7."""
    schedule = LinearSchedule()
    steps = (700, 699)
    path = Grid(times=tuple(k / 999 for k in steps)).path(schedule, 2)
    beta = torch.tensor(schedule.betas, dtype=torch.float64)
    bar = (1 - beta).cumprod(0)
    t, s = steps
    a, b, c = path.stochastic(0, 1.0)
    assert math.isclose(c**2, float((1 - bar[s]) / (1 - bar[t]) * beta[t]), rel_tol=1e-8)
    assert math.isclose(a, float((1 - beta[t]).sqrt() * (1 - bar[s]) / (1 - bar[t])), rel_tol=1e-8)
    assert math.isclose(b, float(bar[s].sqrt() * beta[t] / (1 - bar[t])), rel_tol=1e-8)


def test_known_moments_make_the_start_exact():
    """With the data's Gaussian known, x_t at the top has its very law even at weak noise; `first_u` undoes it."""
    schedule = EDMSchedule()
    prior = Gaussian(schedule)
    prior.moments = LowRankGaussian(MEAN, torch.eye(8, dtype=torch.float64)[:, 1:], VARIANCE.flatten()[1:] - 0.01, 0.01)
    path = Grid(high=0.3).path(schedule, 3)
    n = 4000
    u = Rows(n).normal(1, 2, 4, dtype=torch.float64)
    x = first_x(prior, path, u)
    variance = path.alpha[0] ** 2 * VARIANCE + path.sigma[0] ** 2
    assert float(((x.mean(0) - path.alpha[0] * MEAN) / (variance / n).sqrt()).abs().max()) < 4.5
    assert float((x.var(0) / variance - 1).abs().max()) < 4.5 * math.sqrt(2 / n)
    assert torch.allclose(first_u(prior, path, x), u)
    exact = flow_map(MEAN + (VARIANCE + 0.3**2).sqrt() * u, 0.3, 0.0)  # the Gaussian's ODE from infinite noise on
    assert torch.allclose(OdePrior(prior, sampler=DPMSolver(200, Grid(high=0.3))).decode(u), exact, atol=2e-3)


def test_a_prior_draws_by_the_sampler_it_is_given():
    prior = Gaussian(EDMSchedule())
    assert torch.equal(prior.with_sampler(DDIM(3)).sample(Rows(2)), DDIM(3)(prior, Rows(2)))
    assert prior.sampler is None
    check_prior(prior)


def test_errors_name_the_mistake():
    prior = Gaussian(RectifiedFlow())
    x = torch.zeros(2, 1, 2, 4)
    with pytest.raises(InputError, match="neither rows"):
        DPMSolver(4)(prior)
    with pytest.raises(InputError, match="give it rows"):
        Ancestral(4)(prior, None, x)
    with pytest.raises(InputError, match="at least one step"):
        DDIM(0)(prior, Rows(1))
    with pytest.raises(InputError, match="falling"):
        DDIM(2, Grid(times=(0.1, 0.2)))(prior, Rows(1))
    with pytest.raises(InputError, match="infinite noise level"):
        Heun(2, Grid(times=(1.0, 0.2)))(prior, Rows(1))
    with pytest.raises(ShapeError, match="start of the sampler"):
        DPMSolver(4)(prior, None, x[0])


def test_flow_may_start_from_pure_noise():
    """alpha = 0 at t = 1: one step of one call gives the mean."""
    prior = Gaussian(RectifiedFlow())
    x = DDIM(1, Grid(times=(1.0,)))(prior, Rows(3))
    assert torch.allclose(x.double(), MEAN.expand(3, -1, -1, -1), atol=1e-6)


@pytest.mark.parametrize("other", ["exploding", "linear", "flow"])
def test_one_denoiser_on_any_schedule(other):
    inner = Gaussian(EDMSchedule())
    prior, direct = Rescheduled(inner, SCHEDULES[other]), Gaussian(SCHEDULES[other])
    x_t, t = Rows(4).normal(1, 2, 4, dtype=torch.float64), torch.tensor([0.2, 0.4, 0.6, 0.9], dtype=torch.float64)
    assert torch.allclose(prior.denoise(x_t, t), direct.denoise(x_t, t), atol=1e-9)
    check_prior(prior)


class TestOde:
    def test_it_is_a_noise_prior(self):
        check_prior(OdePrior(Gaussian(EDMSchedule()), steps=8))
        check_prior(Gaussian(RectifiedFlow()).flow(steps=8))

    def test_decode_is_the_exact_map_in_the_limit(self):
        prior = OdePrior(Gaussian(EDMSchedule()), sampler=DPMSolver(256, Grid("logsnr", low=0.002)))
        u = Rows(20).normal(1, 2, 4, dtype=torch.float64)
        assert torch.allclose(prior.decode(u), flow_map(80.0 * u, 80.0, 0.0), atol=2e-3)

    @pytest.mark.parametrize("name", ["edm", "exploding", "flow", "linear"])
    def test_encode_inverts_decode(self, name):
        prior = OdePrior(Gaussian(SCHEDULES[name]), steps=64)
        u = Rows(20).normal(1, 2, 4, dtype=torch.float64)
        assert float((prior.encode(prior.decode(u)) - u).abs().max()) < 0.05
        x = MEAN + VARIANCE.sqrt() * u
        assert float((prior.decode(prior.encode(x)) - x).abs().max()) < 0.02

    def test_checkpointing_changes_no_gradient(self):
        u = Rows(3).normal(1, 2, 4).requires_grad_()
        gradients = []
        for checkpointing in (False, True):
            base = Gaussian(EDMSchedule())
            x = OdePrior(base, 6, checkpointing=checkpointing).decode(u)
            gradients.append(torch.autograd.grad(x.square().sum(), u)[0])
        assert torch.allclose(*gradients)
        assert base.calls == 12

    def test_a_coupled_denoiser_would_be_caught(self):
        class Coupled(Gaussian):
            def denoise(self, x_t, t):
                return super().denoise(x_t, t) + 0.1 * x_t.mean(0)

        with pytest.raises(LawBroken, match="batch"):
            check_prior(Coupled(EDMSchedule()))

    @pytest.mark.parametrize(("steps", "share"), [(16, 0.05), (32, 0.015)])
    def test_the_law_of_few_steps_is_as_near_as_the_docstring_says(self, steps, share):
        prior = OdePrior(Gaussian(EDMSchedule()), steps)
        u = torch.ones(1, 1, 2, 4, dtype=torch.float64)
        deviation = (prior.decode(u) - prior.decode(-u)) / 2
        assert float((deviation**2 / VARIANCE - 1).abs().max()) < share
