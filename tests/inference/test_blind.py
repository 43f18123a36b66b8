"""Image and instrument together: against numerical quadrature where the pair is small, and recovery where it is not."""

import pytest
import torch

from oneprior.core import AffineMap, IncompatiblePrior, Rows
from oneprior.inference import (
    HMC,
    AnnealedSMC,
    Blind,
    BlindDAPS,
    BlindGaussian,
    EllipticalSlice,
    IsotropicCovariance,
    Variational,
    affine_rows,
    bayes,
    exact_posterior,
)
from oneprior.inference.affine_rows import AffineRows, DenseRows
from oneprior.inference.blind_choice import choose_blind
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import Identity, UncertainOperator, gaussian_blur, parse_operator
from oneprior.priors.base import StandardNormal
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.priors.pushforward import push

SCHEDULE = EDMSchedule(sigma_max=40.0)
AGREE = ["unknown-blur:0.8", "unknown-page:0.4:stains=1:range=-1..1", "unknown-mri:full:coils=2"]


class Gain(UncertainOperator):
    """y = exp(theta / 2) x, the smallest instrument that is not known."""

    form = "linear"

    def __init__(self, shape):
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(shape)
        self.theta_shape = torch.Size([1])

    def evaluate(self, x, theta):
        return (0.5 * theta).exp().reshape(-1, *[1] * (x.dim() - 1)) * x

    def physical(self, theta):
        return {"gain": (0.5 * theta[:, 0]).exp()}


def gaussian(mean=1.0, variance=0.25, entries=2):
    centre = torch.full((1, entries), mean)
    return LowRankGaussian(centre, centre.new_zeros(entries, 0), centre.new_zeros(0), variance)


def quadrature(laws, weights, y, sigma):
    """E and Var of (x1, x2, theta) for one measurement y (2,), by a sum over theta of closed forms in x."""
    theta = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    gain, y = (0.5 * theta).exp()[:, None], y.double().flatten()
    logs, means, variances = [], [], []
    for (mean, variance), weight in zip(laws, weights, strict=True):
        total = gain**2 * variance + sigma**2
        logs.append(torch.tensor(weight).double().log() - 0.5 * ((y - gain * mean) ** 2 / total + total.log()).sum(1))
        means.append(mean + variance * gain / total * (y - gain * mean))
        variances.append((variance * sigma**2 / total).expand(-1, 2))
    logs = torch.stack(logs) - 0.5 * theta**2
    mass = (logs - logs.max()).exp()
    mass = mass / mass.sum()
    pair = [torch.cat([m, theta[:, None]], 1) for m in means]
    own = [torch.cat([v, 0 * theta[:, None]], 1) for v in variances]
    mean = sum((p[:, None] * m).sum(0) for p, m in zip(mass, pair, strict=True))
    square = sum((p[:, None] * (m**2 + v)).sum(0) for p, m, v in zip(mass, pair, own, strict=True))
    return mean, square - mean**2


def z_of(draws, theta, y, laws, weights, sigma, worth):
    """z-scores of mean and variance of (x, theta), (2, n, 3), for `worth` (n,) independent draws."""
    both = torch.cat([draws.flatten(2), theta.flatten(2)], 2).double()
    scores = []
    for i in range(both.shape[1]):
        mean, variance = quadrature(laws, weights, y[i], sigma)
        v, count = both[:, i], float(worth[i])
        square = (v - mean).square()
        scores.append(torch.stack([
            (v.mean(0) - mean) / (v.var(0) / count).sqrt(),
            (square.mean(0) - variance) / (square.var(0) / count).sqrt(),
        ]))  # fmt: skip
    return torch.stack(scores)


def measured(law, operator, sigma, n=2, seed=0):
    rows = Rows(n, seed=seed)
    x, theta = law.sample(rows), rows.normal(*operator.theta_shape)
    return GaussianLikelihood(operator.evaluate(x, theta) + sigma * rows.normal(*operator.out_shape), operator, sigma)


@pytest.mark.parametrize(
    "inner", [HMC(chains=40, warmup=60, thin=3), EllipticalSlice(chains=50, warmup=60, thin=10)], ids=["hmc", "slice"]
)
def test_the_joint_posterior_is_that_of_quadrature(inner):
    law, operator = gaussian(), Gain((1, 2))
    likelihood = measured(law, operator, 0.2)
    draws = Blind(inner)(bayes(law, likelihood), 500, Rows(2, seed=1))
    worth = draws.diagnostics["effective_sample_size"].clamp(max=500) / 2  # of the density; theta is slower
    z = z_of(draws.x, draws.diagnostics["theta"], likelihood.y, [(1.0, 0.25)], [1.0], 0.2, worth)
    assert z.abs().max() < 4
    assert draws.exact
    assert draws.method == f"blind {inner.name}"
    gain = (0.5 * draws.diagnostics["theta"][..., 0]).exp()
    assert torch.allclose(draws.diagnostics["gain"], gain.mean(0))
    assert torch.allclose(draws.diagnostics["gain, deviation"], gain.std(0))


