"""Mutants are what they say, good suites kill them, and blind ones are called useless."""

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.data import digits
from oneprior.evaluation import train_classifier
from oneprior.evaluation.specifications import MUTANTS, Judges, Outputs, kill_rates, suite_from, useless
from oneprior.evaluation.specifications import mutants as classes


@pytest.fixture(scope="module")
def real() -> Outputs:
    data = digits()
    batch = data.batch(torch.arange(len(data)))
    labels = batch.condition["label"].long()
    network = train_classifier(batch.x[:900], labels[:900], Rows(64, seed=0), 150)
    return Outputs(batch.x[900:], {"label": labels[900:]}, units=data.units, judges=Judges(classify=network))


def test_each_class_spoils_as_it_says(real: Outputs) -> None:
    one, rows = real.take(torch.arange(100)), Rows(1, seed=4)
    copies = classes.duplicated(one, 0.2, rows)
    assert len(copies.x.flatten(1).unique(dim=0)) == 80
    shuffled = classes.shuffled(one, 1.0, rows)
    assert torch.equal(shuffled.condition["label"].sort().values, one.condition["label"].sort().values)
    assert (shuffled.condition["label"] != one.condition["label"]).float().mean() > 0.7
    swapped = classes.label_swapped(one, 0.3, rows)
    assert int((swapped.condition["label"] != one.condition["label"]).sum()) == 30
    clipped = classes.clipped(one, 0.3, rows)
    reach = [t.x.flatten(1).amax(1) - t.x.flatten(1).amin(1) for t in (clipped, one)]
    assert torch.allclose(reach[0], 0.7 * reach[1], atol=1e-5)
    blurred = classes.blurred(Outputs(torch.ones(2, 1, 9)), 1.0, rows)
    assert torch.allclose(blurred.x, torch.ones(2, 1, 9), atol=1e-6)
    assert all(
        torch.equal(m.make(one, m.strengths[0], Rows(1)).x, m.make(one, m.strengths[0], Rows(1)).x) for m in MUTANTS
    )


def test_a_blur_is_gaussian() -> None:
    x = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    x[..., 20, 20] = 1
    found = classes.blurred(Outputs(x), 2.0, Rows(1)).x[0, 0]
    place = torch.arange(41, dtype=torch.float64) - 20
    assert float((found.sum(0) * place**2).sum()) == pytest.approx(4, rel=1e-2)
    assert float(found.sum()) == pytest.approx(1)


def test_a_good_suite_kills_and_leaves_the_control_alone(real: Outputs) -> None:
    suite = suite_from(
        {
            "required": 0.9,
            "checks": [
                {"check": "sharpness", "at_least": 0.35},
                {"check": "label_rank", "at_most": 1},
                {"check": "distinct", "at_least": 0.05, "required": 0.97},
                {"name": "idle", "check": "largest", "at_least": -100},
            ],
        }
    )
    kills = kill_rates(suite, real, Rows(1, seed=1), sets=8, size=100)
    rate = {(k.mutant, k.strength): k.rate for k in kills}
    assert rate["none", 0.0] == 0
    assert rate["blurred", 1.0] == rate["duplicated", 0.2] == rate["label swapped", 0.3] == 1
    assert rate["condition shuffled", 1.0] == 1
    blurred = next(k for k in kills if (k.mutant, k.strength) == ("blurred", 2.0))
    assert blurred.output_rate > 0.95
    assert blurred.by["idle"] == 0
    assert useless(suite, kills) == ("idle",)


def test_too_few_good_outputs_are_refused(real: Outputs) -> None:
    with pytest.raises(InputError, match="sets of 100 were asked of 7"):
        kill_rates(suite_from({"checks": [{"check": "mean", "at_least": 0}]}), real.take(torch.arange(7)), Rows(1))


def test_a_box_is_erased_and_training_events_are_copied(real: Outputs) -> None:
    one = Outputs(torch.ones(6, 1, 20, 20, 20))
    one.x[..., 0, 0, 0] = -1
    share = (classes.erased(one, 0.15, Rows(1)).x < 0).flatten(1).double().mean(1)
    assert float(share.mean()) == pytest.approx(0.15, abs=0.03)
    train = real.x[:50] + 0.01
    few = Outputs(real.x[50:150], judges=Judges(train=train))
    spoilt = classes.copied(few, 0.2, Rows(1))
    assert int(torch.stack([(train == x).flatten(1).all(1).any() for x in spoilt.x]).sum()) == 20
