"""One door to every kind of likelihood: what goes where, and what is refused."""

import math

import pytest
import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.evaluation.bits import dequantise
from oneprior.evaluation.likelihood import likelihood_of
from oneprior.models.configs.vae import VAEConfig
from oneprior.models.configs.vqvae import VQVAEConfig
from oneprior.models.vae import VAE
from oneprior.models.vqvae import VQVAE
from oneprior.priors.base import StandardNormal
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.priors.pushforward import NoisePushforward, Pushforward
from oneprior.priors.tokens import TabularTokens

SHAPE = (1, 4, 4)


def _law() -> LowRankGaussian:
    basis = torch.linalg.qr(Rows(16, seed=1).normal(3)).Q
    return LowRankGaussian(torch.full(SHAPE, 0.1), basis, torch.tensor([0.2, 0.1, 0.05]), 0.02)


class _Denoiser(DenoisingPrior):
    """A closed-form denoiser whose density is hidden, so that its ODE must be asked."""

    def __init__(self) -> None:
        self.inner = ClosedFormDenoiser(_law(), EDMSchedule())
        self.schedule, self.event_shape, self.moments = self.inner.schedule, self.inner.event_shape, _law()

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.inner.denoise(x_t, t)


def test_a_density_is_exact():
    law = _law()
    x = law.sample(Rows(30, seed=2))
    for prior in (law, GaussianMixturePrior([law], torch.ones(1)), ClosedFormDenoiser(law, EDMSchedule())):
        found = likelihood_of(prior, x, Rows(30))
        assert found.kind == "exact"
        torch.testing.assert_close(found.log_prob, law.log_prob(x).double(), rtol=1e-5, atol=1e-4)
        assert found.bits.mean == pytest.approx(-float(found.log_prob.mean()) / 16 / math.log(2), rel=1e-9)
        assert bool((found.error_of_estimate == 0).all())


def test_discrete_data_are_dequantised():
    law, rows = _law(), Rows(30, seed=3)
    x = ((law.sample(Rows(30, seed=2)).clamp(-1, 1) + 1) * 7.5).round() / 7.5 - 1
    found = likelihood_of(law, x, rows, levels=16)
    log_prob = law.log_prob(dequantise(x, rows, 16)).double()
    torch.testing.assert_close(found.log_prob, log_prob)
    assert found.bits.mean == pytest.approx(float(-log_prob.mean() / 16 / math.log(2)) - math.log2(2 / 15))
    assert "dequantised" in found.note
    with pytest.raises(InputError, match="off their levels"):
        likelihood_of(law, x, rows, levels=13)


def test_a_diffusion_by_its_flow_and_by_its_noise_road():
    prior, law = _Denoiser(), _law()
    x = law.sample(Rows(6, seed=2))
    for asked in (prior, prior.flow()):
        found = likelihood_of(asked, x, Rows(6), steps=48, probes=0)
        assert found.kind == "ode estimate"
        gap = (found.log_prob - law.noised_log_prob(x.double(), 1.0, 0.002)).abs()
        assert bool((gap <= found.error_of_estimate + 1e-2).all())
        assert "ODE" in found.note


def test_a_vae_by_its_encoder():
    """The bound rises with the draws, and its decoder is the model's own."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(latent=3, width=4), SHAPE).eval()
    with torch.no_grad():
        model.noise.fill_(math.log(0.1) / 10)
    x = model.prior().sample(Rows(20, seed=4))
    one, many = (likelihood_of(model.prior(), x, Rows(20, seed=5), encode=model.encode, k=k) for k in (1, 200))
    assert one.kind == many.kind == "lower bound"
    assert float((many.log_prob - one.log_prob).mean()) > 0
    # k = 1 is the training bound: the same numbers written out from the model's own parts
    mean, log_variance = model.encode(x)
    eps = Rows(20, seed=5).stream("importance").normal(3)
    error = (model._decode(mean + (0.5 * log_variance).exp() * eps) - x).square().flatten(1).sum(1)
    z = mean + (0.5 * log_variance).exp() * eps
    bound = -0.5 * (error / 0.1 + 16 * math.log(2 * math.pi * 0.1) + (z * z - eps * eps - log_variance).sum(1))
    torch.testing.assert_close(one.log_prob.float(), bound, rtol=1e-4, atol=1e-3)
    with pytest.raises(IncompatiblePrior, match=r"encode=vae\.encode"):
        likelihood_of(model.prior(), x, Rows(20))
    with pytest.raises(IncompatiblePrior, match="parzen"):
        likelihood_of(model.prior(decoder_noise=False), x, Rows(20), encode=model.encode)


def test_codes_are_counted_and_named_for_what_they_are():
    law = TabularTokens(Rows(1, seed=6).normal(3, 3)[0])
    codes = law.sample_codes(Rows(50, seed=7))
    found = likelihood_of(law, codes, Rows(50))
    assert found.kind == "codes"
    torch.testing.assert_close(found.log_prob, law.log_prob(codes).double())
    assert found.bits.mean == pytest.approx(-float(found.log_prob.mean()) / 2 / math.log(2))
    image = Pushforward(law, lambda z: z.flatten(1), torch.Size((6,)))
    decoded = likelihood_of(image, codes, Rows(50))
    assert decoded.bits.mean == pytest.approx(found.bits.mean * 2 / 6)
    assert "not of pixels" in decoded.note
    with pytest.raises(ShapeError, match="codes to score"):
        likelihood_of(law, codes[:, :1], Rows(50))


def test_a_vqvae_by_its_encoder():
    torch.manual_seed(0)
    model = VQVAE(
        VQVAEConfig(codes=8, latent=2, width=4, downsample=2, prior_width=8, prior_depth=1, prior_heads=1), SHAPE
    )
    model.eval()
    x = Rows(5, seed=8).normal(*SHAPE)
    found = likelihood_of(model.prior(), x, Rows(5), encode=model.codes)
    direct = model.prior().base.log_prob(model.codes(x)).double()  # type: ignore[attr-defined]
    torch.testing.assert_close(found.log_prob, direct.detach())
    with pytest.raises(IncompatiblePrior, match=r"encode=vqvae\.codes"):
        likelihood_of(model.prior(), x, Rows(5))


def test_parts_of_a_set_join_to_the_whole():
    law = _law()
    x = law.sample(Rows(30, seed=2))
    whole = likelihood_of(law, x, Rows(30))
    joined = likelihood_of(law, x[:7], Rows(7)) + likelihood_of(law, x[7:], Rows(range(7, 30)))
    torch.testing.assert_close(joined.log_prob, whole.log_prob)
    assert joined.bits.standard_error == pytest.approx(whole.bits.standard_error, rel=1e-6)
    with pytest.raises(InputError, match="cannot be joined"):
        whole + likelihood_of(_Denoiser(), x[:2], Rows(2), steps=4, probes=1)


def test_what_has_no_density_is_told_so():
    shape = torch.Size(SHAPE)
    gan = NoisePushforward(StandardNormal((5,)), lambda z: z.repeat(1, 4)[:, :16].reshape(-1, *SHAPE), shape)
    latent = Pushforward(_Denoiser(), lambda z: z, shape)
    x = torch.zeros(2, *SHAPE)
    with pytest.raises(IncompatiblePrior, match="GAN.*parzen_log_likelihood"):
        likelihood_of(gan, x, Rows(2))
    with pytest.raises(IncompatiblePrior, match=r"prior\.base.*parzen_log_likelihood"):
        likelihood_of(latent, x, Rows(2))
    with pytest.raises(ShapeError, match="events to score"):
        likelihood_of(_law(), x[..., :2], Rows(2))
