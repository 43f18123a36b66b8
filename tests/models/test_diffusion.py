"""The diffusion family: its losses, its noise levels, its prior with guidance, and that it learns a known denoiser."""

import math

import pytest
import torch

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.data.batch import Batch
from oneprior.laws import check_prior
from oneprior.models.configs.diffusion import DiffusionConfig
from oneprior.models.diffusion import Diffusion
from oneprior.priors.diffusion.samplers import DDIM, DPMSolver
from oneprior.priors.gaussian import LowRankGaussian

LABEL = ConditionSpec("label", "class", classes=3)
DOSE = ConditionSpec("dose", "vector", (2,))
SMALL = {"width": 8, "blocks": 1, "multipliers": (1, 2), "attention": (1,)}


def make(shape=(1, 8, 8), conditions=(), seed=0, **options):
    """A small model whose zero starts are replaced, so that everything in it has an effect."""
    torch.manual_seed(seed)
    model = Diffusion(DiffusionConfig(**SMALL | options), shape, conditions)
    for p in model.network.parameters():
        if not bool(p.any()):
            p.data.normal_(std=0.1)
    return model


def passes_of(x, size=50):
    return lambda: (Batch(x[i : i + size]) for i in range(0, len(x), size))


@pytest.mark.parametrize("schedule", ["edm", "linear", "scaled_linear", "cosine", "flow"])
@pytest.mark.parametrize("target", ["auto", "v", "eps", "x0", "velocity"])
def test_every_choice_trains_and_draws(schedule, target):
    model = make(schedule=schedule, parameterisation=target)
    losses = model(Batch(Rows(6).normal(1, 8, 8)), "all", Rows(6, seed=1))
    assert list(losses) == ["denoising"]
    losses["denoising"].backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.players["all"])
    check_prior(model.prior(steps=4))


def test_the_loss_of_a_silent_network_is_the_variance_of_its_target():
    """v = alpha eps - sigma x has variance alpha^2 + sigma^2 E[x^2]; with unit data that is 1 at every noise level."""
    torch.manual_seed(0)
    model = Diffusion(DiffusionConfig(), (1, 8, 8))
    n = 600
    loss = model(Batch(Rows(n, seed=5).normal(1, 8, 8)), "all", Rows(n, seed=6))["denoising"]
    assert abs(float(loss.detach()) - 1) < 5 * math.sqrt(2 / (n * 64))


