"""Restoration end to end on laws whose posterior is known."""

import pytest
import torch

from oneprior import train
from oneprior.core import AffineMap, IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.data import array_dataset
from oneprior.inference import (
    DAPS,
    HMC,
    ClosedForm,
    EllipticalSlice,
    Guided,
    LatentDAPS,
    MixtureCovariance,
    Resampling,
    bayes,
)
from oneprior.inference.tokens import Annealing, Enumeration, Lookahead
from oneprior.likelihoods import GaussianLikelihood, Reward
from oneprior.operators import Function, parse_operator
from oneprior.priors.base import StandardNormal
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.exact import GaussianPosterior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.priors.pushforward import Pushforward, Tilted, push
from oneprior.priors.tokens import TabularTokens
from oneprior.tasks import choose, restore, restore_iter, simulate

SHAPE = (1, 4, 4)
GREY = AffineMap.from_range(0.0, 255.0, "grey level")


def law(seed=0):
    basis = torch.linalg.qr(Rows(16, seed=seed).normal(3))[0]
    return LowRankGaussian(torch.full(SHAPE, 0.1 * seed), basis, torch.tensor([1.0, 0.5, 0.1]), 0.01)


def measurement(words="mask:left", noise="5%", units=GREY, n=4):
    return simulate(law().sample(Rows(n, seed=1)), words, noise, Rows(n, seed=2), units=units)


def test_restoration_is_the_closed_form_in_the_users_units():
    given = measurement()
    result = restore(law(), given, samples=19)
    exact = GaussianPosterior(law(), given.likelihood)
    assert torch.allclose(result.mean, GREY.to_units(exact.mean()), atol=1e-2)
    assert torch.allclose(result.std, 127.5 * exact.covariance_diag().sqrt(), rtol=1e-3)
    assert result.draws.shape == (19, 4, *SHAPE)
    assert (result.method, result.exact, result.network_calls) == ("closed form", True, 0)
    low, high = result.interval(0.9)
    assert torch.equal(low, result.draws.amin(0))
    assert torch.equal(high, result.draws.amax(0))
    assert (result.diagnostics["misfit"] < 1.5).all()
    assert result.done == 1.0


def test_units_times_255_change_nothing():
    """The same picture, as [0, 1] and as 0 .. 255: the same restoration."""
    unit = AffineMap.from_range(0.0, 1.0)
    a, b = measurement(noise="5%", units=unit), measurement(noise="5%")
    assert torch.allclose(255 * a.y, b.y, atol=1e-4)
    assert torch.allclose(255 * restore(law(), a).draws, restore(law(), b).draws, atol=1e-2)


def test_numbers_with_words_are_a_measurement():
    given = measurement()
    result = restore(law(), given.y, "mask:left", "5%", units=GREY)
    assert torch.allclose(result.draws, restore(law(), given).draws)
    picture = given.operator.adjoint(given.y)  # the picture with holes serves as well
    assert torch.allclose(restore(law(), picture, "mask:left", "5%", units=GREY).mean, result.mean)
    assert torch.allclose(restore(law(), picture[0], "mask:left", 12.75, units=GREY).mean, result.mean[:1])
    override = restore(law(), given, noise="50%")
    assert (override.std > result.std.clamp_max(1e9)).float().mean() > 0.9


def test_a_batch_of_rows_is_the_same_restoration():
    given = measurement(n=5)
    together, chunked = restore(law(), given, samples=3), restore(law(), given, samples=3, batch=2)
    assert torch.allclose(together.draws, chunked.draws, atol=1e-3)
    assert torch.allclose(together.mean, chunked.mean, atol=1e-3)
    assert chunked.diagnostics["log_evidence"].shape == (5,)
    assert not torch.allclose(together.draws, restore(law(), given, samples=3, seed=1).draws)
    states = list(restore_iter(law(), given, samples=3, batch=2))
    assert [state.done for state in states] == [0.4, 0.8, 1.0, 1.0]
    assert [len(state.mean) for state in states] == [2, 2, 1, 5]


def test_rows_of_other_noise_levels_change_nothing(tmp_path):
    """A run's residual is integrated out of rows of one noise level; others beside it are worked on by themselves."""
    X = Rows(64, seed=3).normal(1, 8, 8).mul(0.3).clamp(-1, 1)
    run = train("vae", data=array_dataset(X), out=tmp_path / "vae", images=64, batch_size=32)
    level = torch.tensor([0.2, 0.1, 0.2])
    given = simulate(X[:3], "mask:left", level, Rows(3, seed=2), units=run.units)
    together = restore(run, given, samples=3, aim="fast")
    assert "residual" not in together.diagnostics
    for k in range(3):
        alone = restore(run, given.take([k]), samples=3, aim="fast", rows=Rows([k]).stream("restore"))
        assert torch.allclose(together.draws[:, k], alone.draws[:, 0], atol=1e-3)
        assert torch.allclose(together.diagnostics["misfit"][k], alone.diagnostics["misfit"][0], atol=1e-3)


