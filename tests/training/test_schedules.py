"""The closed forms of what changes while a run goes on."""

import math

import pytest

from oneprior.training import TrainConfig
from oneprior.training.schedules import Budget, crossed, decay_factor, ema_decay, warmup_factor


def test_warm_up_is_linear_in_images_and_then_one():
    assert [warmup_factor(images, 0.5, 400) for images in (100, 200, 400, 900)] == [0.25, 0.5, 1.0, 1.0]
    assert warmup_factor(1, 0.0, 0) == 1.0


def test_warm_up_is_a_hundredth_of_the_budget_where_nothing_is_said():
    assert warmup_factor(7, 0.005) == pytest.approx(0.5)
    assert warmup_factor(7, 0.02) == 1.0


@pytest.mark.parametrize("f", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_decays(f):
    assert decay_factor("constant", f) == 1.0
    assert decay_factor("cosine", f) == pytest.approx(math.cos(math.pi * f / 2) ** 2)
    assert decay_factor("inverse_sqrt", f) == pytest.approx(1.0 if f <= 0.1 else math.sqrt(0.1 / f))


def test_an_average_halves_in_its_half_life_at_any_batch_size():
    for batch in (10, 100):
        left = 1.0
        for images in range(100_000, 101_000, batch):
            left *= ema_decay(batch, images + batch, half_life=1000.0)
        assert left == pytest.approx(0.5)


def test_an_average_is_ramped_up():
    assert ema_decay(10, 200, half_life=1e9) == pytest.approx(0.5)  # a twentieth of 200 images is ten
    assert ema_decay(10, 200, half_life=0) == 0.0


def test_a_budget_of_images_is_whole_batches():
    assert Budget.of(TrainConfig(images=1000, batch_size=64)).images == 1024
    assert Budget.of(TrainConfig(images=1024, batch_size=64)).images == 1024
    budget = Budget(images=1000)
    assert budget.fraction(250, 1e9) == 0.25
    assert budget.seconds_left(250, 10.0, 25.0) == 30.0


def test_a_budget_of_minutes_follows_the_clock():
    budget = Budget.of(TrainConfig(minutes=2))
    assert budget.fraction(10**9, 30.0) == 0.25
    assert budget.seconds_left(1, 30.0, 1.0) == 90.0
    assert budget.fraction(0, 500.0) == 1.0


def test_crossing():
    assert crossed(90, 110, 100)
    assert crossed(90, 100, 100)
    assert not crossed(100, 110, 100)
    assert not crossed(0, 1e9, 0)
    assert sum(crossed(i / 40, (i + 1) / 40, 1 / 20) for i in range(40)) == 20
