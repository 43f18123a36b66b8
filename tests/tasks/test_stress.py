"""The stress test against laws whose failures are known: what is asked, how answers are read, what is counted."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

from oneprior.core import AffineMap, ConditionSpec, Geometry, InputError, Rows, ShapeError
from oneprior.data import array_dataset
from oneprior.evaluation import Classifier
from oneprior.priors.base import Prior
from oneprior.tasks.questions import Amounts, Masks, question_of
from oneprior.tasks.real import Real
from oneprior.tasks.stress import Rate, stress_test, stress_test_iter
from oneprior.tasks.told import as_told
from oneprior.training.folder import RunRecord
from oneprior.training.run import Run

SHAPE = torch.Size((1, 4, 4))
UNITS = AffineMap.from_range(0, 100)
NOISE = 0.01


class Painted(Prior):
    """x = picture + NOISE * standard normal, one picture a row."""

    event_shape = SHAPE

    def __init__(self, picture):
        self.picture = picture

    def sample(self, rows):
        return self.picture + NOISE * rows.normal(*SHAPE)


class Painter(torch.nn.Module):
    """A family whose conditional laws are written down: `paint(condition)` is the mean, (n, 1, 4, 4)."""

    device = torch.device("cpu")
    event_shape = SHAPE

    def __init__(self, conditions, paint):
        super().__init__()
        self.conditions, self.paint = tuple(conditions), paint

    def prior(self, condition=None):
        return Painted(self.paint(condition))


def made_run(conditions, paint):
    record = RunRecord("painter", {}, tuple(SHAPE), tuple(conditions), UNITS, Geometry(dtype="float32"))
    return Run(Path("painted"), Painter(conditions, paint), record)


LABEL = ConditionSpec("label", "class", classes=3, names=("low", "middle", "high"))
GREY = torch.tensor([-0.6, 0.0, 0.6])


def flat(grey):
    return grey.reshape(-1, 1, 1, 1).expand(-1, *SHAPE).float()


def classes_run():
    return made_run([LABEL], lambda told: flat(GREY[told["label"]]))


def classes_real(n=30, seed=1):
    label = torch.arange(n) % 3
    return Real(flat(GREY[label]) + NOISE * Rows(n, seed=seed).normal(*SHAPE), {"label": label})


def by_level(x):
    """The right answer in the user's units, 0 .. 100."""
    return torch.bucketize(x.mean((1, 2, 3)), torch.tensor([35.0, 65.0]))


def test_a_perfect_model_never_fails_and_a_blind_one_fails_where_it_is_blind():
    good = stress_test(classes_run(), by_level, classes_real(), n=7)
    assert good.whole.made == Rate(0, 21)
    assert good.whole.real == Rate(0, 30)
    assert len(good.worst(5)) == 0
    blind = stress_test(classes_run(), lambda x: by_level(x).clamp_max(1), classes_real(), n=7)
    assert [line.made for line in blind.conditions] == [Rate(0, 7), Rate(0, 7), Rate(7, 7)]
    assert [line.real for line in blind.conditions] == [Rate(0, 10), Rate(0, 10), Rate(10, 10)]
    assert [line.name for line in blind.conditions] == ["low", "middle", "high"]
    _, made = blind.answers
    assert made.requested.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert (made.requested[blind.worst(50)] == 2).all()


def test_every_failure_is_counted_once_by_distance_and_edges_part_the_generated_events_evenly():
    result = stress_test(classes_run(), lambda x: torch.zeros(len(x)), classes_real(), n=40, bins=5)
    lines = result.distances
    assert [line.made.trials for line in lines] == [24] * 5
    assert sum(line.made.failed for line in lines) == result.whole.made.failed == 80
    assert sum(line.real.trials for line in lines) == 30
    assert result.reference == "test"
    other = stress_test(classes_run(), by_level, classes_real(), n=4, train=classes_real(90, seed=2))
    assert other.reference == "training"
    _, made = other.answers
    gaps = (made.x[:, None] - classes_real(90, seed=2).x).flatten(2).norm(dim=2).min(1).values
    assert torch.allclose(made.distance, gaps.double(), atol=1e-5)


def test_real_events_that_are_the_reference_are_not_their_own_neighbours():
    real, _ = stress_test(classes_run(), by_level, classes_real(), n=2).answers
    gaps = (real.x[:, None] - real.x).flatten(2).norm(dim=2) + torch.eye(30) * 1e9
    assert torch.allclose(real.distance, gaps.min(1).values.double(), atol=1e-5)


