"""Draws around a denoised event where there is no closed form: exact where all is linear, and measured elsewhere."""

import pytest
import torch

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference import DAPS, LatentDAPS, bayes, exact_posterior
from oneprior.inference.guidance import SampledBeliefs
from oneprior.inference.guidance import sampled_beliefs as module
from oneprior.likelihoods import GaussianLikelihood, Reward
from oneprior.likelihoods.poisson import PoissonLikelihood
from oneprior.likelihoods.unknown_noise import UnknownNoiseLikelihood
from oneprior.operators import parse_operator
from oneprior.operators.identity import Identity
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser
from oneprior.priors.pushforward import Pushforward

SHAPE = (1, 3, 4)
SCHEDULE = EDMSchedule(sigma_max=40.0)


def law(seed=0):
    rows = Rows(12, seed=seed)
    basis = torch.linalg.qr(rows.normal(3))[0]
    return LowRankGaussian(0.6 * rows.normal(1).reshape(SHAPE), basis, torch.tensor([1.0, 0.4, 0.1]), 0.02)


def evidence(words="mask:left", noise=0.2, n=3):
    operator = parse_operator(words, SHAPE)
    y = operator(law().sample(Rows(n, seed=3))) + noise * Rows(n, seed=4).normal(*operator.out_shape)
    return GaussianLikelihood(y, operator, noise)


def z_scores(draws, exact):
    x, count = draws.double(), len(draws)
    mean = (x.mean(0) - exact.mean()) / (x.var(0) / count).sqrt()
    square = (x - exact.mean()).square()
    return torch.stack([mean, (square.mean(0) - exact.covariance_diag()) / (square.std(0) / count**0.5)])


@pytest.mark.parametrize("words", ["mask:left", "downsample:2"])
@pytest.mark.parametrize("dense", [True, False], ids=["shared", "alone"])
def test_exact_for_a_gaussian_seen_linearly(words, dense, monkeypatch):
    """By a function in between that is linear but does not say so: conjugate gradients must find Bayes' rule."""
    monkeypatch.setattr(module, "DENSE", 1024 if dense else 0)
    plain = evidence(words)
    hidden = GaussianLikelihood(plain.y, plain.operator, plain.noise_level, through=lambda x: 1.0 * x)
    posterior = bayes(ClosedFormDenoiser(law(), SCHEDULE), hidden)
    draws = LatentDAPS(4, products=12)(posterior, 2000, Rows(3, seed=6))
    z = z_scores(draws.x, exact_posterior(law(), plain))
    assert z.abs().max() < 4.5
    assert z.square().mean() < 1.7


def test_behind_a_decoder_and_its_calls():
    """x = tanh-like decoder of z: the posterior of z by importance weights on prior draws."""
    base = law()
    decode = lambda z: 0.5 * z + 0.5 * torch.sinh(z)  # noqa: E731
    operator = parse_operator("downsample:2", SHAPE)
    y = operator(decode(base.sample(Rows(1, seed=3)))) + 0.3 * Rows(1, seed=4).normal(*operator.out_shape)
    posterior = bayes(Pushforward(ClosedFormDenoiser(base, SCHEDULE), decode, torch.Size(SHAPE)),
                      GaussianLikelihood(y, operator, 0.3))  # fmt: skip
    draws = LatentDAPS(20, 2)(posterior, 1500, Rows(1, seed=5))
    z = base.sample(Rows(100_000, seed=8))
    many = GaussianLikelihood(y.expand(len(z), *y.shape[1:]), operator, 0.3)
    x = decode(z)
    weight = many.log_prob(x).double().softmax(0)
    mean = torch.einsum("n,n...->...", weight, x.double())
    spread = torch.einsum("n,n...->...", weight, (x - mean).square()).sqrt()
    bias = (draws.x[:, 0].mean(0) - mean) / spread
    assert bias.abs().max() < 0.2  # measured with 6,000 draws: 0.04; 1,500 draws err by 0.026
    assert 0.85 < float((draws.x[:, 0].std(0) / spread).mean()) < 1.15
    assert draws.diagnostics["denoiser_calls"] == 20 * 1500
    assert draws.diagnostics["decoder_calls"] == (20 * 2 + 1) * 1500
    assert draws.network_calls == 61 * 1500


