"""The VAE's bound against closed forms, its noise, its prior, its codec."""

import dataclasses

import pytest
import torch

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.data.batch import Batch
from oneprior.laws import check_prior
from oneprior.models.configs.vae import VAEConfig
from oneprior.models.vae import VAE
from oneprior.priors.base import NoisePrior

LABEL = ConditionSpec("label", "class", classes=3)
POSE = ConditionSpec("pose", "vector", shape=(2,))


class Linear(torch.nn.Module):
    """x -> (A x + b), reshaped; deaf to what is told."""

    def __init__(self, matrix, offset, shape):
        super().__init__()
        self.matrix, self.offset, self.shape = matrix, offset, shape

    def forward(self, x, told=None):
        return (x.flatten(1) @ self.matrix.T + self.offset).reshape(len(x), *self.shape)


def _linear_gaussian(d=6, q=2, sigma=0.3):
    """A VAE whose decoder is x = W z + m and whose encoder is the exact posterior (probabilistic PCA)."""
    g = torch.Generator().manual_seed(0)
    w = torch.linalg.qr(torch.randn(d, q, generator=g))[0] * torch.tensor([1.5, 0.7])
    m = torch.randn(d, generator=g)
    vae = VAE(VAEConfig(latent=q, encoder_noise=0.0), (1, d)).eval()
    inner = w.T @ w + sigma**2 * torch.eye(q)  # diagonal, as w has orthogonal columns
    project = torch.linalg.solve(inner, w.T)
    log_variance = (sigma**2 / inner.diagonal()).log()
    vae.encoder = Linear(torch.cat([project, torch.zeros(q, d)]), torch.cat([-project @ m, log_variance]), (2 * q,))
    vae.decoder = Linear(w, m, (1, d))
    with torch.no_grad():
        vae.noise.fill_(2 * torch.tensor(sigma).log() / 10.0)
    exact = torch.distributions.MultivariateNormal(m, w @ w.T + sigma**2 * torch.eye(d))
    return vae, exact


@torch.no_grad()
def test_with_the_exact_posterior_the_bound_is_the_evidence():
    vae, exact = _linear_gaussian()
    assert float(vae.log_variance) == pytest.approx(2 * torch.tensor(0.3).log().item(), abs=1e-5)
    x = exact.sample((1,)).reshape(1, 1, 6).expand(4000, 1, 6)
    draws = torch.stack([vae(Batch(x[:50]), "all", Rows(50, seed=s))["metric/elbo"] for s in range(80)]) * 6
    error = draws.std() / 80**0.5
    assert abs(float(draws.mean() - exact.log_prob(x[0, 0]))) < 4 * float(error)


@torch.no_grad()
def test_a_wrong_posterior_costs_its_divergence():
    """E[log p - bound] = KL(q || posterior): the mean moved by delta costs delta^2 / (2 var)."""
    vae, exact = _linear_gaussian()
    x = exact.sample((1,)).reshape(1, 1, 6).expand(2000, 1, 6)
    before = vae(Batch(x), "all", Rows(2000))["metric/elbo"] * 6
    variance = vae.encoder.offset[2:].exp()
    vae.encoder.offset[0] += 0.4
    after = vae(Batch(x), "all", Rows(2000))["metric/elbo"] * 6
    assert float(before - after) == pytest.approx(float(0.16 / (2 * variance[0])), rel=0.1)


def test_the_learned_noise_is_the_error_of_the_reconstructions():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent=2, width=2, encoder_noise=0.0), (1, 8))
    x = torch.randn(256, 1, 8)
    vae.prepare(lambda: iter([Batch(x)]), Rows(1))
    assert float(vae.log_variance.detach()) == pytest.approx(float(x.var().log()), abs=1e-4)
    optimiser = torch.optim.Adam([vae.noise], 1e-2)
    for _ in range(300):
        optimiser.zero_grad()
        vae(Batch(x), "all", Rows(256))["reconstruction"].backward()
        optimiser.step()
    with torch.no_grad():
        mean, log_variance = vae.encode(x)
        z = mean + (0.5 * log_variance).exp() * Rows(256).normal(2)
        error = (vae._decode(z) - x).square().mean()
    assert float(vae.log_variance.detach().exp()) == pytest.approx(float(error), rel=1e-3)


@torch.no_grad()
def test_the_prior_of_the_linear_model_has_its_covariance():
    vae, exact = _linear_gaussian()
    n = 20_000
    x = vae.prior().sample(Rows(n)).flatten(1)
    gap = (x.T.cov() - exact.covariance_matrix) / (2 / n) ** 0.5 / exact.variance.outer(exact.variance).sqrt()
    assert float(gap.abs().max()) < 4.5
    surface = vae.prior(decoder_noise=False)
    assert surface.noise_shape == (2,)
    assert torch.linalg.matrix_rank(surface.sample(Rows(50)).flatten(1).T.cov(), atol=1e-3) == 2


@pytest.mark.parametrize("config", [VAEConfig(width=4), VAEConfig(width=4, network="light"),
                                    VAEConfig(width=8, spatial=True)], ids=["mlp", "light", "spatial"])  # fmt: skip
def test_the_laws_of_priors(config):
    torch.manual_seed(0)
    vae = VAE(config, (1, 8, 8)).eval()
    for noise in (True, False):
        prior = vae.prior(decoder_noise=noise)
        assert isinstance(prior, NoisePrior)
        assert prior.noise_shape == (vae.latent_shape.numel() + 64 * noise,)
        check_prior(prior)