def test_a_rows_loss_is_its_own():
    """The loss of a batch is the weighted mean of the losses of its rows, each alone."""
    model, n = make(conditions=(LABEL,)).eval(), 5
    x, label = Rows(n).normal(1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    weight = torch.tensor([0.5, 1.5, 1.0, 2.0, 0.0])
    with torch.no_grad():
        whole = model(Batch(x, {"label": label}, weight=weight), "all", Rows(n, seed=2))["denoising"]
        alone = [
            model(Batch(x[i : i + 1], {"label": label[i : i + 1]}), "all", Rows([i], seed=2))["denoising"]
            for i in range(n)
        ]
    assert torch.allclose(whole, (torch.stack(alone) * weight).mean(), atol=1e-5)


class TestNoiseLevels:
    def test_lognormal(self):
        model, n = make(tail=0.0, noise_mean=-0.7, noise_std=0.9), 4000
        t = model.training_times(Rows(n, seed=3))
        z = (model.schedule.noise_level(t).log() + 0.7) / 0.9
        u = torch.special.ndtr(z).sort().values
        gap = float((u - (torch.arange(n) + 0.5) / n).abs().max())
        assert gap < 5 / n, "rows in succession lie evenly: far closer than the 1 / sqrt(n) of independent draws"

    def test_the_flow_has_logit_normal_time(self):
        model = make(schedule="flow", tail=0.0, noise_mean=0.0, noise_std=1.0)
        t = model.training_times(Rows(4000, seed=3))
        z = torch.logit(t)
        assert abs(float(z.mean())) < 0.01
        assert abs(float(z.std()) - 1) < 0.01

    def test_tables_are_uniform_in_time(self):
        t = make(schedule="linear").training_times(Rows(4000, seed=3))
        assert float((t.sort().values - (torch.arange(4000) + 0.5) / 4000).abs().max()) < 5 / 4000

    def test_the_tail_reaches_the_top_of_an_exported_table(self):
        model = make(tail=0.5)
        s = model.schedule.noise_level(model.training_times(Rows(4000, seed=3)))
        assert 120 < float(s.max()) < 161
        assert abs(float((s > 20).double().mean()) - 0.5 * 0.3) < 0.04

    def test_steps_and_rows_differ_and_batches_do_not_matter(self):
        model = make()
        a = model.training_times(Rows(10, seed=3))
        assert torch.equal(model.training_times(Rows([7, 2], seed=3)), a[[7, 2]])
        assert not torch.equal(model.training_times(Rows(10, seed=3, stream="next")), a)
        assert a.unique().numel() == 10


def test_conditions_are_withheld_at_the_declared_rate():
    model = make(conditions=(LABEL, DOSE), condition_dropout=0.2)
    n = 4000
    batch = Batch(torch.zeros(n, 1, 8, 8), {"label": torch.zeros(n, dtype=torch.long), "dose": torch.zeros(n, 2)})
    present = model._told(batch, Rows(n)).present
    kept = torch.stack([present["label"], present["dose"]]).double()
    error = 5 * math.sqrt(0.25 / n)
    assert abs(float(kept.mean()) - 0.8 * 0.8) < error
    both_gone = float((kept.sum(0) == 0).double().mean())
    assert both_gone > 0.2, "all at once must be withheld often: that is what cfg_scale compares with"


class TestGuidance:
    x_t, t = Rows(4).normal(1, 8, 8), torch.tensor([0.2, 0.4, 0.6, 0.8])
    label = {"label": torch.tensor([0, 2])}

    def test_it_is_linear_in_the_scale(self):
        model = make(conditions=(LABEL,)).eval()
        with torch.no_grad():
            none, one, three = (model.prior(self.label, cfg_scale=w).denoise(self.x_t, self.t) for w in (0.0, 1.0, 3.0))
            free = model.prior().denoise(self.x_t, self.t)
        assert torch.allclose(none, free, atol=1e-6)
        assert float((one - none).abs().max()) > 1e-3
        assert torch.allclose(three, none + 3 * (one - none), atol=1e-5)

    def test_rows_repeat_draw_major(self):
        model = make(conditions=(LABEL,)).eval()
        with torch.no_grad():
            four = model.prior(self.label).denoise(self.x_t, self.t)
            alone = model.prior({"label": torch.tensor([2])}).denoise(self.x_t[[1, 3]], self.t[[1, 3]])
        assert torch.allclose(four[[1, 3]], alone, atol=1e-6)
        check_prior(model.prior({"label": torch.tensor([2])}, steps=3, cfg_scale=2.0))

    @pytest.mark.parametrize("scale", [1.0, 2.0])
    def test_a_processor_works_in_pieces_and_nothing_changes(self, scale, monkeypatch):
        model = make(conditions=(LABEL,)).eval()
        x, t = Rows(7).normal(1, 8, 8), torch.linspace(0.1, 0.9, 7)
        prior = model.prior({"label": torch.tensor([0, 2, 1, 1, 0, 2, 2])}, cfg_scale=scale)
        with torch.no_grad():
            whole = prior.denoise(x, t)
            monkeypatch.setattr("oneprior.priors.diffusion.prior._CACHED", 3 * 64)
            sizes = []
            prior.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
            pieces = prior.denoise(x, t)
        assert torch.allclose(pieces, whole, atol=1e-6)
        assert sizes == ([3, 3, 1] if scale == 1.0 else [3, 3, 3, 3, 2])
        assert (prior.calls.batches, prior.calls.rows) == (2, 14 if scale == 1.0 else 28)

    def test_calls_are_counted(self):
        model = make(conditions=(LABEL,))
        prior = model.prior(self.label, steps=5, cfg_scale=2.0)
        prior.with_sampler(DPMSolver(4)).sample(Rows(3))
        assert (prior.calls.batches, prior.calls.rows) == (4, 24)
        prior.sample(Rows(1))
        assert (prior.calls.batches, prior.calls.rows) == (9, 34)

    def test_mistakes_are_named(self):
        model = make(conditions=(LABEL,))
        with pytest.raises(InputError, match="none was given"):
            model.prior(cfg_scale=2.0)
        with pytest.raises(InputError, match="'size'.*label"):
            model.prior({"size": torch.zeros(1)})
        with pytest.raises(InputError, match="0 .. 2"):
            model.prior({"label": torch.tensor([3])})
        with pytest.raises(ShapeError, match="x_t"):
            model.prior().denoise(torch.zeros(1, 1, 4, 4), torch.tensor(0.5))


def test_it_learns_the_denoiser_of_a_gaussian():
    """500 steps on a correlated Gaussian of four numbers: within 5 % of the exact E[x | x_t] in mean square."""
    torch.manual_seed(0)
    root = torch.tensor([[0.8, 0, 0, 0], [0.5, 0.3, 0, 0], [0, 0.2, 0.6, 0], [-0.4, 0, 0, 0.2]])
    mean = torch.tensor([0.3, -0.2, 0.0, 0.5])

    def events(n, seed):
        return (Rows(n, seed=seed).normal(4) @ root.T + mean)[:, None]

    model = Diffusion(DiffusionConfig(width=8, moments_rank=3), (1, 4))
    model.prepare(passes_of(events(4000, 9)), Rows(1))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(500):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / 500)
        loss = model(Batch(events(256, step)), "all", Rows(range(256 * step, 256 * step + 256)))["denoising"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    values, vectors = torch.linalg.eigh(root @ root.T)
    exact = LowRankGaussian(mean[None], vectors[:, 1:], values[1:] - values[0], values[0])
    prior = model.prior()
    for level in (0.2, 1.0, 5.0):
        t = model.schedule.time(torch.tensor(level))
        alpha, sigma = model.schedule.alpha(t), model.schedule.sigma(t)
        x = events(1000, 12345)
        x_t = alpha * x + sigma * Rows(1000, seed=77).normal(1, 4)
        with torch.no_grad():
            gap = prior.denoise(x_t, t) - exact.denoise(x_t, alpha, sigma)
        assert float(gap.square().mean() / x.var(0).mean()) < 0.05, level
    draws = prior.sample(Rows(2000, seed=1)).flatten(1)
    assert float((draws.mean(0) - mean).abs().max()) < 0.1
    assert float((torch.cov(draws.T) - root @ root.T).abs().max()) < 0.12


class TestMoments:
    def test_they_are_the_ppca_of_the_data(self):
        x = Rows(200).normal(1, 8, 8)
        model = make(moments_rank=5)
        assert model.moments() is None
        model.prepare(passes_of(x), Rows(1))
        expected, found = LowRankGaussian.fit([x], 5), model.prior().moments
        assert torch.allclose(found.covariance()(x), expected.covariance()(x), atol=1e-4)
        assert torch.allclose(found.mean, x.mean(0), atol=1e-5)

    def test_they_are_kept_with_the_weights(self):
        model, other = make(moments_rank=5), make(moments_rank=5, seed=1)
        model.prepare(passes_of(Rows(100).normal(1, 8, 8)), Rows(1))
        other.load_state_dict(model.state_dict())
        assert torch.equal(model.prior(steps=3).sample(Rows(2)), other.prior(steps=3).sample(Rows(2)))

    @pytest.mark.parametrize("n", [1, 2, 3, 7])
    def test_few_events_give_what_they_can(self, n):
        model = make()
        model.prepare(passes_of(Rows(n).normal(1, 8, 8)), Rows(1))
        assert (model.moments() is None) == (n < 3)

    def test_they_may_be_switched_off(self):
        model = make(moments_rank=0)
        model.prepare(passes_of(Rows(50).normal(1, 8, 8)), Rows(1))
        assert model.moments() is None


class TestPrior:
    def test_dropout_sleeps_and_the_trainers_mode_stays(self):
        model = make(dropout=0.5, network="unet").train()
        prior, x_t, t = model.prior(), Rows(2).normal(1, 8, 8), torch.tensor(0.5)
        assert torch.equal(prior.denoise(x_t, t), prior.denoise(x_t, t))
        assert model.network.training

    @pytest.mark.parametrize("shape", [(1, 8, 8), (1, 16, 16), (1, 4, 6, 6), (1, 150)])
    def test_fast_is_the_same_law_in_bf16(self, shape):
        model = make(shape, (LABEL, DOSE))
        told = {"label": torch.tensor([1]), "dose": torch.randn(1, 2)}
        prior = model.prior(told, steps=4, cfg_scale=1.5)
        fast = prior.fast()
        slow, quick = prior.sample(Rows(3)), fast.sample(Rows(3))
        assert quick.dtype == torch.float32
        gap = float((slow - quick).norm() / slow.norm())
        assert 0 < gap < 0.05
        assert next(model.parameters()).dtype == torch.float32
        assert fast.calls is prior.calls

    def test_one_denoiser_many_samplers(self):
        prior = make().prior(sampler=DDIM(4))
        assert torch.equal(prior.sample(Rows(2)), DDIM(4)(prior, Rows(2)))
        check_prior(prior.flow(steps=4))

    def test_gradients_reach_the_noise_but_need_no_training_mode(self):
        u = Rows(2).normal(1, 8, 8).requires_grad_()
        (gradient,) = torch.autograd.grad(make().prior().flow(steps=3).decode(u).sum(), u)
        assert bool(gradient.abs().sum() > 0)


def test_settings_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="velocity"):
        make(schedule="flow", parameterisation="edm")


@pytest.mark.parametrize("schedule", ["edm", "flow"])
def test_weights_of_the_clean_event_are_bounded(schedule):
    model = Diffusion(DiffusionConfig(schedule=schedule, parameterisation="x0", noise="uniform", width=8), (1, 8, 8))
    t = model.training_times(Rows(4096))
    snr = (model.schedule.alpha(t) / model.schedule.sigma(t)).square()
    assert float(snr.max()) <= 1.01 / 0.002**2