def test_rates_have_exact_intervals():
    rate = Rate(3, 40)
    low, high = rate.interval
    assert binom.sf(2, 40, low) == pytest.approx(0.025)
    assert binom.cdf(3, 40, high) == pytest.approx(0.025)
    assert rate.value == 0.075
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert math.isnan(Rate(0, 0).value)


@pytest.mark.parametrize(
    ("answer", "sure"),
    [
        (lambda x: torch.eye(3)[by_level(x)] * 4, math.exp(4) / (math.exp(4) + 2)),
        (lambda x: (torch.eye(3)[by_level(x)] * 0.7 + 0.1).numpy(), 0.8),
        (lambda x: by_level(x).numpy().astype(np.uint8), math.nan),
        (lambda x: [float(k) for k in by_level(x)], math.nan),
        (lambda x: np.array(["low", "middle", "high"])[by_level(x).numpy()], math.nan),
    ],
)
def test_logits_probabilities_numbers_and_names_are_understood(answer, sure):
    result = stress_test(classes_run(), answer, classes_real(), n=3)
    assert result.whole.made == Rate(0, 9)
    _, made = result.answers
    assert made.sure.tolist() == pytest.approx([sure] * 9, nan_ok=True)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda x: 1 / 0, InputError, "mine fails on 30 events of shape .1, 4, 4.: ZeroDivisionError"),
        (lambda x: torch.zeros(len(x), 2), ShapeError, "what mine returns"),
        (lambda x: torch.full((len(x),), 0.5), ShapeError, "labels 0 .. 2"),
        (lambda x: torch.full((len(x),), 3), InputError, "holds the label 3; the run's classes are 0 .. 2"),
        (lambda x: torch.full((len(x), 3), math.nan), InputError, "nan or infinity for 30 of 30"),
        (lambda x: ["cat"] * len(x), InputError, "the class 'cat'; the run knows low, middle, high"),
        (lambda x: None, InputError, "no array of numbers"),
    ],
)
def test_a_model_that_fails_or_answers_something_else_is_told_so(answer, error, words):
    with pytest.raises(error, match=words):
        stress_test(classes_run(), answer, classes_real(), name="mine")


def test_the_model_sees_the_users_units_and_cannot_spoil_the_events():
    seen = []

    def spoil(x):
        seen.append(x.clone())
        label = by_level(x)
        x.zero_()
        return label

    result = stress_test(classes_run(), spoil, classes_real(), n=5)
    assert result.whole.made.failed == 0
    _, made = result.answers
    shown = torch.cat(seen[1:])
    assert shown.dtype == torch.float32
    assert torch.allclose(shown, UNITS.to_units(made.x), atol=1e-4)


def test_rows_are_those_of_sampling_and_do_not_depend_on_the_batch():
    results = [stress_test(classes_run(), by_level, classes_real(), n=6, seed=9, batch=b) for b in (64, 5)]
    a, b = (r.answers[1].x for r in results)
    assert torch.allclose(a, b, atol=1e-6)
    label = torch.tensor([2])
    again = classes_run().prior({"label": label}).sample(Rows([17], seed=9))
    assert torch.allclose(a[17], again[0], atol=1e-5)


def test_the_surest_failures_come_first():
    def model(x):
        p = 0.4 + 0.5 * torch.rand(len(x), generator=torch.Generator().manual_seed(3))
        return torch.stack([p, 1 - p, torch.zeros_like(p)], 1)

    result = stress_test(classes_run(), model, classes_real(), n=20)
    _, made = result.answers
    worst = result.worst(10)
    assert len(worst) == 10
    assert made.failed[worst].all()
    assert (made.sure[worst].diff() <= 0).all()
    rest = made.failed.clone()
    rest[worst] = False
    assert made.sure[rest].max() <= made.sure[worst].min()


class Sighted(Classifier):
    """A judge that is always right."""

    def classify(self, x, batch=500):
        return by_level(UNITS.to_units(x))


def wrong_one_time_in_four(told):
    """A prior that paints another class in every fourth row."""
    label = told["label"].clone()
    label[::4] = (label[::4] + 1) % 3
    return flat(GREY[label])


