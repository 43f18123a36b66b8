"""Denoisers: every kind of event and condition, sizes that do not divide, and a quiet start."""

import pytest
import torch

from oneprior.core import ConditionSpec, InputError, ShapeError
from oneprior.nets.adversarial import Given
from oneprior.nets.embeddings import time_embedding
from oneprior.nets.unet import CrossUNet, PlainUNet, ResidualMLP, denoiser
from oneprior.nets.unet_nd import UNetND

SMALL = {"width": 8, "blocks": 1, "multipliers": (1, 2, 2)}
INDEX = torch.tensor([3.0, 250.5])


def awake(net):
    """Every zero start replaced, so that each input can be seen in the output."""
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        if not bool(p.any()):
            p.data.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return net.eval()


def all_conditions(space):
    dims = len(space)
    specs = (
        ConditionSpec("label", "class", classes=3),
        ConditionSpec("dose", "vector", (2,)),
        ConditionSpec("scan", "image", (2, *[5] * dims), via="concat"),
        ConditionSpec("text", "tokens", (4, 6), via="cross_attention"),
        ConditionSpec("view", "image", (1, *[10] * dims), via="cross_attention"),
    )
    g = torch.Generator().manual_seed(1)
    values = {s.name: torch.randn(2, *s.shape, generator=g) for s in specs[1:]}
    return specs, {"label": torch.tensor([0, 2]), **values}


@pytest.mark.parametrize(
    ("shape", "options", "kind"),
    [
        ((1, 14, 14), {}, PlainUNet),
        ((3, 13, 17), {}, PlainUNet),
        ((1, 8, 8), {}, ResidualMLP),
        ((1, 8, 8), {"network": "unet"}, PlainUNet),
        ((2, 160), {}, UNetND),
        ((2, 161), {}, UNetND),
        ((1, 6, 7, 9), {}, UNetND),
        ((1, 16, 16), {"attention": ()}, PlainUNet),
        ((1, 16, 16), {"network": "mlp"}, ResidualMLP),
    ],
)
def test_every_event(shape, options, kind):
    net = awake(denoiser(shape, **SMALL | options))
    assert isinstance(net.core, kind)
    x = torch.randn(2, *shape)
    y = net(x, INDEX)
    assert y.shape == x.shape
    assert not torch.allclose(y, net(x, INDEX + 100), atol=1e-4), "the network does not feel the time"
    assert torch.allclose(net(x[1:], INDEX[1:]), y[1:], atol=1e-5), "rows see each other"


@pytest.mark.parametrize(
    ("shape", "network", "kind"),
    [
        ((1, 13, 12), "unet", CrossUNet),
        ((1, 8, 8), "mlp", ResidualMLP),
        ((1, 37), "unet", UNetND),
        ((1, 5, 6, 7), "unet", UNetND),
    ],
)
def test_every_condition_is_felt_and_may_be_absent(shape, network, kind):
    specs, values = all_conditions(shape[1:])
    net = awake(denoiser(shape, specs, network=network, **SMALL))
    assert isinstance(net.core, kind)
    x = torch.randn(2, *shape)
    told = net(x, INDEX, Given(values))
    assert told.shape == x.shape
    untold = net(x, INDEX)
    for name in values:
        rest = {k: v for k, v in values.items() if k != name}
        without = net(x, INDEX, Given(rest))
        assert float((without - told).detach().abs().max()) > 1e-5, f"{name} is not felt"
        first_only = net(x, INDEX, Given(values, {name: torch.tensor([True, False])}))
        assert torch.allclose(first_only[0], told[0], atol=1e-5)
        assert torch.allclose(first_only[1], without[1], atol=1e-5), f"absent {name} is not what leaving it out is"
    nothing = Given(values, {name: torch.zeros(2, dtype=torch.bool) for name in values})
    assert torch.allclose(net(x, INDEX, nothing), untold, atol=1e-5)


def test_label_alone_keeps_the_plain_network():
    net = awake(denoiser((1, 14, 14), (ConditionSpec("label", "class", classes=4),), **SMALL))
    assert isinstance(net.core, PlainUNet)
    x = torch.randn(1, 1, 14, 14).expand(2, -1, -1, -1)
    a, b = net(x, INDEX[:1].expand(2), Given({"label": torch.tensor([0, 3])}))
    assert float((a - b).detach().abs().max()) > 1e-4


@pytest.mark.parametrize("shape", [(1, 14, 14), (1, 8, 8), (1, 160), (1, 6, 6, 6)])
def test_it_starts_as_zero_and_learns_at_once(shape):
    net = denoiser(shape, **SMALL)
    x = torch.randn(2, *shape)
    assert not bool(net(x, INDEX).any())
    (net(x, INDEX) - x).square().mean().backward()
    assert any(bool(p.grad.any()) for p in net.parameters() if p.grad is not None)


def test_all_parameters_are_used():
    """A parameter that no loss reaches would stop data-parallel training."""
    for shape, network in [((1, 14, 14), "unet"), ((1, 8, 8), "mlp"), ((1, 37), "unet")]:
        specs, values = all_conditions(shape[1:])
        net = awake(denoiser(shape, specs, network=network, **SMALL))
        some = {name: torch.tensor([True, False]) for name in values}
        net(torch.randn(2, *shape), INDEX, Given(values, some)).square().mean().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_time_embedding_is_that_of_diffusers():
    from diffusers.models.embeddings import get_timestep_embedding

    reference = get_timestep_embedding(INDEX, 32, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert torch.allclose(time_embedding(INDEX, 32), reference, atol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(InputError, match="only images are concatenated"):
        denoiser((1, 16, 16), (ConditionSpec("a", "vector", (2,), via="concat"),))
    with pytest.raises(InputError, match="needs a level with attention"):
        denoiser((1, 16, 16), (ConditionSpec("a", "vector", (2,), via="cross_attention"),), attention=(), width=8)
    with pytest.raises(ShapeError, match="spatial axes"):
        denoiser((3,))
