"""MAP, Laplace, the optimiser and the curvature behind them, against closed forms and dense matrices."""

import math

import pytest
import torch
from inference.noise.problems import DOUBLE, SHAPE, exact_moments, gaussian, linear, nonlinear, quadrature, z_scores

from oneprior.core import DivergedError, InputError, Rows
from oneprior.inference import bayes
from oneprior.inference.noise import MAP, Descent, Laplace, Target, curvature
from oneprior.inference.noise.target import Linearisation
from oneprior.likelihoods import GaussianLikelihood, Reward
from oneprior.operators import parse_operator
from oneprior.operators.affine import Matrix
from oneprior.priors.base import StandardNormal


def test_descent_solves_each_row_and_does_not_wait():
    """Quadratics of condition 1 to 1e4 and Rosenbrock's valley, side by side."""
    scale = torch.tensor([1.0, 100.0, 1e4], dtype=DOUBLE)

    def objective(u):
        valley = 100 * (u[:, 1] - u[:, 0] ** 2) ** 2 + (1 - u[:, 0]) ** 2
        bowl = 0.5 * scale * (u[:, 0] - 1) ** 2 + 0.5 * (u[:, 1] - 1) ** 2
        slope = torch.stack([scale * (u[:, 0] - 1), u[:, 1] - 1], 1)
        steep = torch.stack(
            [-400 * u[:, 0] * (u[:, 1] - u[:, 0] ** 2) - 2 * (1 - u[:, 0]), 200 * (u[:, 1] - u[:, 0] ** 2)]
        )
        last = torch.tensor([False, False, True])
        return torch.where(last, valley, bowl), torch.where(last[:, None], steep.T, slope)

    start = torch.tensor([[-1.2, 1.0]], dtype=DOUBLE).expand(3, 2)
    descent = Descent(objective, start, "test", 3, tolerance=1e-8).run(150)
    assert descent.converged.all()
    assert (descent.u - 1).abs().max() < 1e-6


def test_descent_backs_away_from_a_wall_and_names_what_it_cannot_pass():
    def walled(u):
        value = 0.5 * ((u - 2) ** 2).sum(1)
        return torch.where(u[:, 0] > 2.5, torch.nan, value), u - 2

    start = torch.full((2, 1), -30.0, dtype=DOUBLE)
    assert (Descent(walled, start, "test", 2).run(60).u - 2).abs().max() < 1e-3

    def wrong(u):  # a gradient that points into a wall
        return torch.where((u[:, 0] > 0) & (torch.arange(2) == 1), torch.nan, u[:, 0].square()), -u - 1

    with pytest.raises(DivergedError, match=r"test: .* rows \[1\] is not finite at step 2[0-9]"):
        Descent(wrong, torch.zeros(2, 1), "test", 2).run(60)


def test_map_of_a_linear_decoder_is_the_posterior_mean():
    law, likelihood = linear()
    found = MAP()(bayes(law, likelihood), 3, Rows(4, seed=1))
    mean, _, _ = exact_moments(law, likelihood)
    assert (found.mean().flatten(1) - mean).abs().max() < 1e-4
    assert torch.equal(found.x[0], found.x[2])
    assert found.std().abs().max() == 0
    assert not found.exact
    assert found.diagnostics["converged"].all()


def test_map_keeps_the_norm_where_it_is_asked_to():
    """With no evidence to speak of the free MAP is u = 0, the radial one on |u|^2 = d - 1, PULSE's on |u|^2 = d."""
    law = gaussian()
    operator = parse_operator("identity", SHAPE)
    likelihood = GaussianLikelihood(torch.ones(4, *SHAPE, dtype=DOUBLE), operator, 1e5)
    radius = {
        norm: MAP(norm=norm)(bayes(law, likelihood), 1, Rows(4, seed=1)).diagnostics["radius"]
        for norm in ("free", "radial", "sphere")
    }
    assert radius["free"].max() < 1e-3
    assert (radius["radial"] - (7 / 8) ** 0.5).abs().max() < 1e-3
    assert (radius["sphere"] - 1).abs().max() < 1e-9


def test_map_on_the_sphere_is_the_best_point_of_the_sphere():
    """Two latents: every angle can be tried."""
    prior, likelihood = nonlinear(6, noise=0.1)
    found = MAP(norm="sphere", starts=8)(bayes(prior, likelihood), 1, Rows(6, seed=1))
    angle = torch.linspace(0, 2 * math.pi, 4001, dtype=DOUBLE)
    x = prior.decode(2**0.5 * torch.stack([angle.cos(), angle.sin()], 1))
    for i in range(6):
        best = likelihood.take(torch.full((4001,), i)).log_prob(x).max()
        reached = likelihood.take(torch.tensor([i])).log_prob(found.x[0, i : i + 1])
        assert best - 1e-4 < float(reached) < best + 1e-3


def test_sigma_to_zero_gives_the_latent_that_fits_best():
    """x = G z with fewer latents than measurements: argmin |A G z - y|, by least squares."""
    law = gaussian().noise_free()
    operator = parse_operator("downsample:1", SHAPE)
    y = operator(law.sample(Rows(4, seed=2)).to(DOUBLE)) + 0.3 * Rows(4, seed=3).normal(*SHAPE, dtype=DOUBLE)
    G = law.decoder.part.dense()
    centred = (y - law.decoder.offset).flatten(1)
    fitted = centred @ torch.linalg.pinv(G).T @ G.T + law.decoder.offset.flatten()
    posterior = bayes(law, GaussianLikelihood(y, operator, 1e-6))
    for method in (MAP(), Laplace()):
        assert (method(posterior, 2, Rows(4, seed=1)).x.flatten(2) - fitted).abs().max() < 1e-5


