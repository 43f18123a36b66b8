"""Laws of noise: densities that integrate to one, gradients that finite differences confirm, draws that follow them."""

import math

import pytest
import torch

from oneprior.core import AffineMap, InputError, Rows, ShapeError
from oneprior.likelihoods import (
    GaussianLikelihood,
    LaplaceLikelihood,
    OutlierLikelihood,
    PoissonLikelihood,
    RicianLikelihood,
    ScaleMixture,
    UnknownNoiseLikelihood,
)
from oneprior.likelihoods.noise import (
    GaussianNoise,
    LaplaceNoise,
    OutlierNoise,
    PoissonNoise,
    RicianNoise,
    UnknownNoise,
)
from oneprior.likelihoods.poisson import draw_counts
from oneprior.operators import Affine, Downsample, Identity, Matrix

SHAPE = (1, 3, 5)
SMALL = Identity((1,))
KINDS = {
    "gaussian": lambda y, A: GaussianLikelihood(y, A, 0.3),
    "rows": lambda y, A: GaussianLikelihood(y, A, torch.linspace(0.2, 0.6, len(y)).to(y.real)),
    "entries": lambda y, A: GaussianLikelihood(
        y, A, 0.2 + torch.rand(y.shape, generator=torch.manual_seed(0)).to(y.real)
    ),
    "laplace": lambda y, A: LaplaceLikelihood(y, A, 0.3),
    "outliers": lambda y, A: OutlierLikelihood(y, A, 0.2, 0.1, 2.0),
    "unknown": lambda y, A: UnknownNoiseLikelihood(y, A, 0.01, 3.0),
    "rician": lambda y, A: RicianLikelihood(y.abs(), A, 0.4),
    "poisson": lambda y, A: PoissonLikelihood((4 * y.abs()).round(), A, 6.0, 0.5),
}
ADDITIVE = ["gaussian", "rows", "entries", "laplace", "outliers", "unknown"]
LAWS = [
    GaussianNoise(0.3), LaplaceNoise(0.3), OutlierNoise(0.2, 0.1, 2.0), UnknownNoise(0.05, 2.0), RicianNoise(0.4),
    PoissonNoise(6.0, -0.2), PoissonNoise(300.0, -0.2),
]  # fmt: skip


def normal(*shape, seed=0, dtype=torch.float64):
    return Rows(shape[0], seed=seed).normal(*shape[1:], dtype=dtype)