def test_the_image_integrated_out_is_that_of_quadrature():
    laws, weights = [(1.0, 0.25), (-1.0, 0.04)], [0.3, 0.7]
    law = GaussianMixturePrior([gaussian(*one) for one in laws], torch.tensor(weights))
    operator = Gain((1, 2))
    likelihood = measured(law, operator, 0.2, seed=3)
    sampler = BlindGaussian(EllipticalSlice(chains=50, warmup=30, thin=4))
    draws = sampler(bayes(law, likelihood), 500, Rows(2, seed=1))
    worth = draws.diagnostics["effective_sample_size"].clamp(max=500) / 2
    z = z_of(draws.x, draws.diagnostics["theta"], likelihood.y, laws, weights, 0.2, worth)
    assert z.abs().max() < 4
    assert z.square().mean() < 2


@pytest.mark.parametrize("most", [256, 0])
def test_blind_daps_is_exact_for_a_gaussian(most):
    """However few levels where the image is integrated out; in turn only with many (12 here, of 6 sweeps)."""
    law, operator = gaussian(), Gain((1, 2))
    likelihood = measured(law, operator, 0.2)
    sampler = BlindDAPS(steps=3, moves=6) if most else BlindDAPS(steps=12, moves=2, sweeps=6, most=0)
    count = 1000 if most else 150
    draws = sampler(bayes(ClosedFormDenoiser(law, SCHEDULE), likelihood), count, Rows(2, seed=1))
    z = z_of(draws.x, draws.diagnostics["theta"], likelihood.y, [(1.0, 0.25)], [1.0], 0.2, torch.full((2,), count))
    assert z.abs().max() < 4
    assert not draws.exact
    assert draws.network_calls == sampler.steps * count * 2
    assert draws.diagnostics["image integrated out"] == (most > 0)


@pytest.mark.parametrize("words", AGREE)
def test_conjugate_gradients_and_matrices_agree(words):
    """And the evidence is that of the dense formula, for y real or complex, x behind a change of units."""
    shape = (1, 6, 5)
    operator = parse_operator(words, shape)
    rows = Rows(2, seed=3)
    theta = rows.normal(*operator.theta_shape, dtype=torch.float64)
    x = rows.normal(*shape, dtype=torch.float64)
    y = operator.evaluate(2 * x + 1, theta) + 0.3 * rows.normal(*operator.out_shape, dtype=torch.float64)
    likelihood = GaussianLikelihood(y, operator, torch.tensor([0.3, 0.5])).pullback(AffineMap(2.0, 1.0))
    basis = torch.linalg.qr(Rows(30, seed=1).normal(4, dtype=torch.float64))[0]
    law = LowRankGaussian(torch.zeros(shape).double(), basis, torch.tensor([2.0, 1.0, 0.5, 0.2]), 0.1)
    seen, mean = AffineRows(likelihood, torch.Size(shape)), 0.1 * x
    dense = DenseRows(seen, theta, torch.arange(2))
    whole = law.covariance()(torch.eye(30).double())
    for i in range(2):
        A, sigma = dense.matrix[i], [0.3, 0.5][i]
        square = A @ whole @ A.T + sigma**2 * torch.eye(len(A)).double()
        centre = seen.measure(mean, theta)[i]
        expected = torch.distributions.MultivariateNormal(centre, square).log_prob(seen.y[i])
        assert torch.allclose(dense.log_evidence(mean, law.covariance())[i], expected)
    fast = seen.draw(mean, law.covariance(), theta, Rows(2, seed=5))
    streams = Rows(2, seed=5)
    slow = dense.draw(mean, law.covariance(), streams.normal(*shape), streams.normal(seen.sizes[0]))
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def digits():
    from sklearn.datasets import load_digits

    pictures = torch.tensor(load_digits().images).float()[:, None] / 8 - 1
    return LowRankGaussian.fit([pictures[:1500]], rank=30), pictures[1500:1504]


