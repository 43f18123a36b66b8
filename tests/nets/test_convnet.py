"""The convolutional and fully connected players: shapes in 1-D to 3-D, the start, conditions, the 2014 networks."""

import math

import pytest
import torch

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.nets.adversarial import ConditionVector, Given, check_given, resize
from oneprior.nets.convnet import ConvCritic, ConvGenerator, Residual, from_patches, level_sizes, to_patches
from oneprior.nets.perceptron import GoodfellowCritic, GoodfellowGenerator, MLPCritic, MLPGenerator

LABEL = ConditionSpec("label", "class", classes=5)
AGE = ConditionSpec("age", "vector", (2,))
TEXT = ConditionSpec("text", "tokens", (7, 3))
SCAN = ConditionSpec("scan", "image", (1, 4, 4), via="concat")


@pytest.mark.parametrize("shape", [(1, 16), (2, 9), (1, 28, 28), (3, 10, 7), (1, 80, 96), (1, 8, 8, 8), (1, 5, 3, 12)])
def test_any_event_size_is_made_and_judged(shape):
    generator, critic = ConvGenerator(shape, latent=8, width=4), ConvCritic(shape, width=4)
    x = generator(Rows(3).normal(8), Given())
    assert x.shape == (3, *shape)
    assert critic(x, Given()).shape == (3,)
    assert 0.1 < float(x.detach().std()) < 10  # a start of unit size, whatever the number of levels


def test_levels_halve_each_axis_until_six():
    assert level_sizes((28, 28)) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert level_sizes((4, 48)) == [(4, 48), (4, 24), (4, 12), (4, 6)]
    assert level_sizes((3,)) == [(3,)]


