"""The IWAE bound of linear decoders, whose likelihood and posterior are closed forms."""

import math

import pytest
import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.evaluation.importance import GaussianDecoder, importance_bound
from oneprior.priors.base import StandardNormal
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.pushforward import NoisePushforward

Q, SHAPE = 2, (1, 3, 2)


def _law() -> LowRankGaussian:
    rows = Rows(6, seed=1)
    basis = torch.linalg.qr(rows.normal(Q, dtype=torch.float64)).Q
    return LowRankGaussian(
        rows.normal(dtype=torch.float64).reshape(SHAPE), basis, torch.tensor([1.0, 0.3], dtype=torch.float64), 0.2
    )


class _Encoder:
    """The exact posterior of the law's z, its mean moved and its deviation scaled."""

    def __init__(self, shift: float = 0.0, scale: float = 1.0) -> None:
        self.law, self.shift, self.scale = _law(), shift, scale

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        law = self.law
        variance = law.noise_variance / (law.variances + law.noise_variance)
        mean = law.encode(x)[:, :Q] + self.shift
        return mean, (variance * self.scale**2).log().expand_as(mean)


def _x(n: int = 40) -> Tensor:
    return _law().sample(Rows(n, seed=2)).double()


def _decoder() -> GaussianDecoder:
    return GaussianDecoder.of(_law())


def test_the_decoder_is_read_out_of_the_prior():
    law, decoder = _law(), _decoder()
    assert decoder.size == Q
    assert decoder.noise_level == pytest.approx(math.sqrt(0.2), rel=1e-6)
    z = Rows(3, seed=3).normal(Q, dtype=torch.float64)
    torch.testing.assert_close(decoder.mean(z), law.noise_free().decode(z))


def test_the_exact_posterior_is_tight_from_one_draw_on():
    x = _x()
    for k in (1, 7):
        found = importance_bound(_decoder(), _Encoder(), x, Rows(40, seed=4), k=k, chunk=3)
        torch.testing.assert_close(found.bound, _law().log_prob(x), rtol=1e-6, atol=1e-6)
    assert float(found.error.max()) < 1e-3
    torch.testing.assert_close(found.elbo, found.bound, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.effective_sample_size, torch.full((40,), 7.0, dtype=torch.float64))


def test_one_draw_of_a_wrong_encoder_loses_its_divergence_from_the_posterior():
    """log p(x) - L_1 = KL(q | p(z | x)), which is known for two Gaussians."""
    x, shift, scale = _x(200), 0.2, 1.3
    found = importance_bound(_decoder(), _Encoder(shift, scale), x, Rows(200, seed=5), k=500, chunk=100)
    law = _law()
    variance = law.noise_variance / (law.variances + law.noise_variance)
    divergence = (0.5 * (scale**2 - 1 - 2 * math.log(scale) + shift**2 / variance)).sum()
    z = (law.log_prob(x) - divergence - found.elbo) / found.elbo_error
    assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / 200)
    assert abs(float(z.mean())) < 4 / math.sqrt(200)


def test_the_bound_lies_below_and_rises_with_the_draws():
    x = _x(400)
    gaps = []
    for k in (1, 4, 16, 400):
        found = importance_bound(_decoder(), _Encoder(0.3, 1.2), x, Rows(400, seed=6), k=k)
        gaps.append(_law().log_prob(x) - found.bound)
    means = [float(gap.mean()) for gap in gaps]
    assert means == sorted(means, reverse=True)
    assert means[0] > 4 * float(gaps[0].std()) / math.sqrt(400)
    z = gaps[-1] / found.error
    assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / 400)


def test_neither_chunks_nor_the_batch_change_a_row():
    x = _x()
    whole = importance_bound(_decoder(), _Encoder(0.3), x, Rows(40, seed=7), k=11, chunk=11)
    parts = importance_bound(_decoder(), _Encoder(0.3), x[8:12], Rows(range(8, 12), seed=7), k=11, chunk=2)
    for name in ("bound", "error", "elbo", "elbo_error", "effective_sample_size"):
        torch.testing.assert_close(getattr(whole, name)[8:12], getattr(parts, name))


def test_an_encoder_that_misses_is_seen_in_the_effective_sample_size():
    x = _x()
    found = importance_bound(_decoder(), _Encoder(3.0, 0.5), x, Rows(40, seed=8), k=100)
    assert float(found.effective_sample_size.median()) < 5
    assert bool((found.bound < _law().log_prob(x)).all())


def test_priors_without_the_decoder_s_noise_are_refused():
    narrow = NoisePushforward(StandardNormal((3,)), lambda z: z.repeat(1, 2).reshape(-1, *SHAPE), torch.Size(SHAPE))
    wide = NoisePushforward(StandardNormal((9,)), lambda z: z[:, 3:].tanh().reshape(-1, *SHAPE), torch.Size(SHAPE))
    for prior, why in (
        (narrow, "3 numbers of noise for 6"),
        (wide, "not simply added"),
        (_law().noise_free(), "2 num"),
    ):
        with pytest.raises(IncompatiblePrior, match=why) as raised:
            GaussianDecoder.of(prior)
        assert "parzen_log_likelihood" in str(raised.value)


def test_errors():
    x = _x(4)
    with pytest.raises(InputError, match="k >= 1"):
        importance_bound(_decoder(), _Encoder(), x, Rows(4), k=0)
    with pytest.raises(InputError, match="nan"):
        importance_bound(_decoder(), _Encoder(), x / 0, Rows(4))
    with pytest.raises(ShapeError, match="one row for each"):
        importance_bound(_decoder(), _Encoder(), x, Rows(5))
    with pytest.raises(ShapeError, match="own encoder"):
        importance_bound(_decoder(), lambda x: (x.flatten(1), x.flatten(1)), x, Rows(4))