def test_an_unknown_blur_is_found_and_better_than_the_nominal_one():
    """Measured on 4 digits, deviation known to 50 %, noise 0.05: exact posterior of the nominal width about 10 dB, of
    the true one 21 dB, both blind methods within 2.5 dB of the latter."""
    law, x = digits()
    operator = parse_operator("unknown-blur:1:spread=50%", (1, 8, 8))
    rows = Rows(4, seed=2)
    theta = rows.normal(1)
    y = operator.evaluate(x, theta) + 0.05 * rows.normal(1, 8, 8)
    likelihood = GaussianLikelihood(y, operator, 0.05)

    def decibels(mean):
        return float(-10 * ((mean - x) / 2).square().flatten(1).mean(1).log10().mean())

    nominal = decibels(exact_posterior(law, GaussianLikelihood(y, gaussian_blur((1, 8, 8), 1.0), 0.05)).mean())
    short = BlindGaussian(EllipticalSlice(chains=9, warmup=25, thin=1))
    for prior, sampler in ((law, short), (ClosedFormDenoiser(law, SCHEDULE), BlindDAPS(steps=5))):
        draws = sampler(bayes(prior, likelihood), 9, Rows(4, seed=5))
        found = draws.diagnostics["theta"][..., 0]
        z = (found.mean(0) - theta[:, 0]) / (found.std(0) * (1 + 1 / 9) ** 0.5)
        assert z.abs().max() < 5  # Student's t with 8 degrees of freedom
        assert found.std(0).max() < 0.5  # a priori 1
        assert decibels(draws.mean()) > nominal + 5
        width = draws.diagnostics["blur width in pixels"]
        assert ((width - operator.width(theta)).abs() / operator.width(theta)).max() < 0.3


def test_scale_of_units_changes_nothing():
    law, operator = gaussian(), Gain((1, 2))
    likelihood = measured(law, operator, 0.2)
    large = GaussianLikelihood(255 * likelihood.y, operator, 255 * 0.2).pullback(AffineMap(255.0, 0.0))
    for sampler in (Blind(EllipticalSlice(chains=2, warmup=10, thin=2)), BlindGaussian()):
        one, other = (sampler(bayes(law, part), 4, Rows(2)) for part in (likelihood, large))
        assert torch.allclose(one.x, other.x, atol=1e-3)
        assert torch.allclose(one.diagnostics["theta"], other.diagnostics["theta"], atol=1e-3)


def test_rows_do_not_see_each_other():
    law, operator = gaussian(), Gain((1, 2))
    likelihood, index = measured(law, operator, 0.2), torch.tensor([1])
    for prior, sampler in (
        (law, Blind(EllipticalSlice(chains=2, warmup=10, thin=2))),
        (law, BlindGaussian(EllipticalSlice(chains=2, warmup=10, thin=2))),
        (ClosedFormDenoiser(law, SCHEDULE), BlindDAPS(steps=3)),
        (ClosedFormDenoiser(law, SCHEDULE), BlindDAPS(steps=3, most=0)),
    ):
        together = sampler(bayes(prior, likelihood), 3, Rows(2, seed=1))
        alone = sampler(bayes(prior, likelihood.take(index)), 3, Rows(2, seed=1).take(index))
        assert torch.allclose(alone.x[:, 0], together.x[:, 1], atol=1e-4)
        assert torch.allclose(alone.diagnostics["theta"][:, 0], together.diagnostics["theta"][:, 1], atol=1e-4)


def test_a_network_between_takes_the_noise_road():
    prior = push(StandardNormal((3,)), lambda z: torch.tanh(z[:, None, :2] + z[:, None, 2:]), torch.Size([1, 2]))
    likelihood = measured(gaussian(), Gain((1, 2)), 0.2)
    posterior = bayes(prior, likelihood)
    assert isinstance(choose_blind(posterior), Blind)
    draws = Blind(HMC(chains=2, warmup=5, thin=1, leapfrog=2))(posterior, 4, Rows(2))
    assert draws.x.shape == (4, 2, 1, 2)
    assert draws.diagnostics["theta"].shape == (4, 2, 1)
    assert draws.mean().shape == (2, 1, 2)
    assert draws.x.abs().max() <= 1
    denoiser = ClosedFormDenoiser(gaussian(), SCHEDULE)
    with pytest.raises(IncompatiblePrior, match="noise road"):
        BlindDAPS()(bayes(denoiser, likelihood.pullback(torch.tanh)), 2, Rows(2))