@pytest.mark.parametrize(("space", "patch"), [((7,), 2), ((8, 5), 2), ((9, 6), 4), ((4, 5, 6), 2), ((6, 6), 1)])
def test_patches_and_back(space, patch):
    x = Rows(2).normal(3, *space)
    cut = to_patches(x, patch)
    assert cut.shape == (2, 3 * (patch ** len(space)), *[-(-s // patch) for s in space])
    assert torch.equal(from_patches(cut, patch, space), x)
    if space == (8, 5):  # the order is that of torch's pixel_unshuffle
        assert torch.equal(cut, torch.nn.functional.pixel_unshuffle(torch.cat([x, x[..., -1:]], -1), 2))
    generator, critic = ConvGenerator((3, *space), latent=4, width=4, patch=patch), ConvCritic((3, *space), patch=patch)
    made = generator(Rows(2).normal(4), Given())
    assert made.shape == x.shape
    assert critic(made, Given()).shape == (2,)


def test_a_residual_block_starts_as_the_identity():
    x = Rows(2).normal(16, 5, 5)
    assert torch.equal(Residual(16, 4, 2)(x), x)


def test_resize_averages_down_and_keeps_constants():
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert float(resize(x, (1, 1))) == pytest.approx(1.5)
    assert torch.equal(resize(torch.full((1, 1, 5), 2.0), (9,)), torch.full((1, 1, 9), 2.0))


@pytest.mark.parametrize("space", [(7,), (7, 6), (5, 4, 6)])
def test_the_critic_has_second_derivatives(space):
    """Gradient penalties differentiate the gradient: checked against finite differences of the gradient."""
    torch.manual_seed(0)
    critic = ConvCritic((1, *space), width=4).double()
    for p in critic.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x = Rows(2).normal(1, *space, dtype=torch.float64).requires_grad_()
    weight = critic.enter.weight

    def penalty():
        (g,) = torch.autograd.grad(critic(x, Given()).sum(), x, create_graph=True)
        return g.square().sum()

    (slope,) = torch.autograd.grad(penalty(), weight)
    direction, size = torch.randn_like(weight), 1e-6
    with torch.no_grad():
        weight.add_(size * direction)
    up = penalty()
    with torch.no_grad():
        weight.sub_(2 * size * direction)
    numeric = float((up - penalty()).detach() / (2 * size))
    assert float((slope * direction).sum().detach()) == pytest.approx(numeric, rel=1e-4)


@pytest.mark.parametrize("build", [(ConvGenerator, ConvCritic), (MLPGenerator, MLPCritic)])
def test_every_kind_of_condition_reaches_both_players(build):
    torch.manual_seed(0)
    conditions = (LABEL, AGE, TEXT, SCAN)
    generator = build[0]((1, 8, 8), conditions, latent=8, width=8)
    critic = build[1]((1, 8, 8), conditions, width=8)
    rows = Rows(2)
    values = {
        "label": torch.tensor([0, 3]),
        "age": rows.normal(2),
        "text": rows.normal(7, 3),
        "scan": rows.normal(1, 4, 4),
    }
    z, x = rows.normal(8), rows.normal(1, 8, 8)
    for name in values:
        others = {**values, name: torch.tensor([1, 4]) if name == "label" else values[name] + 1}
        assert not torch.allclose(generator(z, Given(values)), generator(z, Given(others))), name
        assert not torch.allclose(critic(x, Given(values)), critic(x, Given(others))), name
        absent = {k: v for k, v in values.items() if k != name}
        hidden = Given(values, {name: torch.tensor([False, False])})
        assert torch.allclose(generator(z, Given(absent)), generator(z, hidden)), name
        assert torch.allclose(critic(x, Given(absent)), critic(x, hidden)), name


def test_conditions_are_checked_at_the_border():
    with pytest.raises(InputError, match="no.*condition 'colour'|condition 'colour'"):
        check_given(Given({"colour": torch.zeros(2)}), (LABEL,))
    with pytest.raises(InputError, match=r"classes are 0 \.\. 4, got 0 \.\. 5"):
        check_given(Given({"label": torch.tensor([0, 5])}), (LABEL,))
    with pytest.raises(ShapeError, match="age"):
        check_given(Given({"age": torch.zeros(2, 3)}), (AGE,))
    with pytest.raises(ShapeError, match="text"):
        check_given(Given({"text": torch.zeros(2, 3)}), (TEXT,))
    check_given(Given({"scan": torch.zeros(2, 1, 9, 9), "text": torch.zeros(2, 11, 3)}), (SCAN, TEXT))
    with pytest.raises(ShapeError, match="image condition 'scan'"):
        ConvGenerator((1, 8), (SCAN,))
    with pytest.raises(ShapeError, match="network='mlp'"):
        ConvGenerator((1,))


def test_given_cycles_over_rows():
    given = Given({"label": torch.tensor([4, 2])}, {"label": torch.tensor([True, False])}).cycle(5)
    assert given.values["label"].tolist() == [4, 2, 4, 2, 4]
    assert given.present["label"].tolist() == [True, False, True, False, True]


def test_condition_vector_adds_embeddings():
    embed = ConditionVector((LABEL, AGE), 6)
    age = torch.randn(3, 2)
    told = embed(Given({"label": torch.tensor([0, 1, 2]), "age": age}), 3)
    expected = embed.embed["label"].weight[:3] + embed.embed["age"](age)
    torch.testing.assert_close(told, expected)
    assert ConditionVector((), 6)(Given(), 3) is None


def test_the_2014_generator_has_uniform_noise_and_starts_at_the_mean():
    generator = GoodfellowGenerator((1, 4, 4))
    assert [tuple(layer.weight.shape) for layer in generator.layers] == [(1200, 100), (1200, 1200), (16, 1200)]
    mean = torch.linspace(-0.9, 0.9, 16).reshape(1, 4, 4)
    generator.start_at(mean)
    with torch.no_grad():
        generator.layers[-1].weight.zero_()
        torch.testing.assert_close(generator(Rows(2).normal(100), Given())[1], mean)
    # the noise that the first layer reads is uniform on +-sqrt 3, so of unit variance
    seen = {}
    generator.layers[0].register_forward_hook(lambda m, a, out: seen.update(u=a[0]))
    generator(Rows(4000).normal(100), Given())
    u = seen["u"].double()
    assert float(u.abs().max()) <= math.sqrt(3)
    n = u.numel()
    assert abs(float(u.square().mean()) - 1) < 4 * math.sqrt((9 / 5 - 1) / n)
    assert abs(float(u.pow(4).mean()) - 9 / 5) < 4 * math.sqrt((9 - 81 / 25) / n)


def test_the_2014_critic_is_maxout_with_dropout_from_rows():
    critic = GoodfellowCritic((1, 2, 2), units=3, pieces=2)
    x = Rows(4).normal(1, 2, 2)
    h = (x.flatten(1) + 1) / 2
    for layer in critic.layers[:-1]:
        y = layer(h)
        h = torch.stack([torch.maximum(y[:, 2 * k], y[:, 2 * k + 1]) for k in range(3)], 1)
    torch.testing.assert_close(critic(x, Given()), critic.layers[-1](h).squeeze(1))
    with torch.no_grad():
        for layer in critic.layers:  # large weights, so that dropout shows
            layer.weight.mul_(200)
    dropped = critic(x, Given(), Rows(4, seed=1))
    assert torch.equal(dropped, critic(x, Given(), Rows(4, seed=1)))
    assert not torch.allclose(dropped, critic(x, Given()))
