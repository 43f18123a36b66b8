"""Probabilistic PCA against dense Gaussians in float64."""

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.laws import check_prior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.moments import HeldOutMoments, Moments

SHAPE = (1, 3, 4)


def _law(dtype=torch.float64, rank=3, noise=0.05, seed=0):
    rows = Rows(12, seed=seed)
    basis = torch.linalg.qr(rows.normal(rank, dtype=dtype))[0] if rank else torch.zeros(12, 0, dtype=dtype)
    variances = torch.tensor([2.0, 0.7, 0.2], dtype=dtype)[:rank]
    mean = 0.3 * rows.normal(1, dtype=dtype).reshape(SHAPE)
    return LowRankGaussian(mean, basis, variances, noise)


def _dense(law):
    covariance = (law.basis * law.variances) @ law.basis.T + law.noise_variance * torch.eye(12, dtype=law.basis.dtype)
    return torch.distributions.MultivariateNormal(law.mean.flatten(), covariance)


def test_laws():
    check_prior(_law(torch.float32))
    check_prior(_law(torch.float32).noise_free())


@pytest.mark.parametrize("rank", [0, 3])
def test_density_is_the_dense_one(rank):
    law = _law(rank=rank)
    x = law.sample(Rows(6, seed=1)).double()
    assert torch.allclose(law.log_prob(x), _dense(law).log_prob(x.flatten(1)), atol=1e-9)


def test_covariance_powers_and_diagonal():
    law = _law()
    dense, v = _dense(law).covariance_matrix, Rows(4, seed=2).normal(*SHAPE, dtype=torch.float64)
    flat = v.flatten(1)
    assert torch.allclose(law.covariance()(v).flatten(1), flat @ dense)
    assert torch.allclose(law.covariance().power(-1)(v).flatten(1), flat @ torch.linalg.inv(dense))
    root = law.covariance().power(0.5)
    assert torch.allclose(root(root(v)), law.covariance()(v))
    assert torch.allclose(law.covariance().diagonal(), dense.diagonal())
    assert torch.allclose(law.covariance().logdet(), dense.logdet())


@pytest.mark.parametrize("per_row", [False, True])
def test_denoiser_and_conditional_covariance_are_bayes(per_row):
    law = _law()
    alpha, sigma = torch.tensor([0.9, 0.5, 0.0, 1.0]).double(), torch.tensor([0.3, 2.0, 1.0, 0.01]).double()
    if not per_row:
        alpha, sigma = alpha[0], sigma[0]
    x_t = Rows(4, seed=3).normal(*SHAPE, dtype=torch.float64)
    got, spread = law.denoise(x_t, alpha, sigma), law.posterior_covariance(alpha, sigma)
    S = _dense(law).covariance_matrix
    for i in range(4):
        a, s = alpha.expand(4)[i], sigma.expand(4)[i]
        gain = a * S @ torch.linalg.inv(a * a * S + s * s * torch.eye(12))
        mean = law.mean.flatten() + gain @ (x_t[i].flatten() - a * law.mean.flatten())
        assert torch.allclose(got[i].flatten(), mean, atol=1e-10)
        conditional = S - gain @ (a * S)
        v = x_t[i : i + 1]
        row = spread if not per_row else type(spread)(spread.basis, spread.on[i], spread.rest[i])
        assert torch.allclose(row(v).flatten(), conditional @ v.flatten(), atol=1e-10)


def test_encode_inverts_decode():
    law = _law()
    x = law.sample(Rows(5, seed=1)).double()
    assert torch.allclose(law.decode(law.encode(x)), x, atol=1e-12)


def test_fit_is_the_closed_form_of_tipping_and_bishop():
    x = _law().sample(Rows(500, seed=4)).double()
    law = LowRankGaussian.fit(x.split(64), rank=2, dtype=torch.float64)
    flat = x.flatten(1) - x.flatten(1).mean(0)
    values, vectors = torch.linalg.eigh(flat.T @ flat / 500)
    assert torch.allclose(law.mean.flatten(), x.flatten(1).mean(0))
    assert torch.allclose(law.noise_variance, values[:-2].mean())
    assert torch.allclose(law.variances, values.flip(0)[:2] - values[:-2].mean())
    overlap = (law.basis.T @ vectors[:, -2:]).abs().flip(1)
    assert torch.allclose(overlap, torch.eye(2, dtype=torch.float64), atol=1e-8)


def test_rank_is_found_by_held_out_likelihood():
    x = _law(noise=0.01).sample(Rows(2000, seed=5))
    assert LowRankGaussian.fit(x.split(256)).rank == 3


def test_weights_and_merging_are_repetition():
    x = Rows(30, seed=6).normal(5, dtype=torch.float64)
    weight = torch.arange(30) % 3
    plain, weighted, merged, part = Moments(5), Moments(5), Moments(5), Moments(5)
    plain.update(x.repeat_interleave(weight, dim=0))
    weighted.update(x, weight.double())
    merged.update(x[:10], weight[:10].double())
    part.update(x[10:], weight[10:].double())
    merged.merge(part)
    for other in (weighted, merged):
        assert torch.allclose(other.mean, plain.mean)
        assert torch.allclose(other.scatter, plain.scatter)
        assert torch.allclose(other.trace, plain.trace)


def test_streaming_directions_agree_with_the_dense_ones(monkeypatch):
    x = _law(noise=0.01).sample(Rows(400, seed=7))
    dense = LowRankGaussian.fit(x.split(32), rank=3)
    monkeypatch.setattr("oneprior.priors.moments.DENSE_LIMIT", 4)
    monkeypatch.setattr("oneprior.priors.moments._CARRIED", 8)
    streamed = LowRankGaussian.fit(x.split(32), rank=3)
    assert HeldOutMoments(12).fitted.dense is False
    assert torch.allclose(streamed.noise_variance, dense.noise_variance, rtol=0.02)
    assert torch.allclose(streamed.variances, dense.variances, rtol=0.01)
    assert torch.allclose((streamed.basis.T @ dense.basis).abs(), torch.eye(3), atol=0.05)


def test_mistakes_are_told():
    with pytest.raises(InputError, match="at least 2 rows"):
        LowRankGaussian.fit([torch.zeros(1, *SHAPE)])
    with pytest.raises(InputError, match="rank 12"):
        LowRankGaussian.fit([torch.randn(30, *SHAPE)], rank=12)
    with pytest.raises(ShapeError):
        LowRankGaussian(torch.zeros(SHAPE), torch.zeros(5, 2), torch.zeros(2), 0.1)
    with pytest.raises(InputError, match="noise_variance > 0"):
        LowRankGaussian(torch.zeros(SHAPE), torch.zeros(12, 0), torch.zeros(0), 0.0)