def test_a_draw_is_judged_by_its_own_instrument():
    x = law().sample(Rows(6, seed=1))
    given = simulate(x, parse_operator("bias:0.5:order=1:seed=1", SHAPE), 0.05, Rows(6, seed=2))
    result = restore(law(), given.y, "unknown-bias:0.5:order=1", 0.05, samples=3)
    operator, theta = given.told("unknown-bias:0.5:order=1").operator, result.diagnostics["theta"]
    gap = (given.y - operator.evaluate(result.draws[0], theta[0])) / 0.05
    assert torch.allclose(result.diagnostics["misfit_draw"], gap.square().flatten(1).mean(1).sqrt(), atol=1e-3)


def test_the_iterator_ends_with_the_result():
    given = measurement()
    prior = ClosedFormDenoiser(law(), EDMSchedule())
    states = list(restore_iter(prior, given, samples=3, aim="fast", method=DAPS(steps=4)))
    assert [s.done for s in states] == [0.25, 0.5, 0.75, 1.0]
    result = restore(prior, given, samples=3, method=DAPS(steps=4))
    assert torch.allclose(states[-1].draws, result.draws)
    assert result.network_calls == 4 * 3 * 4
    assert not result.exact


def test_known_pixels_stay_when_there_is_no_noise():
    given = measurement(noise=0)
    result = restore(law(), given, samples=3)
    for draw in result.draws:
        assert torch.allclose(given.operator(draw), given.y, atol=1e-2)
    noisy = restore(law(), measurement(), samples=3)
    assert torch.equal(noisy.measurement.operator(noisy.pasted()), noisy.measurement.y)
    with pytest.raises(InputError, match="only a mask"):
        restore(law(), measurement("downsample:2"), samples=3).pasted()


def mixture():
    return GaussianMixturePrior([law(0), law(1)], torch.ones(2))


@pytest.mark.parametrize(
    ("prior", "words", "guide", "kind"),
    [
        (law(), "mask:left", None, ClosedForm),
        (mixture(), "downsample:2", None, ClosedForm),
        (ClosedFormDenoiser(law(), EDMSchedule()), "mask:left", None, ClosedForm),
        (push(StandardNormal((3,)), lambda z: torch.tanh(z[:, :, None, None].expand(-1, -1, 4, 4)[:, :1]), SHAPE),
         "mask:left", None, HMC),
        (Pushforward(mixture(), torch.tanh, SHAPE), "mask:left", None, LatentDAPS),
    ],
)  # fmt: skip
def test_the_table_chooses(prior, words, guide, kind):
    likelihood = measurement(words).likelihood
    assert isinstance(choose(bayes(prior, likelihood), "best", None, guide)[1], kind)


class Network(ClosedFormDenoiser.__bases__[0]):
    """A denoiser of which nothing is known, for the table."""

    def __init__(self, moments=None):
        self.inner, self.schedule = ClosedFormDenoiser(law(), EDMSchedule()), EDMSchedule()
        self.event_shape, self.moments = torch.Size(SHAPE), moments

    def denoise(self, x_t, t):
        return self.inner.denoise(x_t, t)


def test_a_mixture_under_an_instrument_without_gradients_is_resampled():
    operator = Function(torch.sign, SHAPE, differentiable=False)
    likelihood = GaussianLikelihood(torch.zeros(2, *SHAPE), operator, 0.3)
    assert isinstance(choose(bayes(mixture(), likelihood))[1], Resampling)


def test_the_table_chooses_for_denoisers():
    likelihood = measurement().likelihood
    knows, bare = Network(law()), Network()
    _, method = choose(bayes(knows, likelihood), "calibrated")
    assert isinstance(method, DAPS)
    assert method.steps == 30
    assert choose(bayes(knows, likelihood), "fast")[1].sampler.steps == 20
    _, method = choose(bayes(knows, likelihood), "best", None, mixture())
    assert isinstance(method, Guided)
    assert isinstance(method.guidance.covariance, MixtureCovariance)
    assert isinstance(choose(bayes(bare, likelihood))[1], Guided)
    assert isinstance(choose(bayes(knows, measurement("identity").likelihood))[1], Guided)
    assert isinstance(choose(bayes(knows, likelihood.pullback(torch.tanh)))[1], LatentDAPS)
    posterior, _ = choose(bayes(knows, likelihood.pullback(torch.tanh)), method="hmc")
    assert posterior.prior.noise_shape == SHAPE  # the flow's noise
    assert isinstance(choose(bayes(law(), likelihood), method="elliptical-slice")[1], EllipticalSlice)


@pytest.mark.parametrize(("noise", "kind"), [("5%", Lookahead), ("laplace:5%", Annealing)])
def test_codes_too_many_to_count_have_a_method(noise, kind):
    """32 codes on 4 places are 1,048,576 grids, more than are counted."""
    codes = TabularTokens(torch.zeros([32] * 4), (2, 2))
    prior = Pushforward(codes, lambda event: event.flatten(1)[:, :16].reshape(-1, *SHAPE), torch.Size(SHAPE))
    assert isinstance(choose(bayes(prior, measurement(noise=noise).likelihood))[1], kind)
    few = Pushforward(TabularTokens(torch.zeros([4] * 4), (2, 2)), prior.decoder, torch.Size(SHAPE))
    assert isinstance(choose(bayes(few, measurement(noise=noise).likelihood))[1], Enumeration)