def make(kind, n=4, operator=None):
    operator = operator or Downsample(SHAPE, 2)
    y = operator(normal(n, *operator.in_shape)) + 0.3 * normal(n, *operator.out_shape, seed=1)
    return KINDS[kind](y, operator)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind):
    likelihood, x = make(kind), normal(4, *SHAPE, seed=2)
    x = x - 1 if kind == "poisson" else x  # many rates below `least`, where the law is continued
    x.requires_grad_()
    (slope,) = torch.autograd.grad(likelihood.log_prob(x).sum(), x)
    direction, size = normal(4, *SHAPE, seed=3), 1e-6
    with torch.no_grad():
        up, down = (likelihood.log_prob(x + sign * size * direction) for sign in (1, -1))
    numeric = (up - down) / (2 * size)
    assert torch.allclose((slope * direction).flatten(1).sum(1), numeric, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clean", [0.8, 0.001, -0.7])
def test_the_density_of_one_number_integrates_to_one(kind, clean):
    if kind == "poisson":
        y, step = torch.arange(200.0, dtype=torch.float64), 1.0
    else:
        count = 20_001 if kind == "unknown" else 400_001
        y, step = torch.linspace(-40, 40, count, dtype=torch.float64), 80 / (count - 1)
        y = y[y > 0] if kind == "rician" else y
    make_one = {
        "rows": lambda y, A: GaussianLikelihood(y, A, torch.full((len(y),), 0.4)),
        "entries": lambda y, A: GaussianLikelihood(y, A, torch.full_like(y, 0.4)),
        "poisson": lambda y, A: PoissonLikelihood(y, A, 6.0, 0.5),
    }.get(kind, KINDS[kind])
    law = make_one(y[:, None], SMALL)
    mass = law.log_prob(torch.full((len(y), 1), clean, dtype=torch.float64)).exp().sum() * step
    assert abs(float(mass) - 1) < 1e-6


def test_known_densities():
    y, x = normal(3, *SHAPE), normal(3, *SHAPE, seed=1)
    operator = Identity(SHAPE)
    laplace = torch.distributions.Laplace(x, 0.3 / 2**0.5).log_prob(y).flatten(1).sum(1)
    assert torch.allclose(LaplaceLikelihood(y, operator, 0.3).log_prob(x), laplace)
    counts, rate = (5 * y.abs()).round(), 6 * x.abs() + 0.5
    poisson = torch.distributions.Poisson(rate).log_prob(counts).flatten(1).sum(1)
    assert torch.allclose(PoissonLikelihood(counts, operator, 6.0, 0.5).log_prob(x.abs()), poisson)
    sigma = 0.2 + y.abs()
    gaussian = torch.distributions.Normal(x, sigma).log_prob(y).flatten(1).sum(1)
    assert torch.allclose(GaussianLikelihood(y, operator, sigma).log_prob(x), gaussian)
    z = y.abs() * x.abs() / 0.4**2  # Rician by the unscaled Bessel function
    plain = (y.abs() / 0.4**2).log() - (y.square() + x.square()) / (2 * 0.4**2) + torch.special.i0(z).log()
    assert torch.allclose(RicianLikelihood(y.abs(), operator, 0.4).log_prob(x), plain.flatten(1).sum(1))


def test_unknown_noise_is_the_integral_over_its_prior():
    operator = Identity(SHAPE)
    x = normal(6, *SHAPE, seed=1)
    y = x + torch.tensor([0.005, 0.02, 0.1, 0.5, 2.0, 9.0]).double()[:, None, None, None] * normal(6, *SHAPE, seed=2)
    law = UnknownNoiseLikelihood(y, operator, 0.01, 3.0)
    s = torch.linspace(math.log(0.01), math.log(3.0), 200_001, dtype=torch.float64)
    square = (y - x).square().flatten(1).sum(1)
    log = -15 * s - 0.5 * square[:, None] * (-2 * s).exp() - 7.5 * math.log(2 * math.pi)
    weight = torch.ones_like(s)
    weight[[0, -1]] = 0.5
    exact = (log + weight.log()).logsumexp(1) - math.log(len(s) - 1)
    inside = slice(1, 5)
    assert torch.allclose(law.log_prob(x)[inside], exact[inside], atol=0.02)  # the ends count fully on the grid: 1 / G
    slope = law.log_prob(x) - law.log_prob(0.9 * x)
    square = (y - 0.9 * x).square().flatten(1).sum(1)
    log = -15 * s - 0.5 * square[:, None] * (-2 * s).exp() - 7.5 * math.log(2 * math.pi)
    other = (log + weight.log()).logsumexp(1) - math.log(len(s) - 1)
    assert torch.allclose(slope[2:4], (exact - other)[2:4], atol=1e-6)
    level = law.level(x)
    assert 0.01 <= float(level[0]) < 0.012  # below the range: its least
    assert float(level[5]) > 2.6
    assert (level[inside].log() - torch.tensor([0.02, 0.1, 0.5, 2.0]).double().log()).abs().max() < 4 / 30**0.5


def test_unknown_noise_serves_many_numbers_in_single_precision():
    operator = Identity((1, 200, 500))
    x = torch.zeros(2, 1, 200, 500)
    y = torch.tensor([0.05, 0.3]).reshape(2, 1, 1, 1) * normal(2, 1, 200, 500, dtype=torch.float32)
    law = UnknownNoiseLikelihood(y, operator, 0.001, 1.0)
    assert torch.allclose(law.level(x), torch.tensor([0.05, 0.3]), rtol=4 / (2e5) ** 0.5)
    many = Rows(2, seed=0).repeat(200)
    sigma = law.repeat(200).posterior_sigma(x.repeat(200, 1, 1, 1), many).reshape(200, 2)
    width = sigma.double().log().std(0) * (2e5) ** 0.5
    assert (width - 1).abs().max() < 4 / 400**0.5
    assert torch.allclose(law.take(torch.tensor([1])).log_prob(x[:1]), law.log_prob(x)[1:], rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_pullbacks(kind):
    likelihood, x = make(kind), normal(4, *SHAPE, seed=2)
    value = likelihood.log_prob(x)
    index = torch.tensor([3, 0, 3])
    assert torch.allclose(likelihood.take(index).log_prob(x[index]), value[index])
    assert torch.allclose(likelihood.repeat(2).log_prob(x.repeat(2, 1, 1, 1)), value.repeat(2))
    assert torch.allclose(likelihood.misfit(x)[index], likelihood.take(index).misfit(x[index]))
    assert torch.allclose(likelihood.pullback(torch.tanh).log_prob(x), likelihood.log_prob(x.tanh()))
    units = likelihood.pullback(AffineMap(2.0, 0.5))
    assert torch.allclose(units.log_prob(x), likelihood.log_prob(2 * x + 0.5))
    assert torch.allclose(units.misfit(x), likelihood.misfit(2 * x + 0.5))
    assert type(units) is type(likelihood)
    assert units.linear == (kind in ADDITIVE)
    matrix = Matrix(normal(15, 15, seed=5), SHAPE, SHAPE)
    pulled = likelihood.pullback(matrix)
    assert pulled.linear
    assert torch.allclose(pulled.log_prob(x), likelihood.log_prob(matrix(x)))
    affine = Affine(matrix, normal(1, *SHAPE, seed=6)[0])
    pulled = likelihood.pullback(affine)
    assert pulled.linear == (kind in ADDITIVE)
    assert torch.allclose(pulled.log_prob(x), likelihood.log_prob(affine(x)))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.spec)
@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_simulated_measurements_fit_the_truth(law, complex_):
    """The score of the true x is 0 on average, the misfit 1, and its tail probability uniform."""
    if complex_ and isinstance(law, PoissonNoise):
        with pytest.raises(InputError, match="complex"):
            law.simulate(torch.zeros(1, 4, dtype=torch.complex64), Matrix(torch.eye(4).to(torch.complex64)), Rows(1))
        return
    n, shape = 400, (1, 5, 7)
    matrix = torch.eye(35, dtype=torch.float64)
    operator = Matrix(torch.complex(matrix, 0.3 * matrix) if complex_ else matrix, shape, shape)
    x = normal(n, *shape).abs()
    y = law.simulate(operator(x), operator, Rows(n, seed=5))
    likelihood = law.likelihood(y, operator)
    part = law.simulate(operator(x[7:9]), operator, Rows([7, 8], seed=5))
    assert torch.equal(part, y[7:9])
    x.requires_grad_()
    (score,) = torch.autograd.grad(likelihood.log_prob(x).sum(), x)
    for value in (score, score * x.detach()):
        each = value.flatten(1).mean(1)
        assert abs(float(each.mean() / (each.std() / n**0.5))) < 4
    x.requires_grad_(False)
    p, misfit, alike = likelihood.misfit_p(x), likelihood.misfit(x), likelihood.whiteness(x)
    assert abs(float(alike.mean())) < 4 / n**0.5
    assert abs(float(alike.var()) - 1) < 4 * (3 / n) ** 0.5
    smooth = x + torch.linspace(-3, 3, 35, dtype=torch.float64).reshape(shape)  # an image is left over
    assert likelihood.whiteness(smooth).quantile(0.1) > 2
    assert likelihood.misfit(x + 3).min() > misfit.max() or isinstance(law, UnknownNoise)
    if isinstance(law, UnknownNoise):
        assert (misfit - 1).abs().max() < 0.2
        return
    assert abs(float(misfit.square().mean() - 1)) < 4 * float(misfit.square().std()) / n**0.5
    for level in (0.05, 0.5):
        share = float((p < level).double().mean())
        slack = 4 * (level * (1 - level) / n) ** 0.5
        assert abs(share - level) < slack + (0.0 if isinstance(law, GaussianNoise | OutlierNoise) else 0.02)


def test_scales_are_drawn_from_their_posterior():
    """E[1 / s^2 | r] = 1 / (b |r|) for Laplace, the share of a mixture's parts for outliers, and the level itself."""
    n, y = 30_000, torch.tensor([0.05, 0.3, 0.7], dtype=torch.float64)
    x, rows = torch.zeros(n, 3, dtype=torch.float64), Rows(n, seed=3)
    many, operator = y.expand(n, 3), Identity((3,))

    def check(value, expected):
        assert ((value.mean(0) - expected) / (value.std(0) / n**0.5)).abs().max() < 4

    laplace = LaplaceLikelihood(many, operator, 0.3)
    check(laplace.draw_scale(x, rows) ** -2, 1 / (0.3 / 2**0.5 * y))
    outliers = OutlierLikelihood(many, operator, 0.2, 0.1, 2.0)
    scale = outliers.draw_scale(x, rows)
    good, bad = (w * torch.distributions.Normal(0.0, s).log_prob(y).exp() for w, s in ((0.9, 0.2), (0.1, 2.0)))
    check((scale == 2.0).double(), bad / (good + bad))
    unknown = UnknownNoiseLikelihood(many, operator, 0.01, 3.0)
    sigma = unknown.posterior_sigma(x, rows)
    assert sigma.shape == (n,)
    check(sigma[:, None], unknown.level(x[:1]))
    for law in (laplace, outliers, unknown):
        assert isinstance(law, ScaleMixture)
        given = law.pullback(AffineMap(2.0, 1.0)).given(law.draw_scale(x, rows))
        assert isinstance(given, GaussianLikelihood)
        assert given.linear


def test_given_the_scale_and_integrated_over_it_is_the_law_itself():
    """log p(y | x) = log of the mean of N(y; x, s^2) over s from its prior, for Laplace: s^2 exponential."""
    law = LaplaceLikelihood(torch.tensor([[0.4]], dtype=torch.float64), SMALL, 0.3)
    v = (torch.arange(2_000_000, dtype=torch.float64) + 0.5) * 2e-6
    rate = 1 / 0.3**2
    x = torch.zeros(1, 1, dtype=torch.float64)
    total = (
        rate * (-rate * v).exp() * torch.distributions.Normal(0.0, v.sqrt()).log_prob(x[0] + 0.4).exp()
    ).sum() * 2e-6
    assert abs(float(total.log() - law.log_prob(x))) < 1e-6


@pytest.mark.parametrize("rate", [0.03, 1.0, 7.0, 150.0, 1e6])
def test_poisson_draws_follow_their_distribution(rate):
    count = draw_counts(torch.full((20, 1000), rate), Rows(20, seed=round(rate * 100)))
    n = count.numel()
    assert abs(float(count.mean() - rate)) < 4 * (rate / n) ** 0.5
    assert abs(float(count.var() / rate - 1)) < 4 * ((2 + 1 / rate) / n) ** 0.5
    assert torch.equal(count, count.round())
    if rate == 7.0:  # every count as often as it should be
        seen = torch.bincount(count.flatten().long(), minlength=20)[:16].double()
        expected = n * torch.distributions.Poisson(7.0).log_prob(torch.arange(16.0)).exp()
        assert ((seen - expected).square() / expected).sum() < 16 + 4 * 32**0.5


def test_poisson_draws_are_the_inverse_of_the_distribution_function():
    rate = torch.logspace(-3, 5, 400).double().expand(3, 400).clone()
    rate[:, 0] = 0
    rows = Rows(3, seed=4)
    u = Rows(3, seed=4).uniform(400, dtype=torch.float64)
    k = draw_counts(rate, rows)
    assert (k[:, 0] == 0).all()
    k, rate, u = k[:, 1:], rate[:, 1:], u[:, 1:]
    assert (torch.special.gammaincc(k + 1, rate) >= u - 1e-12).all()
    below = torch.where(k > 0, torch.special.gammaincc(k.clamp_min(1.0), rate), torch.zeros_like(u))
    assert (below < u + 1e-12).all()


def test_poisson_below_black_is_finite_and_points_back():
    law = PoissonLikelihood(torch.tensor([[5.0, 0.0]]), Identity((2,)), 10.0)
    x = torch.tensor([[-3.0, -3.0]], requires_grad=True)
    value = law.log_prob(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert torch.isfinite(value).all()
    assert float(slope[0, 0]) > 0
    assert torch.isfinite(slope).all()


def test_single_precision_serves_a_million_counts():
    x = torch.full((1, 1000), 1e6, dtype=torch.float64)
    y = draw_counts(x, Rows(1, seed=2))
    double, single = (PoissonLikelihood(y.to(t), Identity((1000,))) for t in (torch.float64, torch.float32))
    other = 1.0003 * x
    exact = double.log_prob(other) - double.log_prob(x)
    near = single.log_prob(other.float()) - single.log_prob(x.float())
    assert abs(float(exact - near)) < 0.3  # of about 45


def test_rician_of_strong_signals_is_gaussian_and_never_overflows():
    x = torch.full((1, 3), 1e4)
    y = x + torch.tensor([[0.3, -0.2, 0.1]])
    a, b = RicianLikelihood(y, Identity((3,)), 0.1), GaussianLikelihood(y, Identity((3,)), 0.1)
    assert torch.allclose(a.log_prob(x), b.log_prob(x), atol=1e-2)
    zero = RicianLikelihood(torch.zeros(1, 3), Identity((3,)), 0.1)
    x = torch.zeros(1, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(zero.log_prob(x).sum(), x)
    assert torch.isfinite(slope).all()


def test_outliers_do_not_pull():
    """The pull of one entry falls with its distance, where Gaussian noise pulls ever harder."""
    y = torch.tensor([[0.3, 30.0]])
    x = torch.zeros(1, 2, requires_grad=True)
    slopes = [
        torch.autograd.grad(law.log_prob(x).sum(), x)[0][0]
        for law in (OutlierLikelihood(y, Identity((2,)), 0.2, 0.1, 10.0), GaussianLikelihood(y, Identity((2,)), 0.2))
    ]
    assert slopes[0][1] < 0.1 * slopes[0][0]
    assert slopes[1][1] > 50 * slopes[1][0]
    many = OutlierNoise(0.2, 0.1, 10.0).simulate(torch.zeros(50, 400), Identity((400,)), Rows(50, seed=1))
    law = OutlierLikelihood(many, Identity((400,)), 0.2, 0.1, 10.0)
    assert (law.misfit(torch.zeros(50, 400)) - 1).abs().max() < 5 / 800**0.5


def test_complex_numbers_have_two_parts():
    y, x = torch.view_as_complex(normal(3, 4, 2)), torch.zeros(3, 4, dtype=torch.float64)
    operator = Matrix(torch.eye(4).to(torch.complex128))
    flat = torch.view_as_real(y).flatten(1)
    for kind in ("gaussian", "laplace", "unknown"):
        parts = KINDS[kind](flat, Identity((8,))).log_prob(torch.zeros(3, 8, dtype=torch.float64))
        assert torch.allclose(KINDS[kind](y, operator).log_prob(x), parts)
    levels = 0.2 + torch.rand(3, 4, generator=torch.manual_seed(1)).double()
    parts = GaussianLikelihood(flat, Identity((8,)), levels.repeat_interleave(2, 1))
    assert torch.allclose(
        GaussianLikelihood(y, operator, levels).log_prob(x), parts.log_prob(torch.zeros(3, 8).double())
    )
    outlier = OutlierLikelihood(y, operator, 0.2, 0.1, 2.0)
    assert outlier.draw_scale(x, Rows(3)).shape == (3, 4)
    with pytest.raises(InputError, match="scales of their own"):
        LaplaceLikelihood(y, operator, 0.2).draw_scale(x, Rows(3))


def test_bad_levels_are_refused():
    y, operator = torch.zeros(2, 3), Identity((3,))
    for build in (
        lambda: LaplaceLikelihood(y, operator, 0.0),
        lambda: RicianLikelihood(y, operator, -1.0),
        lambda: UnknownNoiseLikelihood(y, operator, 0.0, 1.0),
        lambda: PoissonLikelihood(y, operator, torch.inf),
    ):
        with pytest.raises(InputError, match="standard deviation > 0"):
            build()
    with pytest.raises(InputError, match="magnitudes >= 0"):
        RicianLikelihood(y - 1, operator, 0.1)
    with pytest.raises(InputError, match="counts >= 0"):
        PoissonLikelihood(y - 1, operator)
    with pytest.raises(InputError, match="low < high"):
        UnknownNoiseLikelihood(y, operator, 1.0, 0.5)
    with pytest.raises(InputError, match="wider than the noise"):
        OutlierLikelihood(y, operator, 1.0, 0.1, 0.5)
    with pytest.raises(InputError, match="between 0 and 1"):
        OutlierLikelihood(y, operator, 1.0, 1.0, 2.0)
    with pytest.raises(ShapeError, match="background"):
        PoissonLikelihood(y, operator, 1.0, torch.zeros(2))
    with pytest.raises(ShapeError, match="noise_level"):
        LaplaceLikelihood(y, operator, torch.ones(3))