def test_a_judge_takes_out_the_pictures_that_do_not_show_what_was_asked():
    run = made_run([LABEL], wrong_one_time_in_four)
    judge = Sighted(SHAPE, 3, Rows(1))
    result = stress_test(run, by_level, classes_real(), n=20, judge=judge)
    assert result.whole.made == Rate(15, 60)  # labels are wrong, not the model
    assert result.whole.confirmed == Rate(0, 45)
    assert result.disputed == Rate(15, 60)
    assert result.disputed_real == Rate(0, 30)
    assert result.judge == judge.name
    assert result.features == judge.name
    assert len(result.worst(5)) == 0
    with pytest.raises(InputError, match="knows 2 classes of"):
        stress_test(run, by_level, classes_real(), judge=Classifier(SHAPE, 2, Rows(1)))


AMOUNT = ConditionSpec("amount", "vector", (2,))


def amounts_run():
    return made_run([AMOUNT], lambda told: flat(told["amount"][:, 1]))


def amounts_real(n=50):
    amount = torch.linspace(-0.5, 0.5, n)
    return Real(flat(amount), {"amount": torch.stack([10 * amount, amount], 1)})


def model_of_amounts(x):
    """Right below 0, and half of it above."""
    amount = (x.mean((1, 2, 3)) - 50) / 50
    return torch.where(amount > 0, 0.5 * amount, amount)[:, None]


def test_an_amount_is_swept_over_the_range_of_the_data():
    result = stress_test(amounts_run(), model_of_amounts, amounts_real(), n=10, by="amount:1", tolerance=0.06)
    _, made = result.answers
    assert made.requested.tolist() == pytest.approx([-0.5 + (k + 0.5) / 40 for k in range(40)], abs=1e-6)
    assert [line.made for line in result.conditions] == [Rate(0, 10), Rate(0, 10), Rate(5, 10), Rate(10, 10)]
    assert sum(line.real.trials for line in result.conditions) == 50
    # the other entry is that of the real event next to it
    assert torch.allclose(made.told["amount"][:, 0], 10 * made.told["amount"][:, 1], atol=0.11)
    worst = made.requested[result.worst(3)]
    assert worst.tolist() == pytest.approx([0.4875, 0.4625, 0.4375], abs=1e-6)


def test_the_default_tolerance_is_what_most_real_events_keep():
    result = stress_test(amounts_run(), model_of_amounts, amounts_real(), n=5, by="amount:1")
    real, _ = result.answers
    assert result.whole.real == Rate(3, 50)
    assert result.tolerance == pytest.approx(float(real.error.quantile(0.95)))


@pytest.mark.parametrize("by", ["amount:2", "amount:x"])
def test_an_entry_that_is_not_there(by):
    with pytest.raises(InputError, match="has the entries 0 .. 1"):
        stress_test(amounts_run(), model_of_amounts, amounts_real(), by=by)


MASK = ConditionSpec("mask", "image", (1, 4, 4), via="concat")


def masks_real(n=12):
    mask = torch.full((n, 1, 4, 4), -1.0)
    for k in range(n):
        mask[k, :, : 1 + k % 4] = 1.0
    return Real(0.5 * mask, {"mask": mask})


def masks_run():
    return made_run([MASK], lambda told: 0.5 * told["mask"])


def upper_half(x):
    """A segmenter that sees nothing below the middle."""
    found = x[:, 0] > 50
    found[:, 2:] = False
    return found


def test_a_segmenter_is_compared_by_dice_with_the_mask_that_was_asked_for():
    result = stress_test(masks_run(), upper_half, masks_real(), n=6, tolerance=0.1)
    _, made = result.answers
    rows = made.requested.flatten(1).sum(1) // 4
    expected = {1: 0.0, 2: 0.0, 3: 1 - 2 * 2 / 5, 4: 1 - 2 * 2 / 6}
    assert made.error.tolist() == pytest.approx([expected[int(k)] for k in rows])
    assert [line.made for line in result.conditions] == [Rate(0, 6), Rate(0, 6), Rate(6, 6), Rate(6, 6)]
    assert result.conditions[0].name.startswith("0 – ")
    logits = stress_test(
        masks_run(), lambda x: torch.stack([~upper_half(x), upper_half(x)], 1).float(), masks_real(), n=6
    )
    assert torch.equal(logits.answers[1].delivered, made.delivered)
    with pytest.raises(InputError, match="a judge is a classifier, and mask is no class"):
        stress_test(masks_run(), upper_half, masks_real(), judge=Classifier(SHAPE, 2, Rows(1)))
    with pytest.raises(ShapeError, match="A label map"):
        stress_test(masks_run(), lambda x: x[:, 0, 0] > 50, masks_real())


