"""Evidence: its constant, its pull-backs, its rows."""

import pytest
import torch

from oneprior.core import AffineMap, InputError, Rows, ShapeError
from oneprior.likelihoods import Fixed, GaussianLikelihood, Product, Reward
from oneprior.operators import Affine, Downsample, Identity, Mask, Matrix, parse_operator

SHAPE = (1, 3, 4)


def _random(*shape, seed=0, dtype=torch.float64):
    return Rows(shape[0], seed=seed).normal(*shape[1:], dtype=dtype)


def _likelihood(noise=0.3, n=5, words="downsample:2"):
    operator = parse_operator(words, SHAPE)
    return GaussianLikelihood(_random(n, *operator.out_shape), operator, noise)


def test_gaussian_is_the_normal_density():
    for noise in (0.3, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])):
        likelihood, x = _likelihood(noise), _random(5, *SHAPE, seed=1)
        scale = torch.as_tensor(noise, dtype=torch.float64).expand(5)[:, None, None, None]
        law = torch.distributions.Normal(likelihood.operator(x), scale)
        assert torch.allclose(likelihood.log_prob(x), law.log_prob(likelihood.y).flatten(1).sum(1), atol=1e-10)


def test_complex_noise_has_sigma_in_each_part():
    matrix = torch.complex(_random(6, 12), _random(6, 12, seed=2))
    operator, x = Matrix(matrix, SHAPE), _random(4, *SHAPE, seed=3)
    y = operator(x) + 0.1
    law = torch.distributions.Normal(torch.view_as_real(operator(x)), 0.2)
    expected = law.log_prob(torch.view_as_real(y)).flatten(1).sum(1)
    assert torch.allclose(GaussianLikelihood(y, operator, 0.2).log_prob(x), expected)


@pytest.mark.parametrize("kind", ["units", "affine", "linear"])
def test_pullback_through_affine_maps_stays_linear_and_exact(kind):
    likelihood, z = _likelihood(), _random(5, *SHAPE, seed=4)
    if kind == "units":
        f, x = AffineMap(100.0, 127.0), 100.0 * z + 127.0
    elif kind == "linear":
        f = Matrix(_random(12, 12, seed=5), SHAPE, SHAPE)
        x = f(z)
    else:
        f = Affine(Matrix(_random(12, 12, seed=5), SHAPE, SHAPE), _random(1, *SHAPE, seed=6)[0])
        x = f(z)
    pulled = likelihood.pullback(f)
    assert pulled.linear
    assert torch.allclose(pulled.log_prob(z), likelihood.log_prob(x), rtol=1e-8)


def test_pullback_through_anything_else_stays_gaussian_and_is_right():
    likelihood, z = _likelihood(), _random(5, 12, seed=4)

    def decode(z):
        return torch.tanh(z).reshape(-1, *SHAPE)

    pulled = likelihood.pullback(decode)
    assert isinstance(pulled, GaussianLikelihood)
    assert not pulled.linear
    assert torch.equal(pulled.log_prob(z), likelihood.log_prob(decode(z)))
    twice = pulled.pullback(lambda w: 2 * w)
    assert torch.equal(twice.log_prob(z), likelihood.log_prob(decode(2 * z)))
    units = pulled.pullback(AffineMap(2.0, 0.5))
    assert torch.allclose(units.log_prob(z), likelihood.log_prob(decode(2 * z + 0.5)))


def test_an_affine_instrument_becomes_linear():
    operator = Affine(Downsample(SHAPE, 2), torch.ones(1, 2, 2, dtype=torch.float64))
    x, y = _random(2, *SHAPE), _random(2, 1, 2, 2, seed=7)
    likelihood = GaussianLikelihood(y, operator, 0.5)
    assert likelihood.linear
    law = torch.distributions.Normal(operator(x), 0.5)
    assert torch.allclose(likelihood.log_prob(x), law.log_prob(y).flatten(1).sum(1))


def test_take_and_repeat_follow_the_rows():
    likelihood = _likelihood(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64))
    x = _random(5, *SHAPE, seed=1)
    all_rows = likelihood.log_prob(x)
    index = torch.tensor([3, 0, 3])
    assert torch.allclose(likelihood.take(index).log_prob(x[index]), all_rows[index])
    assert torch.allclose(likelihood.repeat(2).log_prob(x.repeat(2, 1, 1, 1)), all_rows.repeat(2))


def test_noise_level_zero_is_a_constraint():
    likelihood = _likelihood(0.0)
    assert likelihood.constraint
    with pytest.raises(InputError, match="constraint"):
        likelihood.log_prob(_random(5, *SHAPE))


def test_bad_measurements_are_refused():
    operator = Downsample(SHAPE, 2)
    with pytest.raises(ShapeError, match="measurement y"):
        GaussianLikelihood(torch.zeros(2, 1, 3, 3), operator, 0.1)
    with pytest.raises(InputError, match="NaN"):
        GaussianLikelihood(torch.full((2, 1, 2, 2), torch.nan), operator, 0.1)
    with pytest.raises(InputError, match="standard deviation"):
        GaussianLikelihood(torch.zeros(2, 1, 2, 2), operator, -0.1)
    with pytest.raises(ShapeError, match="noise_level"):
        GaussianLikelihood(torch.zeros(2, 1, 2, 2), operator, torch.ones(3))


def test_product_adds_and_flattens():
    a, b = _likelihood(), _likelihood(0.5, words="mask:left")
    reward = Reward(lambda x: x.flatten(1).mean(1), 0.1)
    product = Product((Product((a, b)), reward))
    x = _random(5, *SHAPE, seed=9)
    assert len(product.factors) == 3
    assert product.rows == 5
    assert torch.allclose(product.log_prob(x), a.log_prob(x) + b.log_prob(x) + 10 * x.flatten(1).mean(1))
    pulled = product.pullback(lambda z: 3 * z)
    assert torch.allclose(pulled.log_prob(x), product.log_prob(3 * x))
    assert product.take(torch.tensor([4])).rows == 1
    assert Product((reward,)).rows is None
    with pytest.raises(InputError, match="one number of rows"):
        Product((a, a.take(torch.tensor([0]))))


def test_reward_checks_its_shape_and_temperature():
    with pytest.raises(InputError, match="positive"):
        Reward(lambda x: x, 0.0)
    with pytest.raises(ShapeError, match="one number for each row"):
        Reward(lambda x: x).log_prob(torch.zeros(2, 3))


def test_fixed_is_a_constraint_and_a_measurement():
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0, 0] = True
    value = _random(3, *SHAPE)
    fixed = Fixed(mask, value)
    assert fixed.log_prob(value).tolist() == [0.0, 0.0, 0.0]
    moved = value.clone()
    moved[1, 0, 0, 0] += 1
    moved[2, 0, 2, 0] += 1  # not fixed
    assert fixed.log_prob(moved).tolist() == [0.0, -torch.inf, 0.0]
    assert torch.equal(fixed.project(moved)[:, :, 0], value[:, :, 0])
    assert fixed.pullback(lambda z: z + 1).log_prob(value - 1).tolist() == [0.0, 0.0, 0.0]
    gaussian = fixed.gaussian()
    assert gaussian.constraint
    assert isinstance(gaussian.operator, Mask)
    assert torch.equal(gaussian.y, value[:, 0, 0])
    shared = Fixed(mask, value[0])
    assert shared.rows is None
    assert shared.gaussian(4).rows == 4


def test_identity_serves_gaussian():
    y = _random(2, *SHAPE)
    assert GaussianLikelihood(y, Identity(SHAPE), 1.0).residual(y).abs().max() == 0
