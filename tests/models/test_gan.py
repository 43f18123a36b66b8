"""The gan family: the games, the penalty, the spaces of the prior, conditions, state, learning."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from oneprior.core import ConditionSpec, IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.data.batch import Batch
from oneprior.laws import check_prior
from oneprior.models.adversarial_losses import critic_loss, generator_loss, gradient_penalty
from oneprior.models.configs.gan import GANConfig
from oneprior.models.gan import GAN, SMALL_SET
from oneprior.nets.adversarial import Critic

LABEL = ConditionSpec("label", "class", classes=3)
SMALL = GANConfig(latent=6, width=4)
STYLE = GANConfig(network="stylegan2", latent=6, width=4)
NETWORKS = ["conv", "mlp", "stylegan2", "goodfellow2014"]


def small(network="conv", shape=(1, 8, 8), conditions=(), seed=0, **settings):
    torch.manual_seed(seed)
    return GAN(GANConfig(network=network, latent=6, width=4, **settings), shape, conditions)


def batch_of(n=8, shape=(1, 8, 8), **more):
    return Batch(Rows(n, seed=7).uniform(*shape) * 2 - 1, **more)


# --- the games ----------------------------------------------------------------------------------------------------


def test_objectives_on_hand_computed_logits():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.0])
    real_p, fake_p = torch.sigmoid(real), torch.sigmoid(fake)
    classic = -real_p.log() - (1 - fake_p).log()
    torch.testing.assert_close(critic_loss("minimax", real, fake), classic)
    torch.testing.assert_close(critic_loss("nonsaturating", real, fake), classic)
    torch.testing.assert_close(generator_loss("minimax", real, fake), (1 - fake_p).log())
    torch.testing.assert_close(generator_loss("nonsaturating", real, fake), -fake_p.log())
    expected = torch.tensor([math.log1p(math.exp(-1.5)), math.log1p(math.exp(1.0))])
    torch.testing.assert_close(critic_loss("relativistic", real, fake), expected)
    torch.testing.assert_close(
        generator_loss("relativistic", real, fake), -torch.sigmoid(real - fake).log() + real - fake
    )


def test_the_saturating_gradient_vanishes_where_the_critic_is_sure_and_the_other_does_not():
    fake = torch.tensor([-8.0, 0.0, 3.0], requires_grad=True)
    (saturating,) = torch.autograd.grad(generator_loss("minimax", fake, fake).sum(), fake)
    (alive,) = torch.autograd.grad(generator_loss("nonsaturating", fake, fake).sum(), fake)
    torch.testing.assert_close(saturating, -torch.sigmoid(fake.detach()))
    torch.testing.assert_close(alive, -torch.sigmoid(-fake.detach()))
    assert abs(float(saturating[0])) < 1e-3 < 0.99 < abs(float(alive[0]))


def test_r1_of_a_linear_critic_is_the_squared_norm_of_its_weights():
    weight = torch.arange(1.0, 7.0).requires_grad_()
    x = Rows(4).normal(1, 2, 3).requires_grad_()
    logits = x.flatten(1) @ weight
    (penalty,) = gradient_penalty(logits, x)
    torch.testing.assert_close(penalty, torch.full((4,), 91.0))
    h = 1e-2  # and a finite difference says the same of each row: |grad|^2 = sum over pixels of the slope squared
    step = h * torch.eye(6).reshape(6, 1, 2, 3)
    slopes = ((x[:1] + step).flatten(1) @ weight - logits[:1]) / h
    torch.testing.assert_close(penalty[0], slopes.square().sum(), rtol=1e-3, atol=0)
    (slope,) = torch.autograd.grad(penalty.sum(), weight)
    torch.testing.assert_close(slope, 4 * 2 * weight.detach())


class LinearCritic(Critic):
    def __init__(self, pixels):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, pixels))

    def forward(self, x, given, rows=None):
        return x.flatten(1) @ self.weight


def test_the_critics_step_has_r1_and_r2_with_half_gamma_and_lazy_ones_count_more():
    model = small(gamma=0.5, penalty_every=4, augment="none")
    model.critic = LinearCritic(64)
    energy = float(model.critic.weight.detach().square().sum())
    losses = model(batch_of(), "critic", Rows(8))
    assert {k for k in losses if not k.startswith("metric/")} == {"critic", "r1", "r2"}
    assert float(losses["r1"].detach()) == pytest.approx(0.5 * 0.5 * 4 * energy, rel=1e-5)
    torch.testing.assert_close(losses["r1"], losses["r2"])
    model.after_step(8)
    assert "r1" not in model(batch_of(), "critic", Rows(8))
    model.progress = 1.0
    assert model.gamma == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("objective", "gamma", "names"),
    [("relativistic", None, {"critic", "r1", "r2"}), ("nonsaturating", None, {"critic", "r1"}),
     ("minimax", None, {"critic"}), ("minimax", 1.0, {"critic", "r1"})],
)  # fmt: skip
def test_each_objective_names_its_losses(objective, gamma, names):
    model = small(objective=objective, gamma=gamma)
    losses = model(batch_of(), "critic", Rows(8))
    assert {k for k in losses if not k.startswith("metric/")} == names
    assert set(model(batch_of(), "generator", Rows(8))) == {"generator"}


# --- forward ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("objective", ["relativistic", "nonsaturating", "minimax"])
def test_each_player_gets_gradients_and_the_other_none(network, objective):
    model = small(network, objective=objective, conditions=(LABEL,))
    batch = batch_of(condition={"label": torch.arange(8) % 3})
    for player, other in (("critic", "generator"), ("generator", "critic")):
        model.zero_grad()
        losses = model(batch, player, Rows(8))
        torch.stack([v for k, v in losses.items() if not k.startswith("metric/")]).sum().backward()
        assert all(p.grad is None for p in model.players[other])
        reached = [p.grad is not None and bool(p.grad.isfinite().all()) for p in model.players[player]]
        assert sum(reached) >= len(reached) - 1  # the last bias of a relativistic critic has no gradient to speak of
        assert all(p.requires_grad for p in model.parameters())
        assert not any(v.requires_grad for k, v in losses.items() if k.startswith("metric/"))


@pytest.mark.parametrize("network", NETWORKS)
def test_forward_is_a_function_of_weights_batch_and_rows(network):
    model = small(network)
    first, again = (model(batch_of(), "critic", Rows(8, seed=1))["critic"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, model(batch_of(), "critic", Rows(8, seed=2))["critic"])


def test_halves_of_a_batch_average_to_the_whole():
    """What data-parallel training needs: equal shares of a global batch average to its loss."""
    model, whole = small(), batch_of()
    loss = model(whole, "critic", Rows(8))
    parts = [model(Batch(whole.x[s]), "critic", Rows(8).take(s)) for s in (slice(0, 4), slice(4, 8))]
    for name in ("critic", "r1", "r2"):
        torch.testing.assert_close(sum(p[name] for p in parts) / 2, loss[name])


def test_weights_of_rows_are_used():
    model = small(objective="nonsaturating", gamma=0.0)
    whole = batch_of(2)
    alone = model(Batch(whole.x[1:]), "critic", Rows([1]))["critic"]
    weighted = model(dataclasses.replace(whole, weight=torch.tensor([0.0, 2.0])), "critic", Rows(2))["critic"]
    torch.testing.assert_close(weighted, alone)


def test_wrong_input_is_named():
    model = small(conditions=(LABEL,))
    with pytest.raises(ShapeError, match="batch of events"):
        model(batch_of(shape=(1, 9, 8)), "critic", Rows(8))
    with pytest.raises(InputError, match="'critic' and 'generator', got 'all'"):
        model(batch_of(), "all", Rows(8))
    with pytest.raises(InputError, match="classes are 0 .. 2"):
        model.prior({"label": torch.tensor([3])})
    with pytest.raises(InputError, match="penalty_every"):
        small(penalty_every=0)
    with pytest.raises(IncompatiblePrior, match="space='w' needs network='stylegan2'"):
        model.prior(space="w")
    with pytest.raises(IncompatiblePrior, match="noise='random' needs"):
        model.prior(noise="random")


# --- augmentation -------------------------------------------------------------------------------------------------


def test_small_sets_are_augmented_and_large_ones_are_not():
    for largest, small_set in ((900, True), (2 * SMALL_SET, False)):
        model = small(augment="auto", conditions=())
        assert not bool(model.augmenting)
        batch = batch_of(index=torch.linspace(0, largest, 8).long())
        model.prepare(lambda batch=batch: iter([batch]), Rows(1))
        assert bool(model.augmenting) is small_set


def test_an_overfitting_critic_raises_p_and_the_ramp_follows_progress():
    model = small(augment="adaptive", augment_images=1000)
    model.critic = LinearCritic(64)
    model.generator.out.bias.data.fill_(-3.0)
    model.critic.weight.data.fill_(1.0)  # every real event is far above every generated one
    for _ in range(4):
        model(batch_of(), "critic", Rows(8))
        model.after_step(8)
    assert float(model.augment.p) == pytest.approx(32 / 1000)
    ramp = small(augment="ramp", augment_probability=0.4)
    ramp.progress = 0.5
    ramp.after_step(8)
    assert float(ramp.augment.p) == pytest.approx(0.2)


# --- the prior ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_the_prior_obeys_the_laws(network):
    check_prior(small(network).prior())


@pytest.mark.parametrize(
    ("network", "shape"),
    [("conv", (1, 28, 28)), ("conv", (1, 80, 96)), ("conv", (1, 8, 8, 8)), ("conv", (2, 16)), ("auto", (1, 2)),
     ("stylegan2", (1, 28, 28)), ("stylegan2", (3, 20, 24)), ("goodfellow2014", (1, 8, 8))],
)  # fmt: skip
def test_event_sizes(network, shape):
    model = small(network, shape)
    assert model.prior().sample(Rows(3)).shape == (3, *shape)
    if max(shape) < 80:
        losses = model(batch_of(4, shape), "critic", Rows(4))
        assert all(bool(v.isfinite()) for v in losses.values())


@pytest.mark.parametrize("space", ["z", "w", "w+"])
@pytest.mark.parametrize("noise", ["constant", "random"])
def test_every_space_of_stylegan2_obeys_the_laws(space, noise):
    model = small("stylegan2")
    for name, p in model.named_parameters():
        if name.endswith("noise_strength"):
            p.data.fill_(0.3)
    prior = model.prior(space=space, noise=noise)
    check_prior(prior)
    inner = (4, 6) if space == "w+" else (6,)
    planes = 16 + 64 + 64
    assert tuple(prior.noise_shape) == (inner if noise == "constant" else (math.prod(inner) + planes,))


def test_w_space_is_the_gaussian_with_the_mappings_moments():
    model = small("stylegan2")
    seen = {}
    model.generator.synthesis.register_forward_hook(lambda m, a, out: seen.update(ws=a[0]))
    mean, root = model.mapping.moments(model_given())
    model.prior(space="w").decode(torch.zeros(1, 6))
    torch.testing.assert_close(seen["ws"], mean.reshape(1, 1, 6).expand(1, 4, 6))
    n = 4000
    model.prior(space="w").decode(Rows(n).normal(6))
    w = seen["ws"][:, 0].detach()
    cov = root[0] @ root[0]
    assert float(((w.mean(0) - mean[0]) / (cov.diag() / n).sqrt()).abs().max()) < 4.5
    error = ((cov.diag()[:, None] * cov.diag() + cov**2) / n).sqrt()
    assert float(((torch.cov(w.T) - cov) / error).abs().max()) < 4.5
    same = model.prior(space="w+").decode(torch.ones(1, 4, 6))
    torch.testing.assert_close(same, model.prior(space="w").decode(torch.ones(1, 6)))


def model_given():
    from oneprior.nets.adversarial import Given

    return Given()


def test_truncation():
    model = small("stylegan2")
    model.mapping.w_avg.copy_(torch.randn(6))
    sheet = model.truncation_sheet(Rows(3), (0.0, 0.5, 1.0))
    assert sheet.shape == (3, 3, 1, 8, 8)
    torch.testing.assert_close(sheet[0, 0], sheet[2, 0])  # psi = 0 is one picture
    torch.testing.assert_close(sheet[:, 2], model.prior().sample(Rows(3).stream("sheet")))
    plain = small("conv")
    u = Rows(2).normal(6)
    torch.testing.assert_close(plain.prior(truncation=0.5).decode(u), plain.prior().decode(0.5 * u))


@pytest.mark.parametrize("network", NETWORKS)
def test_conditions_are_bound_row_by_row_and_repeat_draw_major(network):
    model = small(network, conditions=(LABEL,))
    z = Rows(4).normal(6)
    spaces = ("z", "w") if network == "stylegan2" else ("z",)
    for space in spaces:
        both = model.prior({"label": torch.tensor([0, 2])}, space=space).decode(z)
        for k, label in enumerate((0, 2)):
            one = model.prior({"label": torch.tensor([label])}, space=space).decode(z)
            torch.testing.assert_close(both[k::2], one[k::2], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(both[0::2], model.prior(space=space).decode(z)[0::2], atol=1e-4)


def test_conditions_are_hidden_at_the_given_rate_and_with_those_that_are_missing():
    model = small(conditions=(LABEL,), condition_dropout=0.25)
    n = 4000
    present = torch.arange(n) % 2 == 0
    batch = Batch(torch.zeros(n, 1, 8, 8), {"label": torch.zeros(n, dtype=torch.int64)}, {"label": present})
    kept = model._hide(batch, Rows(n)).present["label"]
    assert not bool(kept[~present].any())
    rate = float(kept[present].float().mean())
    assert abs(rate - 0.75) < 4 * math.sqrt(0.75 * 0.25 / (n / 2))


@pytest.mark.parametrize("network", NETWORKS)
def test_state_round_trip(network):
    model = small(network, conditions=(LABEL,), augment="adaptive")
    model.augment.p.fill_(0.3)
    model.after_step(8)
    config = GANConfig(**json.loads(json.dumps(model.config_dict())))
    other = GAN(config, model.event_shape, model.conditions)
    other.load_state_dict(model.state_dict())
    condition = {"label": torch.tensor([1])}
    assert torch.equal(other.prior(condition).sample(Rows(2)), model.prior(condition).sample(Rows(2)))
    torch.testing.assert_close(
        other(batch_of(), "critic", Rows(8))["critic"], model(batch_of(), "critic", Rows(8))["critic"]
    )
    assert int(other.steps) == 1


def test_style_mixing_path_length_and_the_running_average_of_w():
    model = small("stylegan2", style_mixing=1.0, path_length=2.0)
    before = model.mapping.w_avg.clone()
    losses = model(batch_of(), "generator", Rows(8))
    assert set(losses) == {"generator", "path_length"}
    assert not torch.equal(model.mapping.w_avg, before)
    losses["path_length"].backward()
    assert model.generator.mapping.get_submodule("fc0").weight.grad is not None
    average = model.mapping.w_avg.clone()
    model(batch_of(), "critic", Rows(8))
    assert torch.equal(model.mapping.w_avg, average)
    model.after_step(8)
    assert "path_length" not in model(batch_of(), "generator", Rows(8))


def test_recipes():
    assert small("goodfellow2014").recipe("critic").optimiser == "sgd"
    for network in ("conv", "stylegan2"):
        recipe = small(network).recipe("critic")
        assert recipe.betas[0] == 0.0
        assert not recipe.compile
    assert small(learning_rate=0.5).recipe("generator").learning_rate == 0.5
    first = GAN(GANConfig.goodfellow2014(), (1, 8, 8))
    assert first.prior().noise_shape == (100,)
    assert set(first(batch_of(), "critic", Rows(8))) == {
        "critic",
        "metric/gap",
        "metric/overfitting",
        "metric/augment_p",
    }
    assert GANConfig.stylegan2().penalty_every == 16
    assert GANConfig.r3gan_cifar10().gamma == 0.05


def test_preview_shows_the_batchs_conditions():
    model = small(conditions=(LABEL,))
    labels = torch.tensor([0, 1, 2])
    shown = model.preview(Rows(3), Batch(torch.zeros(3, 1, 8, 8), {"label": labels}))["samples"]
    torch.testing.assert_close(shown, model.prior({"label": labels}).sample(Rows(3)))


def test_it_learns_two_points():
    """A mixture of two far points in the plane: both are found, in about equal parts, within a few hundred steps."""
    torch.manual_seed(0)
    model = GAN(GANConfig(latent=4, width=4, gamma=0.1, augment="none"), (1, 2))
    assert model.network == "mlp"
    players = {name: torch.optim.Adam(list(p), betas=model.recipe(name).betas) for name, p in model.players.items()}
    points = torch.tensor([[[0.8, 0.0]], [[-0.8, 0.4]]])
    for step in range(400):
        model.progress = step / 400
        rows = Rows(range(64 * step, 64 * (step + 1)))
        x = points[rows.integers(2)] + 0.05 * rows.normal(1, 2)
        for name, optimiser in players.items():
            optimiser.param_groups[0]["lr"] = 5e-3 * (1 - model.progress)
            losses = model(Batch(x), name, rows)
            optimiser.zero_grad()
            torch.stack([v for k, v in losses.items() if not k.startswith("metric/")]).sum().backward()
            optimiser.step()
        model.after_step(64)
    x = model.prior().sample(Rows(500, seed=1))
    nearest = (x[:, None] - points).flatten(2).norm(dim=2)
    assert float((nearest.min(1).values < 0.25).float().mean()) > 0.8
    assert 0.35 < float(nearest.argmin(1).float().mean()) < 0.65


def test_a_step_leaves_the_batch_as_it_was():
    model = GAN(GANConfig(augment="adaptive", width=8), (1, 8, 8))
    model.prepare(lambda: iter([Batch(torch.randn(8, 1, 8, 8), index=torch.arange(8))]), Rows(8))
    batch = Batch(torch.randn(8, 1, 8, 8))
    sum(v.sum() for k, v in model(batch, "critic", Rows(8)).items() if not k.startswith("metric/")).backward()
    assert not batch.x.requires_grad
    assert batch.x.grad is None


def test_the_published_size_of_r3gan():
    with torch.device("meta"):
        model = GAN(GANConfig.r3gan_cifar10(), (3, 32, 32))
    assert 19e6 < sum(p.numel() for p in model.generator.parameters()) < 22e6


def test_stylegan2_learns_in_bf16_too():
    model = small("stylegan2", path_length=2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for player in ("critic", "generator"):
            losses = model(Batch(Rows(8).normal(*model.event_shape)), player, Rows(8, seed=1))
            assert all(bool(v.isfinite().all()) for v in losses.values())
    assert model.mapping.w_avg.dtype == torch.float32
    assert bool((model.mapping.w_avg != 0).any())