def test_laplace_is_exact_for_a_linear_decoder():
    law, likelihood = linear()
    found = Laplace()(bayes(law, likelihood), 4000, Rows(4, seed=1))
    mean, covariance, evidence = exact_moments(law, likelihood)
    assert found.exact
    assert (found.mean().flatten(1) - mean).abs().max() < 1e-10
    assert (found.diagnostics["log_evidence"] - evidence).abs().max() < 1e-9
    z = z_scores(found.x, mean, covariance)
    assert z.abs().max() < 4.5
    assert 0.7 < z.square().mean() < 1.4
    assert z_scores(0.95 * (found.x - found.mean()) + found.mean(), mean, covariance).square().mean() > 1.6


def test_laplace_of_other_evidence_takes_the_hessian():
    """A reward that is quadratic in x is Gaussian evidence in disguise."""
    law, likelihood = linear()
    operator, level = likelihood.linear_operator, likelihood.noise_level

    def reward(x):
        r = likelihood.y.repeat(len(x) // 4, *[1] * (likelihood.y.dim() - 1)) - operator(x)
        return -0.5 * r.flatten(1).square().sum(1) / level**2

    posterior = bayes(law, Reward(reward), n=4)
    target = Target(posterior)
    target.dtype = DOUBLE
    u = Rows(4, seed=2).normal(target.d, dtype=DOUBLE)
    by_hessian = curvature(target, u, Rows(4))
    by_jacobian = curvature(Target(bayes(law, likelihood)), u, Rows(4))
    v = Rows(4, seed=3).normal(target.d, dtype=DOUBLE)
    assert not target.gaussian
    assert (by_hessian.power(v, -0.5) - by_jacobian.power(v, -0.5)).abs().max() < 1e-9
    assert (by_hessian.logdet() - by_jacobian.logdet()).abs().max() < 1e-9


def test_laplace_says_when_it_is_an_approximation():
    prior, likelihood = nonlinear(20)
    found = Laplace()(bayes(prior, likelihood), 64, Rows(20, seed=1))
    _, _, evidence = quadrature(prior, likelihood)
    assert not found.exact
    assert ((found.diagnostics["log_evidence"] - evidence).mean()).abs() < 0.4  # measured: 0.13, deviation 0.39


@pytest.mark.parametrize("words", ["mask:left", "identity"])
def test_curvature_is_that_of_the_dense_jacobian(words):
    """Powers, diagonal, determinant; m < d by K K', m > d by K' K; both products against autograd's own Jacobian."""
    prior, likelihood = nonlinear(3)
    operator = parse_operator(words, SHAPE)
    likelihood = GaussianLikelihood(
        torch.zeros(3, *operator.out_shape, dtype=DOUBLE), operator, torch.tensor([0.3, 1.0, 2.0])
    )
    target = Target(bayes(prior, likelihood))
    u = Rows(3, seed=4).normal(2, dtype=DOUBLE)
    line = Linearisation(target, u)
    K = line.matrix()
    for i in range(3):
        alone = Target(bayes(prior, likelihood.take(torch.tensor([i]))))
        J = -torch.autograd.functional.jacobian(lambda v, t=alone: t.residual(v[None])[0], u[i])
        assert (K[i] - J).abs().max() < 1e-10
    bend = curvature(target, u, Rows(3))
    H = torch.eye(2, dtype=DOUBLE) + K.mT @ K
    v = Rows(3, seed=6).normal(2, dtype=DOUBLE)
    assert (bend.power(v, 1.0) - (H @ v[..., None])[..., 0]).abs().max() < 1e-9
    assert (bend.power(bend.power(v, -0.5), 0.5) - v).abs().max() < 1e-9
    assert (bend.diagonal() - H.diagonal(dim1=1, dim2=2)).abs().max() < 1e-9
    assert (bend.logdet() - torch.logdet(H)).abs().max() < 1e-9
    twice = bend.power(torch.cat([v, 2 * v]), -1.0)
    assert (twice[3:] - 2 * twice[:3]).abs().max() < 1e-12


def test_a_random_range_finds_the_sharp_directions():
    """30 latents, of which 3 are measured sharply and the rest hardly: 4 directions are enough."""
    weight = torch.linalg.qr(Rows(1, seed=1).normal(30, 30, dtype=DOUBLE)[0])[0]
    scale = torch.cat([torch.tensor([100.0, 30.0, 10.0], dtype=DOUBLE), torch.full((27,), 1e-3, dtype=DOUBLE)])
    operator = Matrix(weight * scale[:, None])
    likelihood = GaussianLikelihood(torch.zeros(2, 30, dtype=DOUBLE), operator, 1.0)
    target = Target(bayes(StandardNormal((30,)), likelihood))
    u = torch.zeros(2, 30, dtype=DOUBLE)
    full, few = curvature(target, u, Rows(2, seed=3)), curvature(target, u, Rows(2, seed=3), rank=4)
    assert full.complete
    assert not few.complete
    v = Rows(2, seed=4).normal(30, dtype=DOUBLE)
    assert (full.power(v, -0.5) - few.power(v, -0.5)).abs().max() < 1e-4
    assert (full.logdet() - few.logdet()).abs().max() < 1e-3
    assert target.calls == 2 * (1 + 30) + 2 * (1 + 2 * 12)


def test_settings_are_checked():
    for wrong in (lambda: MAP(starts=0), lambda: MAP(candidates=2), lambda: MAP(norm="round"), lambda: Laplace(rank=0)):
        with pytest.raises(InputError):
            wrong()
    assert MAP.published().norm == "sphere"
    assert Laplace.published().starts == 1