@pytest.mark.parametrize("words", ["mask:left", "identity"])
def test_a_network_without_moments_is_restored(words):
    given = measurement(words)
    exact = GaussianPosterior(law(), given.likelihood)
    for prior in (Network(), Network(law())):
        result = restore(prior, given, samples=40)
        z = (GREY.to_model(result.mean) - exact.mean()) / (exact.covariance_diag() / 40).sqrt()
        assert z.square().mean().sqrt() < 1.6
        assert result.network_calls == 40 * 40 * 4


def test_a_tilted_prior_uses_its_factor():
    """A linear reward moves a Gaussian posterior's mean by covariance times slope."""
    given = measurement(noise="20%")
    tilted = Tilted(law(), Reward(lambda x: 60 * x.flatten(1).mean(1)))
    plain = restore(law(), given, samples=1000)
    spread = (plain.draws / 127.5).flatten(2).mean(2).var(0)
    moved = restore(tilted, given, samples=100, method=HMC(chains=25, warmup=60, leapfrog=6, thin=2))
    shift = ((moved.mean - plain.mean) / 127.5).flatten(1).mean(1)
    error = (spread / 100).sqrt() * 2  # the chains' own correlation, allowed for
    assert ((shift - 60 * spread) / error).abs().max() < 4
    assert shift.min() > 3 * error.min()


def test_a_measurement_that_does_not_fit_is_seen():
    given = measurement("identity", noise="1%")
    strange = GREY.to_units(4 * Rows(4, seed=8).normal(*SHAPE))
    assert (restore(law(), given).diagnostics["misfit"] < 1.2).all()
    assert (restore(law(), strange, "identity", "1%", units=GREY).diagnostics["misfit"] > 2).all()


def test_mistakes_are_told():
    given = measurement()
    with pytest.raises(InputError, match="give the operator and the noise"):
        restore(law(), given.y)
    with pytest.raises(InputError, match="no method is called 'magic'"):
        restore(law(), given, method="magic")
    with pytest.raises(InputError, match="aim is fast, best or calibrated"):
        restore(law(), given, aim="perfect")
    with pytest.raises(ShapeError, match="A prior restores events of its own size"):
        restore(LowRankGaussian.standard((1, 8, 8), torch.zeros(())), given)
    with pytest.raises(InputError, match="NaN"):
        restore(law(), torch.full((1, *SHAPE), torch.nan), "identity", 0.1)
    with pytest.raises(InputError, match="bound when a prior is made"):
        restore(law(), given, condition={"label": torch.tensor([1])})
    with pytest.raises(IncompatiblePrior, match="needs noise"):
        restore(push(StandardNormal(SHAPE), torch.tanh, SHAPE), measurement(noise=0))
    with pytest.raises(InputError, match="no rows"):
        restore(law(), torch.zeros(0, *SHAPE), "identity", 0.1)
    with pytest.raises(InputError, match="at least 1; got 0"):
        restore(law(), given, batch=0)
    y = torch.zeros(1, *SHAPE)
    with pytest.raises(IncompatiblePrior, match="no method restores a GaussianMixturePrior"):
        choose(bayes(mixture(), GaussianLikelihood(y, Function(torch.sign, SHAPE, differentiable=False), 0.0)))


def test_network_calls_are_those_that_were_made_and_a_swapped_law_is_not_called_exact():
    from oneprior.models.configs.diffusion import DiffusionConfig
    from oneprior.models.diffusion import Diffusion

    torch.manual_seed(0)
    prior = Diffusion(DiffusionConfig(width=8, blocks=1, moments_rank=0), SHAPE).eval().prior()
    given = measurement("mask:left", n=2)
    before = prior.calls.rows
    result = restore(prior, given, samples=2, aim="fast", method=HMC(chains=1, warmup=4, leapfrog=2, thin=1))
    assert result.network_calls == prior.calls.rows - before > 0
    assert not result.exact
    assert "probability-flow ODE" in result.diagnostics["law"]
    plain = restore(push(StandardNormal((16,)), lambda z: z.reshape(-1, *SHAPE), SHAPE), given, samples=2, method=HMC())
    assert plain.exact


def test_a_jpeg_file_is_restored_through_its_coefficients():
    """Rounding stands as Gaussian noise of each coefficient: the answer is better than the file, and honest."""
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    gaussian = LowRankGaussian.fit([x[:1500]], 40)
    given = simulate(x[1500:1560], "jpeg:20", 0.0, Rows(60, seed=2), units=GREY)
    result = restore(gaussian, given, samples=19)
    assert result.method == "closed form"
    assert not result.exact
    assert "rounding" in result.diagnostics["instrument"]
    error, file = ((p - given.truth).square().mean().sqrt() for p in (result.mean, given.y))
    assert error < 0.9 * file
    low, high = result.interval()
    inside = ((given.truth >= low) & (given.truth <= high)).float().mean()
    assert 0.85 < inside < 0.99
