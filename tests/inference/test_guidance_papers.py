"""The papers' guided walks on closed forms: what is exact is tested as exact, what is published is published."""

import pytest
import torch

from oneprior.core import AffineMap, DivergedError, IncompatiblePrior, Rows
from oneprior.inference import (
    DAPS,
    DDNM,
    DPS,
    DiffPIR,
    IsotropicCovariance,
    LangevinDAPS,
    LatentDAPS,
    REDDiff,
    ReSample,
    bayes,
    exact_posterior,
)
from oneprior.inference.guidance import Langevin
from oneprior.inference.guidance.proximal import Proximal
from oneprior.inference.guidance.walk import DDPM, on_schedule, table_grid
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import parse_operator
from oneprior.operators.mask import Mask
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser

SHAPE = (1, 3, 5)
SCHEDULE = EDMSchedule(sigma_max=40.0)
EVERY = [DPS(4), DPS(4, 0.3), DiffPIR(4), DiffPIR(4, 8.0, 0.3), DDNM(4), REDDiff(4), REDDiff(4, 0.25),
         ReSample(4, 2, 3), LatentDAPS(4), LangevinDAPS(Langevin(2, 3), 4)]  # fmt: skip


def law(seed=0, shift=0.6):
    rows = Rows(15, seed=seed)
    basis = torch.linalg.qr(rows.normal(3))[0]
    return LowRankGaussian(shift * rows.normal(1).reshape(SHAPE), basis, torch.tensor([1.0, 0.4, 0.1]), 0.02)


def evidence(words="mask:left", noise=0.2, n=3):
    operator = parse_operator(words, SHAPE)
    y = operator(law().sample(Rows(n, seed=3))) + noise * Rows(n, seed=4).normal(*operator.out_shape)
    return GaussianLikelihood(y, operator, noise)


@pytest.mark.parametrize("sampler", EVERY, ids=lambda s: f"{s.name}-{getattr(s, 'zeta', getattr(s, 'weight', ''))}")
def test_a_row_alone_or_in_a_batch_is_the_same(sampler):
    prior, likelihood, index = ClosedFormDenoiser(law(), SCHEDULE), evidence(), torch.tensor([1])
    together = sampler(bayes(prior, likelihood), 2, Rows(3, seed=1))
    alone = sampler(bayes(prior, likelihood.take(index)), 2, Rows(3, seed=1).take(index))
    assert torch.allclose(alone.x[:, 0], together.x[:, 1], atol=1e-4)
    assert together.x.shape == (2, 3, *SHAPE)
    assert not together.exact
    assert together.network_calls == together.diagnostics["denoiser_calls"]


@pytest.mark.parametrize("sampler", EVERY, ids=lambda s: f"{s.name}-{getattr(s, 'zeta', getattr(s, 'weight', ''))}")
def test_nan_stops_with_the_step_and_the_rows(sampler):
    class Broken(ClosedFormDenoiser):
        calls = 0

        def denoise(self, x_t, t):
            self.calls += 1
            x = super().denoise(x_t, t)
            if self.calls > 1:
                x = x.clone()
                x[-1] = torch.nan
            return x

    broken = Broken(law(), SCHEDULE)
    step = 0 if isinstance(sampler, LangevinDAPS) else 1  # two calls of the denoiser in its first step
    with pytest.raises(DivergedError, match=rf"rows \[2\] are not finite at step {step}"):
        sampler(bayes(broken, evidence()), 2, Rows(3, seed=1))


def test_daps_says_where_it_diverged():
    class Broken(ClosedFormDenoiser):
        def denoise(self, x_t, t):
            return super().denoise(x_t, t) * torch.nan

    with pytest.raises(DivergedError, match=r"daps: rows \[0, 1, 2\] are not finite at step 0"):
        DAPS(steps=3)(bayes(Broken(law(), SCHEDULE), evidence()), 2, Rows(3))


def test_ddnm_and_daps_keep_known_pixels_without_noise():
    operator = parse_operator("mask:left", SHAPE)
    y = operator(law().sample(Rows(2, seed=3)))
    posterior = bayes(ClosedFormDenoiser(law(), SCHEDULE), GaussianLikelihood(y, operator, 0.0))
    for sampler, gap in ((DDNM(10), 1e-6), (DDNM.published(), 1e-6), (DiffPIR(10), 1e-6), (DAPS(steps=10), 1e-3)):
        x = sampler(posterior, 3, Rows(2)).x
        assert (operator(x.flatten(0, 1)).unflatten(0, (3, 2)) - y).abs().max() < gap


