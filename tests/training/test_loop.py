"""The loop against closed forms, itself uninterrupted, and plain PyTorch."""

import json
import math

import pytest
import torch
from training.toys import Blobs, Duel, MeanModel, Toy, ToyConfig

from oneprior.core import DivergedError, InputError, Rows, ShapeError
from oneprior.training import TrainConfig, fit
from oneprior.training.checkpoint import Checkpoints
from oneprior.training.folder import read_tensors
from oneprior.training.order import DataOrder, seeded
from oneprior.training.schedules import decay_factor, ema_decay, warmup_factor

QUIET = {"tracker": "none", "preview_every": 0}
SHAPE = (1, 4, 4)


def toy(**settings):
    with seeded("toy"):
        return Toy(ToyConfig(**settings), SHAPE)


def run(model, config, folder=None, **options):
    states = list(fit(model, Blobs(), config, folder, **options))
    return model, states


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_budget_in_images_is_exact():
    model, states = run(toy(), TrainConfig(images=160, batch_size=16, **QUIET))
    assert [state.step for state in states] == [*range(1, 11), 10]
    assert states[-1].images == 160
    assert int(model.seen) == 160
    assert [state.fraction for state in states] == pytest.approx([i / 10 for i in range(1, 11)] + [1.0])
    assert [state.finished for state in states] == [False] * 10 + [True]
    assert not any(p.grad is not None for p in model.parameters())


def test_the_budget_in_minutes_is_kept():
    _, states = run(toy(), TrainConfig(minutes=0.02, batch_size=16, **QUIET))
    assert 1.2 <= states[-1].seconds < 2.5
    assert states[-1].fraction == 1.0