def test_conditions_reach_encoder_and_decoder_and_repeat_draw_major():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(width=4), (1, 8, 8), (LABEL, POSE)).eval()
    told = {"label": torch.tensor([0, 2]), "pose": torch.randn(2, 2)}
    u = torch.randn(1, 16).expand(4, 16)
    with torch.no_grad():
        x = vae.prior(told, decoder_noise=False).decode(u)
        torch.testing.assert_close(x[:2], x[2:])
        assert (x[0] - x[1]).abs().max() > 1e-4
        same = torch.zeros(2, 1, 8, 8)
        mean, _ = vae.encode(same, told)
        assert (mean[0] - mean[1]).abs().max() > 1e-4
        absent = vae.prior(decoder_noise=False).decode(u)
        torch.testing.assert_close(absent[:1], absent[1:2])


def test_withheld_conditions_are_the_absent_ones():
    torch.manual_seed(0)
    config = VAEConfig(width=4, condition_dropout=1.0, encoder_noise=0.0)
    vae, x = VAE(config, (1, 8, 8), (LABEL,)), torch.randn(5, 1, 8, 8)
    told = vae(Batch(x, {"label": torch.tensor([0, 1, 2, 0, 1])}), "all", Rows(5))
    missing = Batch(x, {"label": torch.zeros(5, dtype=torch.int64)}, {"label": torch.zeros(5, dtype=torch.bool)})
    assert torch.equal(told["reconstruction"], vae(missing, "all", Rows(5))["reconstruction"])


def test_a_row_s_noise_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    vae, x = VAE(VAEConfig(width=4), (1, 8, 8)), torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        whole = vae(Batch(x), "all", Rows(4))["metric/elbo"]
        halves = [vae(Batch(x[i : i + 2]), "all", Rows([i, i + 1]))["metric/elbo"] for i in (0, 2)]
    torch.testing.assert_close(whole, sum(halves) / 2)


def test_training_raises_the_bound_and_weights_count():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent=4, width=8), (1, 4, 4))
    x = torch.randn(128, 3) @ torch.randn(3, 16)
    batch = Batch(x.reshape(128, 1, 4, 4) / 3)
    vae.prepare(lambda: iter([batch]), Rows(1))
    optimiser = torch.optim.Adam(vae.players["all"], 2e-3)
    bounds = []
    for step in range(200):
        losses = vae(batch, "all", Rows(128, seed=step))
        optimiser.zero_grad()
        (losses["reconstruction"] + losses["divergence"]).backward()
        optimiser.step()
        bounds.append(float(losses["metric/elbo"]))
    assert sum(bounds[-10:]) / 10 > sum(bounds[:10]) / 10 + 0.3
    weight = torch.zeros(128)
    weight[:64] = 2.0
    half = vae(Batch(batch.x[:64]), "all", Rows(64))["divergence"]
    torch.testing.assert_close(vae(dataclasses.replace(batch, weight=weight), "all", Rows(128))["divergence"], half)


def test_a_sharpened_codec_has_a_critic_that_learns_apart():
    torch.manual_seed(0)
    config = VAEConfig(spatial=True, width=8, adversarial=0.1, perceptual=1.0, adversarial_start=0.5)
    vae, batch = VAE(config, (1, 8, 8)), Batch(torch.randn(6, 1, 8, 8))
    assert list(vae.players) == ["critic", "all"]
    assert not {id(p) for p in vae.players["critic"]} & {id(p) for p in vae.players["all"]}
    early = vae(batch, "all", Rows(6))
    assert "perceptual" in early
    assert "adversarial" not in early
    vae.progress = 0.6
    sum(v for k, v in vae(batch, "all", Rows(6)).items() if not k.startswith("metric/")).backward()
    assert all(p.grad is None for p in vae.players["critic"])
    assert all(p.grad is not None for p in vae.players["all"])
    vae.zero_grad()
    vae(batch, "critic", Rows(6))["critic"].backward()
    assert all(p.grad is None for p in vae.players["all"])
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in vae.players["critic"])


@torch.no_grad()
def test_diffusers_round_trip():
    torch.manual_seed(0)
    vae = VAE(VAEConfig(spatial=True, network="diffusers", width=8), (1, 16, 16)).eval()
    x = torch.randn(2, 1, 16, 16)
    again = VAE.from_diffusers(vae.to_diffusers(), (1, 16, 16)).eval()
    torch.testing.assert_close(again.codec().decode(again.codec().encode(x)), vae.codec().decode(vae.codec().encode(x)))
    third = VAE(again.config, (1, 16, 16))
    third.load_state_dict(again.state_dict())


def test_errors_say_what_is_needed():
    image = ConditionSpec("scan", "image", shape=(1, 8, 8), via="concat")
    with pytest.raises(InputError, match="scan is an image"):
        VAE(VAEConfig(), (1, 8, 8), (image,))
    with pytest.raises(InputError, match="takes no conditions"):
        VAE(VAEConfig(spatial=True), (1, 8, 8), (LABEL,))
    with pytest.raises(InputError, match="2-D events with a grid"):
        VAE(VAEConfig(network="diffusers"), (1, 8, 8))
    with pytest.raises(InputError, match="diffusers cannot read"):
        VAE(VAEConfig(spatial=True, width=8), (1, 8, 8)).to_diffusers()
    with pytest.raises(InputError, match="spatial=True"):
        VAE(VAEConfig(width=4), (1, 8, 8)).codec()
    with pytest.raises(ShapeError, match=r"needed \(n, 1, 8, 8\)"):
        VAE(VAEConfig(width=4), (1, 8, 8)).encode(torch.zeros(2, 1, 9, 8))
    with pytest.raises(InputError, match=r"0 \.\. 2"):
        VAE(VAEConfig(width=4), (1, 8, 8), (LABEL,)).prior({"label": torch.tensor([3])})