def test_the_default_of_dps_is_exact_guidance_for_isotropic_data():
    """x ~ N(m, v I) and a mask: J J' is the identity on what is seen, so only the finite walk is left of the bias."""
    mean = 0.5 * Rows(15, seed=2).normal(1).reshape(SHAPE)
    plain = LowRankGaussian(mean, torch.zeros(15, 0), torch.zeros(0), 0.3)
    likelihood = evidence(noise=0.2)
    draws = DPS(100, variance=0.3)(bayes(ClosedFormDenoiser(plain, SCHEDULE), likelihood), 600, Rows(3, seed=1))
    exact = exact_posterior(plain, likelihood)
    deviation = exact.covariance_diag().sqrt()
    z = (draws.x.mean(0) - exact.mean()) / (deviation / 600**0.5)
    assert z.abs().max() < 4.5
    assert 0.88 < float((draws.x.std(0) / deviation).mean()) < 1.04  # 100 steps of a first-order walk


def test_published_ratios_of_deviations():
    """Section 4.1 of ../shared/field/inverse.md, in short: x ~ N(0, .9^|i - j|), 3 of 8 seen, an exact denoiser."""
    i = torch.arange(8)
    values, vectors = torch.linalg.eigh(0.9 ** (i[:, None] - i).abs().double())
    s = float(values[0])
    gaussian = LowRankGaussian(torch.zeros(1, 8), vectors[:, 1:].float(), (values[1:] - s).float(), s)
    keep = torch.zeros(8, dtype=torch.bool)
    keep[[0, 3, 5]] = True
    likelihood = GaussianLikelihood(torch.tensor([[0.5, -0.2, 0.1]]), Mask(keep, (1, 8)), 0.05)
    posterior, exact = bayes(ClosedFormDenoiser(gaussian, SCHEDULE), likelihood), exact_posterior(gaussian, likelihood)
    for sampler, seen, rest, draws in (
        (DiffPIR.published(), 2.38, 1.25, 2000),
        (DiffPIR.published(zeta=1.0), 1.75, 0.77, 2000),
        (DPS.published(), 1.87, 0.92, 250),
    ):
        done = sampler(posterior, draws, Rows(1, seed=1))
        ratio = (done.x[:, 0].std(0) / exact.covariance_diag().sqrt())[0, 0]
        error = 4.5 / (2 * draws) ** 0.5  # of one deviation; the entries' are correlated
        assert abs(float(ratio[keep].mean()) / seen - 1) < error + 0.01
        assert abs(float(ratio[~keep].mean()) / rest - 1) < error + 0.01
        assert done.network_calls == sampler.steps * draws


@pytest.mark.parametrize("words", ["mask:left", "downsample:2", "identity"])
def test_the_proximal_step_minimises_its_objective(words):
    likelihood = evidence(words, noise=0.3)
    x0 = Rows(3, seed=9).normal(*SHAPE)
    x = Proximal(likelihood, x0[0])(x0, 0.5).requires_grad_()
    value = likelihood.residual(x).flatten(1).square().sum() / (2 * 0.09) + (x - x0).square().sum() / (2 * 0.5)
    (slope,) = torch.autograd.grad(value, x)
    assert slope.abs().max() < 1e-4


def test_langevin_with_small_steps_reaches_its_own_target():
    """One level, many small steps: N(D, s^2 I) L(x) of an isotropic belief, mean and deviation by z-score."""
    likelihood = evidence(noise=0.3, n=1)
    prior = ClosedFormDenoiser(law(), EDMSchedule(sigma_max=40.0, preserving=False))
    many, level = likelihood.repeat(3000), 0.5
    x_t = law().sample(Rows(1, seed=8)) + level * Rows(1, seed=9).normal(*SHAPE)
    inner = Langevin(ode_steps=1, steps=60, rate=0.01, final_rate=1.0)
    x = inner.draw(prior, many, x_t.expand(3000, *SHAPE), level, 0.0, Rows(3000, seed=1))
    centre = prior.denoise(x_t, prior.schedule.time(torch.tensor(level)))
    seen = likelihood.operator.keep
    precision = 1 / level**2 + seen / 0.3**2
    mean = (centre / level**2 + likelihood.operator.adjoint(likelihood.y) / 0.3**2) / precision
    step = 0.01 * precision
    variance = 1 / (precision * (1 - step / 2))  # of the discretised chain
    variance = variance * (1 - (1 - step) ** 120)
    z = (x.mean(0) - mean[0]) / (variance[0] / 3000).sqrt() if variance.dim() > 3 else (x.mean(0) - mean[0]) / (
        variance / 3000
    ).sqrt()  # fmt: skip
    late = (1 - step) ** 60 * (centre[0] - mean[0]) / (variance / 3000).sqrt()  # what the start has left
    assert (z - late).abs().max() < 4.5
    square = (x.var(0) / variance - 1) / (2 / 3000) ** 0.5
    assert square.abs().max() < 4.5