def test_the_weights_are_those_of_plain_pytorch():
    """Warm-up, decay, clipping, AdamW with decay on matrices only, EMA: written out here once more."""
    config = TrainConfig(images=128, batch_size=16, warmup_images=48, decay="cosine", clip=0.05, **QUIET)
    mine, _ = run(toy(), config)
    model, data = toy(), Blobs()
    model.mean.copy_(torch.stack([data.batch(torch.tensor([i])).x.flatten() for i in range(60)]).mean(0))
    used = [p for p in model.parameters() if p is not model.unused]
    groups = [
        {"params": [p for p in used if p.dim() > 1], "weight_decay": 1e-2},
        {"params": [p for p in used if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
    averages = [p.detach().clone() for p in used]
    order = DataOrder(60, 0)
    for step in range(8):
        batch = data.batch(order(16 * step, 16))
        rows = Rows(range(16 * step, 16 * (step + 1)), seed=0, stream="train").stream("all")
        loss = model(batch, "all", rows)["square"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(used, 0.05)
        images = 16 * (step + 1)
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * warmup_factor(images, images / 128, 48) * decay_factor("cosine", 16 * step / 128)
        optimiser.step()
        optimiser.zero_grad()
        kept = ema_decay(16, images, 50.0)
        averages = [kept * a + (1 - kept) * p.detach() for a, p in zip(averages, used, strict=True)]
    trained = [p for p in mine.parameters() if p is not mine.unused]
    assert max(float((a - b.detach()).abs().max()) for a, b in zip(averages, trained, strict=True)) < 1e-6
    assert torch.equal(mine.unused, torch.ones(3))


def test_an_average_in_closed_form():
    """Weights that move by one a step: the average is a geometric sum."""
    from oneprior.models.base import Recipe
    from oneprior.training.averages import Averages

    model = toy()
    averages = Averages(model, {"all": Recipe(ema=32.0)})
    start, ratio = model.unused.detach().clone(), 0.5**0.5
    for _ in range(10):
        with torch.no_grad():
            model.unused += 1.0
        averages.update(16, 10**9)
    expected = start + sum((1 - ratio) * ratio ** (10 - k) * k for k in range(1, 11))
    assert torch.allclose(averages.state()["unused"], expected, atol=1e-6)
    raw = model.unused.detach().clone()
    with averages.in_place():
        assert torch.allclose(model.unused, expected, atol=1e-6)
    assert torch.equal(model.unused, raw)


@pytest.mark.parametrize("stop", [1, 5, 9])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, stop):
    config = TrainConfig(images=160, batch_size=16, **QUIET)
    whole, _ = run(toy(dropout=0.3), config, tmp_path / "whole")
    states = fit(toy(dropout=0.3), Blobs(), config, tmp_path / "cut")
    for _ in range(stop):
        next(states)
    states.close()
    with seeded("another start"):
        other = Toy(ToyConfig(dropout=0.3), SHAPE)
    resumed, rest = run(other, config, tmp_path / "cut", resume=True)
    assert rest[0].step == stop + 1
    assert same(whole, resumed)
    a, b = (read_tensors(tmp_path / name / "model.safetensors")[0] for name in ("whole", "cut"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_previews_held_out_losses_and_logs_change_no_weight(tmp_path):
    plain, _ = run(toy(dropout=0.3), TrainConfig(images=160, batch_size=16, **QUIET))
    config = TrainConfig(images=160, batch_size=16, preview_every=32, evaluate_every=48, log_every=1, tracker="none")
    watched, states = run(toy(dropout=0.3), config, tmp_path, held_out=Blobs(20, seed=1))
    assert same(plain, watched)
    assert [state.images for state in states if state.preview] == [32, 64, 96, 128, 160]
    assert [state.images for state in states if state.held_out] == [48, 96, 144]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 11), 10]
    assert {"square", "metric/size", "metric/gradient/all", "seconds"} <= lines[0].keys()


def test_a_resumed_run_drops_lines_after_its_checkpoint(tmp_path):
    config = TrainConfig(images=160, batch_size=16, log_every=1, **QUIET)
    states = fit(toy(), Blobs(), config, tmp_path)
    for _ in range(4):
        next(states)
    states.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "square": 1.0}\n{"step": 6, "squ')
    run(toy(), config, tmp_path, resume=True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [*range(1, 11), 10]


def test_parts_of_a_batch_give_the_same_step():
    one, _ = run(toy(), TrainConfig(images=64, batch_size=16, **QUIET))
    four, _ = run(toy(), TrainConfig(images=64, batch_size=16, accumulate=4, **QUIET))
    pairs = zip(one.parameters(), four.parameters(), strict=True)
    gaps = [float((a - b).detach().abs().max()) for a, b in pairs]
    assert max(gaps) < 1e-6


def test_players_move_only_in_their_own_turn(tmp_path):
    with seeded("duel"):
        model = Duel(ToyConfig(), SHAPE)
    model, states = run(model, TrainConfig(images=160, batch_size=16, **QUIET), tmp_path)
    assert model.asked.tolist() == [0, 0]
    assert {"critic", "penalty", "generator", "metric/gradient/critic"} <= states[-1].losses.keys()
    assert all(p.requires_grad for p in model.parameters())
    saved = Checkpoints(tmp_path / "checkpoint").newest()
    assert set(saved.averages) == {"generator.weight", "generator.bias"}
    assert any(name.startswith("critic/critic.weight/exp_avg") for name in saved.optimisers)
    assert torch.equal(model.critic.weight, saved.model["critic.weight"])
    assert torch.equal(model.generator.weight, saved.averages["generator.weight"])
    assert not torch.equal(model.generator.weight, saved.model["generator.weight"])


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_checkpoint(tmp_path):
    config = TrainConfig(images=160, batch_size=16, checkpoint_every=32, **QUIET)
    states, seen = fit(toy(explode_at=0.5), Blobs(), config, tmp_path), []
    with pytest.raises(DivergedError, match=r"square became nan at step 6.*smaller learning rate"):
        seen.extend(states)
    assert seen[-1].step == 5
    saved = Checkpoints(tmp_path / "checkpoint").newest()
    assert saved.counters.images == 64
    assert all(bool(torch.isfinite(value).all()) for value in saved.model.values())


class Endless(Toy):
    """A finite loss with a gradient that is not."""

    def forward(self, batch, player, rows):
        losses = super().forward(batch, player, rows)
        return {"square": losses["square"], "root": (self.unused - 1).square().sum().sqrt()}


def test_a_gradient_that_is_not_finite_is_named():
    with pytest.raises(DivergedError, match="gradient/all became nan at step 1"):
        list(fit(Endless(ToyConfig(), SHAPE), Blobs(), TrainConfig(images=32, batch_size=16, **QUIET)))


def test_the_best_weights_are_kept_and_patience_ends_the_run(tmp_path):
    """A learning rate far too high: the held-out loss has its minimum early."""
    config = TrainConfig(
        images=6400, batch_size=16, learning_rate=0.3, decay="constant", ema=0, keep="best", patience=3, **QUIET,
        evaluate_every=16,
    )  # fmt: skip
    folder = tmp_path / "run"
    model, states = run(toy(), config, folder, held_out=Blobs(20, seed=1))
    measured = {state.images: state.held_out for state in states if state.held_out is not None}
    best = min(measured, key=measured.get)
    assert states[-1].images == best + 3 * 16 < 6400
    kept, facts = read_tensors(folder / "checkpoint" / "best.safetensors")
    assert facts["images"] == best
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    without, _ = run(toy(), config, held_out=Blobs(20, seed=1))
    assert same(model, without)


def test_two_checkpoints_are_kept(tmp_path):
    run(toy(), TrainConfig(images=160, batch_size=16, checkpoint_every=16, **QUIET), tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert names == ["000000000144.safetensors", "000000000160.safetensors"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    config = TrainConfig(images=160, batch_size=16, checkpoint_every=16, **QUIET)
    whole, _ = run(toy(), config, tmp_path)
    newest = tmp_path / "checkpoint" / "000000000160.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed, rest = run(toy(), config, tmp_path, resume=True)
    assert rest[0].step == 10
    assert same(whole, resumed)


def test_a_closed_form_family_is_fitted_by_passes(tmp_path):
    model = MeanModel(ToyConfig(), SHAPE)
    model, states = run(model, TrainConfig(batch_size=16, tracker="none"), tmp_path)
    x = Blobs().batch(torch.arange(60)).x
    assert torch.allclose(model.mean, x.mean(0), atol=1e-6)
    assert [set(state.losses) for state in states] == [{"mean"}, {"spread"}, {"spread"}]
    assert states[-1].finished
    assert (tmp_path / "model.safetensors").exists()
    assert list((tmp_path / "previews").glob("*.png"))


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"data": Blobs(10, (1, 8, 8))}, ShapeError, r"the data: got shape \(1, 8, 8\), needed \(1, 4, 4\)"),
        ({"data": Blobs(0)}, InputError, "the data set is empty"),
        ({"config": TrainConfig(batch_size=10, accumulate=4)}, InputError, "take a multiple of 4"),
        ({"config": TrainConfig(keep="best")}, InputError, "need a held-out loss"),
        ({"config": TrainConfig(patience=2)}, InputError, "need a held-out loss"),
    ],
)
def test_mistakes_are_found_before_the_first_step(options, kind, said):
    with pytest.raises(kind, match=said):
        fit(toy(), **{"data": Blobs(), "config": TrainConfig(), **options})


def test_inside_the_run_time_left_goes_to_zero():
    _, states = run(toy(), TrainConfig(images=320, batch_size=16, **QUIET))
    left = [state.seconds_left for state in states]
    assert all(value is not None and math.isfinite(value) for value in left)
    assert left[-1] == 0.0


def test_a_resumed_run_of_minutes_counts_the_time_before(tmp_path):
    config = TrainConfig(minutes=0.03, batch_size=16, **QUIET)
    states = fit(toy(), Blobs(), config, tmp_path)
    for state in states:
        if state.seconds > 0.9:
            break
    states.close()
    _, rest = run(toy(), config, tmp_path, resume=True)
    assert 0.9 < rest[0].seconds < rest[-1].seconds < 3.0
    assert rest[0].step == state.step + 1
