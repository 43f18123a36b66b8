"""Latent diffusion: scaled latents, the same loss from events and from latents, conditions, export, one state."""

import dataclasses

import pytest
import torch

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.data.batch import Batch
from oneprior.laws import check_prior
from oneprior.models.configs.diffusion import DiffusionConfig
from oneprior.models.configs.ldm import LDMConfig
from oneprior.models.configs.vae import VAEConfig
from oneprior.models.configs.vqvae import VQVAEConfig
from oneprior.models.ldm import LatentDiffusion
from oneprior.models.vae import VAE
from oneprior.models.vqvae import VQVAE

CONFIG = LDMConfig(diffusion=DiffusionConfig(width=8, multipliers=(1,), blocks=1, attention=(0,), network="unet"))
LABEL = ConditionSpec("label", "class", classes=3)
SCAN = ConditionSpec("scan", "image", shape=(1, 9, 9), via="concat")
WORDS = ConditionSpec("words", "tokens", shape=(3, 4), via="cross_attention")


def _autoencoder(kind="vae", shape=(1, 16, 16), **options):
    torch.manual_seed(0)
    if kind == "vae":
        return VAE(VAEConfig(spatial=True, width=8, **options), shape)
    model = VQVAE(
        VQVAEConfig(codes=12, latent=3, width=8, prior_width=16, prior_depth=1, prior_heads=2, **options), shape
    )
    with torch.no_grad():
        model(Batch(torch.randn(32, *shape)), "codec", Rows(32))
    return model


def _model(kind="vae", conditions=(), shape=(1, 16, 16), **options):
    model = LatentDiffusion.from_autoencoder(CONFIG, _autoencoder(kind, shape, **options), conditions)
    model.prepare(lambda: _passes(shape), Rows(1))
    return model


def _passes(shape=(1, 16, 16)):
    g = torch.Generator().manual_seed(1)
    return (Batch(2 + 3 * torch.randn(32, *shape, generator=g)) for _ in range(4))


@pytest.mark.parametrize("kind", ["vae", "vqvae"])
@torch.no_grad()
def test_latents_have_mean_0_and_variance_1(kind):
    model = _model(kind)
    z = torch.cat([model.latents(batch.x) for batch in _passes()])
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(z.shape[1]), atol=1e-3, rtol=0)
    square = z.square().mean((0, 2, 3))
    torch.testing.assert_close(
        square if kind == "vae" else square.mean(), torch.ones(z.shape[1] if kind == "vae" else ())
    )
    codec, inner = model.codec(), model.autoencoder.codec()
    x = next(_passes()).x
    torch.testing.assert_close(codec.decode(codec.encode(x)), inner.decode(inner.encode(x)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(2, 32), (1, 16, 16), (1, 8, 8, 8)], ids=str)
def test_events_and_latents_give_the_same_loss_in_any_dimension(shape):
    model, x = _model(shape=shape), torch.randn(4, *shape)
    with torch.no_grad():
        a = model(Batch(x), "all", Rows(4))
        b = model(Batch(model.latents(x)), "all", Rows(4))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert model.prior(steps=2).sample(Rows(2)).shape == (2, *shape)


def test_only_the_diffusion_learns():
    model = _model()
    sum(model(Batch(torch.randn(4, 1, 16, 16)), "all", Rows(4)).values()).backward()
    assert all(p.grad is None for p in model.autoencoder.parameters())
    assert {id(p) for p in model.players["all"]} == {id(p) for p in model.diffusion.parameters()}


@torch.no_grad()
def test_the_laws_of_priors():
    prior = _model().eval().prior(steps=3)
    check_prior(prior)
    assert prior.base.event_shape == (4, 4, 4)


@torch.no_grad()
def test_labels_images_and_tokens_reach_the_latents():
    model = _model(conditions=(LABEL, SCAN, WORDS))
    for p in model.diffusion.parameters():
        p.add_(0.1 * torch.randn_like(p))  # a fresh network is the zero function
    told = {"label": torch.tensor([1]), "scan": torch.randn(1, 1, 9, 9), "words": torch.randn(1, 3, 4)}
    x = model.prior(told, steps=2).sample(Rows(2))
    for name, other in {"label": torch.tensor([2]), "scan": -told["scan"], "words": -told["words"]}.items():
        changed = model.prior(told | {name: other}, steps=2).sample(Rows(2))
        assert (changed - x).abs().max() > 1e-6, name
    losses = model(
        Batch(torch.randn(2, 1, 16, 16), {k: v.expand(2, *v.shape[1:]) for k, v in told.items()}), "all", Rows(2)
    )
    assert all(bool(v.isfinite()) for v in losses.values())


@pytest.mark.parametrize("kind", ["vae", "vqvae"])
@torch.no_grad()
def test_config_and_state_are_everything(kind):
    model = _model(kind, adversarial=0.1).eval()
    again = LatentDiffusion(model.config, model.event_shape).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.prior(steps=2).sample(Rows(2)), model.prior(steps=2).sample(Rows(2)))
    assert not any(name.startswith("autoencoder.sharpness") for name in model.state_dict())


@pytest.mark.parametrize("kind", ["vae", "vqvae"])
@torch.no_grad()
def test_the_scale_folds_into_diffusers_own_network(kind):
    model = _model(kind, network="diffusers").eval()
    net, x = model.diffusers_autoencoder().eval(), next(_passes()).x
    z = model.latents(x)
    encoded = net.encode(x)
    mean = encoded.latent_dist.mean if kind == "vae" else encoded.latents
    torch.testing.assert_close(mean, z, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(net.decode(z).sample, model.codec().decode(z), atol=1e-3, rtol=1e-4)
    assert net.config.scaling_factor == 1.0


def test_errors_say_what_is_needed():
    with pytest.raises(InputError, match="latents are a grid"):
        LatentDiffusion.from_autoencoder(CONFIG, VAE(VAEConfig(width=4), (1, 8, 8)))
    with pytest.raises(InputError, match="nothing is gained"):
        LatentDiffusion.from_autoencoder(CONFIG, _autoencoder(downsample=1, latent=1))
    with pytest.raises(ShapeError, match="a batch of ldm"):
        _model()(Batch(torch.zeros(2, 1, 8, 8)), "all", Rows(2))
    with pytest.raises(InputError, match="diffusers cannot read"):
        _model().diffusers_autoencoder()
    odd = _model(shape=(1, 14, 14), network="diffusers")
    with pytest.raises(InputError, match="padded"):
        odd.diffusers_autoencoder()
    assert dataclasses.asdict(odd.config)["vae"]["network"] == "diffusers"
