"""Schedules and parameterisations: exact, invertible, and those of the papers."""

import itertools

import pytest
import torch

from oneprior.core import InputError
from oneprior.priors.diffusion.parameterisation import convert, from_x0, to_x0
from oneprior.priors.diffusion.prior import Clock
from oneprior.priors.diffusion.schedules import CosineSchedule, EDMSchedule, LinearSchedule, RectifiedFlow, ddpm_table

KINDS = ("x0", "eps", "v", "velocity", "F")
SCHEDULES = {
    "edm": EDMSchedule(),
    "exploding": EDMSchedule(preserving=False),
    "linear": LinearSchedule(),
    "cosine": CosineSchedule(),
    "flow": RectifiedFlow(),
}
GENERATOR = torch.Generator().manual_seed(0)


def noised(schedule, t=0.5):
    t = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x, eps = torch.randn(2, 5, 1, 4, generator=GENERATOR, dtype=torch.float64)
    return x, eps, alpha * x + sigma * eps, alpha, sigma


@pytest.mark.parametrize(("source", "target"), itertools.permutations(KINDS, 2))
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_conversions_are_exact(schedule, source, target):
    for t in (0.1, 0.5, 0.9):
        x, _, x_t, alpha, sigma = noised(schedule, t)
        output = from_x0(source, x, x_t, alpha, sigma)
        there = convert(output, source, target, x_t, alpha, sigma)
        assert torch.allclose(convert(there, target, source, x_t, alpha, sigma), output, rtol=1e-6, atol=1e-6)
        assert torch.allclose(to_x0(target, there, x_t, alpha, sigma), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_targets_are_those_of_the_papers(schedule):
    x, eps, x_t, alpha, sigma = noised(schedule)
    expected = {"x0": x, "eps": eps, "v": alpha * eps - sigma * x, "velocity": eps - x}
    for kind, target in expected.items():
        assert torch.allclose(from_x0(kind, x, x_t, alpha, sigma), target, atol=1e-9), kind


def test_f_is_edm_with_its_four_constants():
    """D = c_skip x + c_out F in the exploding form (Karras et al. 2022, table 1), for sigma_data = 0.5."""
    x, eps = torch.randn(2, 6, dtype=torch.float64, generator=GENERATOR)
    s, d = torch.tensor(0.7, dtype=torch.float64), 0.5
    noisy = x + s * eps
    c_skip, c_out = d**2 / (s**2 + d**2), s * d / (s**2 + d**2).sqrt()
    raw = (x - c_skip * noisy) / c_out
    assert torch.allclose(from_x0("F", x, noisy, torch.ones_like(s), s, d), raw)
    alpha = (1 + s**2).rsqrt()  # and with sigma_data = 1, variance preserving, it is -v
    args = (x, alpha * noisy, alpha, alpha * s)
    assert torch.allclose(from_x0("F", *args), -from_x0("v", *args))


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="not known"):
        to_x0("score", *[torch.ones(1)] * 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_time_inverts_the_noise_level(schedule):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert torch.allclose(schedule.time(schedule.noise_level(t)), t, atol=1e-9)
    assert (schedule.noise_level(t).diff() > 0).all()
    assert schedule.noise_level(torch.tensor(0.3)).dtype == torch.float32
    if not (isinstance(schedule, RectifiedFlow) or schedule == EDMSchedule(preserving=False)):
        assert torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t))


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_tables_are_those_of_diffusers(kind):
    from diffusers import DDPMScheduler

    reference = DDPMScheduler(beta_schedule=kind, beta_start=0.00085, beta_end=0.012).alphas_cumprod
    ours = ddpm_table(kind, 0.00085, 0.012, 1000).alpha(torch.arange(1000, dtype=torch.float64) / 999) ** 2
    assert torch.allclose(ours.float(), reference, atol=1e-6)


def test_edm_levels_are_those_of_the_paper():
    steps = EDMSchedule().noise_level(1 - torch.arange(18, dtype=torch.float64) / 17)
    assert torch.allclose(steps[[0, 1, 17]], torch.tensor([80.0, 57.586, 0.002], dtype=torch.float64), atol=1e-3)


def test_schedules_that_are_empty_are_refused():
    with pytest.raises(InputError, match="sigma_min < sigma_max"):
        EDMSchedule(sigma_min=3.0, sigma_max=1.0)
    with pytest.raises(InputError, match="beta schedule"):
        ddpm_table("sigmoid", 0, 0, 0)  # type: ignore[arg-type]


class TestClock:
    def test_a_table_counts_its_own_steps(self):
        for schedule in (LinearSchedule(), CosineSchedule(), LinearSchedule(steps=50)):
            k = torch.arange(schedule.steps, dtype=torch.float64)
            index = Clock.for_schedule(schedule)(schedule, k / (schedule.steps - 1))
            assert torch.equal(index.float(), k.float())

    def test_edm_is_told_the_linear_step_of_equal_noise(self):
        clock, k = Clock.for_schedule(EDMSchedule()), torch.tensor([0.0, 250.0, 999.0], dtype=torch.float64)
        t = EDMSchedule().time(LinearSchedule().noise_level(k / 999))
        assert torch.allclose(clock(EDMSchedule(), t), k, atol=1e-6)
        assert float(clock(EDMSchedule(), torch.tensor(0.0))) < 0  # below the table, and still growing with the noise

    def test_a_flow_counts_thousandths(self):
        t = torch.tensor([0.0, 0.25, 1.0])
        assert torch.equal(Clock.for_schedule(RectifiedFlow())(RectifiedFlow(), t), 1000 * t)
