"""StyleGAN2: layers against explicit formulas and, where it is at hand, the generator against the official one."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.nets.adversarial import Given
from oneprior.nets.style_critic import StyleCritic, minibatch_deviation
from oneprior.nets.style_generator import StyleGenerator
from oneprior.nets.stylegan import (
    EqualConv,
    EqualLinear,
    downsample2,
    modulated_conv,
    resample_filter,
    style_grids,
    unit_second_moment,
    upsample2,
)

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "stylegan2"


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_modulated_convolution_is_a_convolution_per_row(demodulate, kernel):
    rows = Rows(3)
    x, style = rows.normal(4, 6, 5, dtype=torch.float64), rows.normal(4, dtype=torch.float64)
    weight = Rows(2, seed=1).normal(4, kernel, kernel, dtype=torch.float64)
    y = modulated_conv(x, weight, style, demodulate=demodulate)
    for i in range(3):
        own = weight * style[i][None, :, None, None]
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        torch.testing.assert_close(y[i], F.conv2d(x[i : i + 1], own, padding=kernel // 2)[0])


def test_modulated_upsampling_is_zeros_filter_and_flipped_convolution():
    """Away from the border: insert zeros, filter with gain 4, convolve with the flipped kernel."""
    rows = Rows(2)
    x, style = rows.normal(3, 6, 6, dtype=torch.float64), rows.normal(3, dtype=torch.float64)
    weight = Rows(5, seed=1).normal(3, 3, 3, dtype=torch.float64)
    y = modulated_conv(x, weight, style, up_filter=resample_filter().double())
    assert y.shape == (2, 5, 12, 12)
    own = weight * style[0][None, :, None, None]
    own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
    up = upsample2(x[:1], resample_filter().double())
    expected = F.conv2d(up, own.flip(2, 3), padding=1)
    torch.testing.assert_close(y[:1, :, 3:-3, 3:-3], expected[:, :, 3:-3, 3:-3])


def test_demodulation_gives_unit_variance():
    x, style = Rows(64).normal(8, 16, 16), 5 * Rows(64, seed=2).uniform(8)
    y = modulated_conv(x, torch.randn(8, 8, 3, 3), style)[:, :, 1:-1, 1:-1]
    assert float(y.var()) == pytest.approx(1.0, rel=0.05)


def test_resampling_has_unit_gain_and_the_two_maps_are_adjoint():
    kernel = resample_filter().double()
    ones = torch.ones(1, 2, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(upsample2(ones, kernel)[:, :, 2:-2, 2:-2], torch.ones(1, 2, 12, 12).double())
    torch.testing.assert_close(downsample2(ones, kernel)[:, :, 1:-1, 1:-1], torch.ones(1, 2, 2, 2).double())
    x, y = Rows(2).normal(3, 4, 4, dtype=torch.float64), Rows(2, seed=1).normal(3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close((upsample2(x, kernel) * y).sum(), 4 * (x * downsample2(y, kernel)).sum())
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    zeros = torch.zeros(12)
    zeros[2:10:2] = torch.tensor([1.0, 2.0, -1.0, 0.5])  # the one-dimensional formula, written out
    expected = torch.stack([(2 * line * zeros[i : i + 4]).sum() for i in range(8)])
    flat = zeros[2:10:2].reshape(1, 1, 1, 4).expand(1, 1, 8, 4)
    torch.testing.assert_close(upsample2(flat, resample_filter())[0, 0, 8], expected)


def test_equalised_layers_scale_by_the_number_of_inputs():
    layer = EqualLinear(9, 4, rate=0.01, bias=1.0)
    x = Rows(3).normal(9)
    torch.testing.assert_close(layer(x), x @ (layer.weight * 0.01 / 3).T + 1.0)
    conv = EqualConv(2, 3, 3)
    x = Rows(2).normal(2, 4, 4)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight / math.sqrt(18), padding=1))
    halved = EqualConv(2, 3, 3, down=True)
    assert halved(x).shape == (2, 3, 2, 2)


def test_unit_second_moment():
    torch.testing.assert_close(unit_second_moment(Rows(4).normal(16)).square().mean(1), torch.ones(4))


def test_minibatch_deviation_is_of_groups_of_consecutive_rows():
    x = Rows(6).normal(2, 3, 3)
    y = minibatch_deviation(x, 4)  # 4 does not divide 6: groups of 3
    for k in (0, 3):
        expected = (x[k : k + 3].var(0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(y[k : k + 3], expected.expand(3, 1, 3, 3))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 80, 96), (1, 8, 8), (2, 5, 7), (1, 17, 40)])
def test_any_size_of_picture(shape):
    generator, critic = StyleGenerator(shape, latent=8, style=8, width=4, max_width=8), StyleCritic(shape, width=4)
    x = generator(Rows(2).normal(8), Given())
    assert x.shape == (2, *shape)
    assert critic(x, Given()).shape == (2,)
    assert 0.05 < float(x.detach().std()) < 20


@pytest.mark.parametrize(("shape", "patch"), [((1, 32, 32), 2), ((3, 17, 30), 4), ((2, 9, 8), 2)])
def test_the_finest_level_works_on_patches(shape, patch):
    sizes = {"width": 4, "max_width": 8, "patch": patch}
    generator, critic = StyleGenerator(shape, latent=8, style=8, **sizes), StyleCritic(shape, **sizes)
    assert generator.synthesis.noise_shapes[-1] == critic.grids[0]
    assert critic.grids[0][0] >= -(-shape[1] // patch) > critic.grids[0][0] // 2
    plain = generator(Rows(1).normal(8), Given())
    assert plain.shape == (1, *shape)
    assert critic(plain, Given()).shape == (1,)


def test_patches_of_a_picture_reach_the_critic_as_channels():
    critic = StyleCritic((1, 8, 8), width=4, patch=2)
    x = Rows(2).normal(1, 8, 8).requires_grad_()
    seen = []
    critic.fromrgb.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    critic(x, Given())
    assert seen[0].shape == (2, 4, 4, 4)
    torch.testing.assert_close(seen[0][:, :, 1, 2].sort(1)[0], x[:, 0, 2:4, 4:6].flatten(1).sort(1)[0])
    with pytest.raises(ShapeError, match="height >= 7"):
        StyleCritic((1, 6, 8), patch=2)


def test_grids():
    assert style_grids((28, 28)) == [(4, 4), (8, 8), (16, 16), (32, 32)]
    assert style_grids((80, 96)) == [(5, 6), (10, 12), (20, 24), (40, 48), (80, 96)]
    assert style_grids((6, 5)) == [(6, 5)]


def test_what_stylegan2_cannot_do_is_refused():
    with pytest.raises(ShapeError, match="network='conv'"):
        StyleGenerator((1, 16))
    with pytest.raises(InputError, match="network='conv'"):
        StyleCritic((1, 8, 8), (ConditionSpec("mask", "image", (1, 8, 8), via="concat"),))


def test_truncation_draws_towards_the_average():
    mapping = StyleGenerator((1, 8, 8), latent=8, style=8).mapping
    mapping.w_avg.copy_(torch.randn(8))
    z = Rows(3).normal(8)
    w = mapping.style_of(z, Given())
    torch.testing.assert_close(mapping(z, Given(), 0.3)[:, 0], mapping.w_avg + 0.3 * (w - mapping.w_avg))
    assert torch.equal(mapping(z, Given(), 0.0)[0, 1], mapping.w_avg)


def test_noise_reaches_every_layer_and_rows_are_apart():
    torch.manual_seed(0)
    generator = StyleGenerator((1, 8, 8), latent=8, style=8, width=4)
    z, noise = Rows(2).normal(8), Rows(2, seed=1).normal(generator.noise_size)
    assert generator.noise_size == 16 + 64 + 64
    torch.testing.assert_close(generator(z, Given(), noise), generator(z, Given()))  # strengths start at zero
    for name, p in generator.named_parameters():
        if name.endswith("noise_strength"):
            p.data.fill_(0.5)
    noise.requires_grad_()
    x = generator(z, Given(), noise)
    (g,) = torch.autograd.grad(x[0].square().sum(), noise)
    assert bool((g[0] != 0).float().mean() > 0.9)
    assert bool((g[1] == 0).all())
    with pytest.raises(ShapeError, match="noise"):
        generator(z, Given(), noise[:, :5])


def test_moments_of_w_are_those_of_mapped_noise_for_each_condition():
    torch.manual_seed(0)
    label = ConditionSpec("label", "class", classes=3)
    mapping = StyleGenerator((1, 8, 8), (label,), latent=4, style=5).mapping
    mean, root = mapping.moments(Given({"label": torch.tensor([2, 0, 2])}))
    assert mean.shape == (3, 5)
    assert torch.equal(root[0], root[2])
    n = 10_000
    fresh = Given({"label": torch.full((n,), 2)})
    w = mapping.style_of(Rows(n, seed=9).normal(4), fresh).detach()
    error = (w.var(0) * 2 / n).sqrt()  # of the difference of two means of n
    assert float(((w.mean(0) - mean[0]) / error).abs().max()) < 5
    cov = root[0] @ root[0]
    spread = torch.einsum("ni,nj->nij", w - w.mean(0), w - w.mean(0))
    error = (spread.var(0) * 2 / n).sqrt()
    assert float(((torch.cov(w.T) - cov) / error).abs().max()) < 5
    assert not torch.allclose(mean[0], mean[1], atol=1e-3)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the official generator's figures are not at hand")
@pytest.mark.parametrize("name", ["unconditional", "conditional_grey"])
def test_the_generator_equals_the_official_one(name):
    from safetensors.torch import load_file

    config = json.loads((REFERENCE / "config.json").read_text())[name]
    weights, io = (load_file(REFERENCE / f"{name}_{part}.safetensors") for part in ("weights", "io"))
    size, classes = config["img_resolution"], config["c_dim"]
    generator = StyleGenerator(
        (config["img_channels"], size, size),
        (ConditionSpec("label", "class", classes=classes),) if classes else (),
        latent=config["z_dim"],
        style=config["w_dim"],
        width=config["channel_base"] // size,
        max_width=config["channel_max"],
        mapping_layers=config["mapping_layers"],
    )
    weights = {k: v for k, v in weights.items() if not k.endswith("resample_filter")}
    given = Given()
    if classes:
        columns, bias = weights.pop("mapping.embed.weight"), weights.pop("mapping.embed.bias")
        weights["mapping.embed.embed.label.weight"] = columns.T / math.sqrt(classes) + bias
        weights["mapping.embed.absent.label"] = torch.zeros(config["w_dim"])
        given = Given({"label": io["c"].argmax(1)})
    generator.load_state_dict(weights)
    silent = torch.zeros(4, generator.noise_size)
    for psi in ("1.0", "0.7"):
        ws = generator.mapping(io["z"], given, float(psi))
        torch.testing.assert_close(ws, io[f"w_psi{psi}"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(generator.synthesis(ws), io[f"image_psi{psi}_noise_const"], rtol=1e-4, atol=1e-4)
        plain = generator.synthesis(ws, silent)
        torch.testing.assert_close(plain, io[f"image_psi{psi}_noise_none"], rtol=1e-4, atol=1e-4)
    w_plus = generator.synthesis(io["w_plus"])
    torch.testing.assert_close(w_plus, io["image_w_plus_noise_const"], rtol=1e-4, atol=1e-4)