def test_masks_of_another_size_and_of_a_channel_a_class_and_empty_ones():
    run = masks_run()
    coarse = Real(torch.zeros(2, *SHAPE), {"mask": torch.tensor([[[[0.0, 1.0]]], [[[0.0, 0.0]]]])})
    question = question_of(run, coarse, None, 2)
    assert isinstance(question, Masks)
    wanted = question.requested(coarse.condition)
    assert wanted.shape == (2, 4, 4)
    assert wanted[0].tolist() == [[0, 0, 1, 1]] * 4
    assert question.error(wanted, torch.zeros_like(wanted)).tolist() == [1.0, 0.0]
    spec = ConditionSpec("mask", "image", (3, 4, 4), via="concat")
    many = torch.nn.functional.one_hot(torch.arange(16).reshape(1, 4, 4) % 3, 3).movedim(-1, 1).float()
    real = Real(torch.zeros(2, *SHAPE), {"mask": many.repeat(2, 1, 1, 1)})
    question = question_of(made_run([spec], lambda told: told["mask"][:, :1]), real, None, 1)
    assert question.requested(real.condition)[0].flatten().tolist() == [k % 3 for k in range(16)]
    picture = Real(torch.zeros(2, *SHAPE), {"mask": torch.rand(2, 1, 4, 4)})
    with pytest.raises(InputError, match="only masks can be asked back"):
        question_of(run, picture, None, 2)


def test_other_conditions_are_those_of_a_real_event_that_is_alike():
    run = made_run([LABEL, AMOUNT], lambda told: flat(GREY[told["label"]] + 0 * told["amount"][:, 1]))
    real = classes_real(9)
    amount = torch.stack([real.condition["label"].float(), torch.arange(9.0)], 1)
    real = Real(real.x, {"label": real.condition["label"], "amount": amount})
    told = question_of(run, real, "label", 4).tell(real, 5)
    assert torch.equal(told["amount"][:, 0].long(), told["label"])
    question = question_of(run, real, "amount:1", 4)
    assert isinstance(question, Amounts)
    told = question.tell(real, 5)
    assert torch.equal(told["amount"][:, 0].long(), told["label"])


def test_what_cannot_be_asked_is_refused_before_the_work():
    plain = made_run([], lambda told: torch.zeros(1, *SHAPE))
    with pytest.raises(InputError, match="needs a conditional one: train it on data with labels"):
        next(stress_test_iter(plain, by_level, classes_real()))
    with pytest.raises(InputError, match="the real events have no 'label'"):
        next(stress_test_iter(classes_run(), by_level, Real(classes_real().x, {})))
    with pytest.raises(InputError, match="can be told label, and not 'size'"):
        next(stress_test_iter(classes_run(), by_level, classes_real(), by="size"))
    with pytest.raises(InputError, match="n >= 1"):
        next(stress_test_iter(classes_run(), by_level, classes_real(), n=0))
    with pytest.raises(InputError, match="not done"):
        _ = next(stress_test_iter(classes_run(), by_level, classes_real())).whole


def test_classes_are_numbered_as_the_run_does_by_their_names():
    x = np.zeros((4, 4, 4), np.uint8)
    spec = ConditionSpec("label", "class", classes=2, names=("high", "low"))
    data = array_dataset(x, units=UNITS, layout="nhw", conditions={spec: np.array([0, 1, 1, 0])})
    told = as_told(classes_run(), data)
    assert told.batch(torch.tensor([0, 1, 2])).condition["label"].tolist() == [2, 0, 0]
    assert told.conditions == (LABEL,)
    strange = ConditionSpec("label", "class", classes=2, names=("high", "odd"))
    data = array_dataset(x, units=UNITS, layout="nhw", conditions={strange: np.array([0, 1, 1, 0])})
    with pytest.raises(InputError, match="the data have the class 'odd' of label, and the run knows low, middle, high"):
        as_told(classes_run(), data)


def test_masks_and_amounts_are_read_from_beside_the_events(tmp_path):
    x = np.zeros((4, 4, 4), np.uint8)
    path = tmp_path / "test.npz"
    np.savez(path, x=x, mask=np.arange(4 * 16).reshape(4, 4, 4) % 2)
    data = array_dataset(x, units=UNITS, layout="nhw")
    told = as_told(masks_run(), data, path)
    assert told.batch(torch.tensor([1])).condition["mask"].shape == (1, 1, 4, 4)
    assert as_told(masks_run(), data) is data
    np.savez(path, x=x, mask=np.zeros((3, 4, 4)))
    with pytest.raises(ShapeError, match="One condition for each event"):
        as_told(masks_run(), data, path)