def test_scale_invariance():
    """The user's units, 255 times larger, give the same draws."""
    operator = parse_operator("mask:left", SHAPE)
    prior, units = ClosedFormDenoiser(law(), SCHEDULE), AffineMap(255.0, 3.0)
    plain = evidence(noise=0.1)
    scaled = GaussianLikelihood(plain.y * 255.0 + 3.0, operator, 25.5).pullback(units)
    for sampler in (DPS(5), DiffPIR(5), DDNM(5), REDDiff(5), DAPS(steps=5), LatentDAPS(5)):
        one, other = (sampler(bayes(prior, likelihood), 2, Rows(3, seed=1)).x for likelihood in (plain, scaled))
        assert torch.allclose(one, other, atol=2e-3), sampler.name


@pytest.mark.parametrize("sampler", [DAPS(steps=8), DAPS(steps=8, covariance=IsotropicCovariance()), LatentDAPS(8)],
                         ids=["daps", "isotropic", "latent"])  # fmt: skip
def test_much_noise_gives_the_prior(sampler):
    operator = parse_operator("mask:left", SHAPE)
    likelihood = GaussianLikelihood(torch.zeros(1, *operator.out_shape), operator, 1e4)
    draws = sampler(bayes(ClosedFormDenoiser(law(), SCHEDULE), likelihood), 2000, Rows(1, seed=1)).x[:, 0]
    deviation = law().covariance().diagonal().sqrt().reshape(SHAPE)
    assert ((draws.mean(0) - law().mean) / (deviation / 2000**0.5)).abs().max() < 4.5
    if not getattr(sampler, "covariance", None):
        assert ((draws.var(0) / deviation**2 - 1) / (2 / 2000) ** 0.5).abs().max() < 4.5


def test_published_settings_and_their_grids():
    assert DPS.published().steps == 1000
    assert DPS.published(1.0).zeta == 1.0
    assert (DiffPIR.published().weight, DiffPIR.published().zeta) == (8.0, 0.3)
    assert DAPS.published().steps * DAPS.published().inner.ode_steps == 1000
    assert DAPS.published(2.0).inner.divisor == 2.0
    assert REDDiff.published(100).weight == 0.25
    assert LatentDAPS.published().inner.ode_steps == 2
    assert ReSample.published().gamma == 40.0
    assert DDNM.published().eta == 0.85
    path = table_grid(1000).path(DDPM, 1000)
    alpha2 = torch.tensor(path.alpha, dtype=torch.float64) ** 2
    assert torch.allclose(
        alpha2.flip(0), torch.cumprod(1 - torch.tensor(DDPM.betas, dtype=torch.float64), 0), atol=1e-9
    )


def test_a_prior_is_spoken_to_in_the_schedule_of_the_paper():
    prior = ClosedFormDenoiser(law(), SCHEDULE)
    assert on_schedule(prior, None) is prior
    other = on_schedule(prior, DDPM)
    x_t, t = Rows(2).normal(*SHAPE), torch.tensor(0.5)
    assert torch.allclose(other.denoise(x_t, t), law().denoise(x_t, DDPM.alpha(t), DDPM.sigma(t)), atol=1e-5)


def test_what_a_method_needs_is_said():
    prior, nonlinear = ClosedFormDenoiser(law(), SCHEDULE), evidence().pullback(torch.tanh)
    for sampler in (DDNM(), DiffPIR(), DAPS()):
        with pytest.raises(IncompatiblePrior, match="linear"):
            sampler(bayes(prior, nonlinear), 2, Rows(3))
    for sampler in (DPS(3), REDDiff(3), ReSample(3, 1, 2), LatentDAPS(3), LangevinDAPS(Langevin(1, 2), 3)):
        assert sampler(bayes(prior, nonlinear), 2, Rows(3)).x.isfinite().all()
    with pytest.raises(ValueError, match="zeta in"):
        DiffPIR(zeta=2.0)