def test_the_table_of_blind_methods():
    law, likelihood = gaussian(), measured(gaussian(), Gain((1, 2)), 0.2)
    mixture = GaussianMixturePrior([law, law], torch.ones(2))
    assert isinstance(choose_blind(bayes(law, likelihood)), BlindGaussian)
    assert isinstance(choose_blind(bayes(mixture, likelihood)), BlindGaussian)
    assert isinstance(choose_blind(bayes(ClosedFormDenoiser(law, SCHEDULE), likelihood)), BlindGaussian)
    bent = likelihood.pullback(torch.tanh)
    assert isinstance(choose_blind(bayes(law, bent)), Blind)
    with pytest.raises(IncompatiblePrior, match="no blind method"):
        choose_blind(bayes(ClosedFormDenoiser(law, SCHEDULE), bent))


def test_images_belong_to_the_instruments_of_their_draws():
    """Particles and descents move all draws from state to state, and the images with them."""
    law = gaussian(mean=1.0, variance=0.0001, entries=8)  # x is known, and so is the gain, from y
    likelihood = measured(law, Gain((1, 8)), 0.01, n=3)
    for inner in (AnnealedSMC(particles=16), Variational(steps=52)):
        draws = BlindGaussian(inner)(bayes(law, likelihood), 8, Rows(3, seed=4))
        theta = draws.diagnostics["theta"]
        seen = (0.5 * theta).exp() * draws.x.flatten(2).mean(2, keepdim=True)
        assert draws.x.shape == (8, 3, 1, 8)
        assert float((seen - likelihood.y.flatten(1).mean(1)[:, None]).abs().max()) < 0.02


@pytest.mark.parametrize("sampler", [BlindDAPS(steps=2, moves=1), BlindGaussian(EllipticalSlice(2, warmup=2, thin=1))])
def test_matrices_are_made_for_some_rows_at_a_time(sampler, monkeypatch):
    law = gaussian(entries=6)
    posterior = bayes(ClosedFormDenoiser(law, SCHEDULE), measured(law, Gain((1, 6)), 0.2, n=3))
    whole, sizes, make = sampler(posterior, 4, Rows(3, seed=1)), [], DenseRows.__init__

    def counted(self, rows, theta, row):
        sizes.append(len(theta))
        make(self, rows, theta, row)

    monkeypatch.setattr(affine_rows, "_NUMBERS", 5 * 36)
    monkeypatch.setattr(DenseRows, "__init__", counted)
    assert torch.allclose(sampler(posterior, 4, Rows(3, seed=1)).x, whole.x, atol=1e-5)
    assert max(sizes) == 5


def test_what_is_missing_is_said():
    law, operator = gaussian(), Gain((1, 2))
    likelihood = measured(law, operator, 0.2)
    known = GaussianLikelihood(likelihood.y, Identity((1, 2)), 0.2)
    with pytest.raises(IncompatiblePrior, match="one uncertain instrument"):
        Blind()(bayes(law, known), 2, Rows(2))
    silent = GaussianLikelihood(likelihood.y, operator, 0.0)
    with pytest.raises(IncompatiblePrior, match="needs noise"):
        BlindGaussian()(bayes(law, silent), 2, Rows(2))
    with pytest.raises(IncompatiblePrior, match="up to 1 entries"):
        BlindGaussian(most=1)(bayes(law, likelihood), 2, Rows(2))
    bare = ClosedFormDenoiser(GaussianMixturePrior([law, law], torch.ones(2)), SCHEDULE)
    with pytest.raises(IncompatiblePrior, match="carries none"):
        BlindDAPS()(bayes(bare, likelihood), 2, Rows(2))
    assert BlindDAPS(steps=2, covariance=IsotropicCovariance())(bayes(bare, likelihood), 2, Rows(2)).x.shape[0] == 2
    assert BlindDAPS.published().steps == 200


def test_many_numbers_go_by_gradients_through_the_evidence():
    """A page with ten unknown numbers: its ageing is found in part, and better than the nominal one by 3 dB."""
    law, x = digits()
    words = "page:0.4:stains=1:range=-1..1"
    known, operator = (parse_operator(w, (1, 8, 8)) for w in (f"{words}:seed=3", f"unknown-{words}"))
    y = known(x) + 0.04 * Rows(4, seed=2).normal(1, 8, 8)
    posterior = bayes(law, GaussianLikelihood(y, operator, 0.04))
    draws = BlindGaussian(HMC(chains=3, warmup=25, leapfrog=3, thin=2))(posterior, 9, Rows(4, seed=5))
    nominal = exact_posterior(law, GaussianLikelihood(y, operator.at(torch.zeros(1, *operator.theta_shape)), 0.04))
    blind, wrong = ((mean - x).square().mean() for mean in (draws.mean(), nominal.mean()))
    assert float(wrong / blind) > 2
    assert draws.diagnostics["acceptance"].min() > 0.5