def test_large_events_are_worked_on_in_pieces_of_whole_draws(monkeypatch):
    """A piece holds every problem once or more, so that a decoder with conditions meets its rows in their order."""
    told = torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1, 1)
    rows = []

    def decode(z):
        rows.append(len(z))
        return z.sinh() * told[torch.arange(len(z)) % 3]

    plain = evidence()
    hidden = GaussianLikelihood(plain.y, plain.operator, plain.noise_level, through=decode)
    posterior, found = bayes(ClosedFormDenoiser(law(), SCHEDULE), hidden), []
    for most in (1 << 21, 7 * 12):  # of 3 problems in 12 numbers, 5 draws: 15 rows, or 6 at once
        monkeypatch.setattr(module, "AT_ONCE", most)
        rows.clear()
        found.append(LatentDAPS(3)(posterior, 5, Rows(3, seed=6)))
        assert set(rows[-3:]) == ({15} if most > 84 else {6, 3})
    assert torch.allclose(found[0].x, found[1].x, atol=1e-4)
    assert found[0].network_calls == found[1].network_calls


def test_unknown_noise_is_drawn_with_the_image():
    """sigma unknown over a decade: the posterior of x from many pixels is that of the true sigma, nearly."""
    base = law()
    x = base.sample(Rows(2, seed=3))
    operator = Identity(SHAPE)
    y = x + 0.2 * Rows(2, seed=4).normal(*SHAPE)
    prior = ClosedFormDenoiser(base, SCHEDULE)
    unknown = LatentDAPS(30)(bayes(prior, UnknownNoiseLikelihood(y, operator, 0.02, 2.0)), 400, Rows(2, seed=1))
    known = exact_posterior(base, GaussianLikelihood(y, operator, 0.2))
    bias = (unknown.x.mean(0) - known.mean()) / known.covariance_diag().sqrt()
    assert bias.abs().mean() < 0.6
    assert unknown.x.isfinite().all()


def test_poisson_counts_go_by_their_own_curvature():
    """Many counts are nearly Gaussian of variance rate: the two posteriors agree to a fraction of a deviation."""
    base = law()
    operator = Identity(SHAPE)
    x = base.sample(Rows(2, seed=3)).clamp(-1, 1)
    gain, dark = 400.0, 1000.0
    rate = gain * x + dark
    counts = (rate + rate.sqrt() * Rows(2, seed=4).normal(*SHAPE)).round()
    prior = ClosedFormDenoiser(base, SCHEDULE)
    draws = LatentDAPS(10, 2)(bayes(prior, PoissonLikelihood(counts, operator, gain, dark)), 600, Rows(2, seed=1))
    plain = GaussianLikelihood((counts - dark) / gain, operator, rate.sqrt() / gain)
    reference = LatentDAPS(10, 2)(bayes(prior, plain), 600, Rows(2, seed=2))
    deviation = reference.x.std(0)
    assert ((draws.x.mean(0) - reference.x.mean(0)) / deviation).abs().max() < 0.35
    assert 0.9 < float((draws.x.std(0) / deviation).mean()) < 1.1


def test_closed_form_and_optimised_draws_agree():
    likelihood = evidence()
    posterior = bayes(ClosedFormDenoiser(law(), SCHEDULE), likelihood)
    closed, drawn = (s(posterior, 1500, Rows(3, seed=1)).x for s in (DAPS(steps=6), LatentDAPS(6, products=12)))
    deviation = closed.std(0)
    assert ((closed.mean(0) - drawn.mean(0)) / deviation).abs().max() < 4.5 * (2 / 1500) ** 0.5


def test_other_evidence_is_refused():
    with pytest.raises(IncompatiblePrior, match="a measurement with noise"):
        SampledBeliefs(ClosedFormDenoiser(law(), SCHEDULE), Reward(lambda x: -x.flatten(1).square().sum(1)))
    with pytest.raises(ValueError, match=">= 1"):
        LatentDAPS(newton=0)
