"""Several scores: weighed into one, or traded against each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oneprior.core import InputError, ShapeError
from oneprior.data import digits
from oneprior.inference.search.surrogate import Trees
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.objectives import Objective, Objectives, dominated
from oneprior.tasks.campaign.settings import Settings

PAIR = Objectives((Objective("ink"), Objective("edge", "minimise")))
WEIGHED = Objectives((Objective("ink", weight=1.0), Objective("edge", "minimise", weight=3.0)))


def test_one_objective_is_its_own_merit():
    scores = np.array([[1.0], [4.0], [2.0]])
    assert Objectives().overall(scores).tolist() == [1, 4, 2]
    assert Objectives((Objective(goal=2.0),)).overall(scores).tolist() == [-1, -2, 0]
    learned, goal = Objectives((Objective(goal="minimise"),)).of_round(scores, 0, 1)
    assert learned.tolist() == [1, 4, 2]  # the score itself, and the search minimises its prediction
    assert goal.sign == -1


def test_weights_weigh_merits():
    assert WEIGHED.overall(np.array([[5.0, 1.0], [9.0, 3.0]])).tolist() == [2, 0]
    assert not WEIGHED.pareto


def test_of_a_front_nothing_is_dominated():
    merits = np.array([[3.0, 0.0], [2.0, 2.0], [0.0, 3.0], [1.0, 1.0], [0.0, 0.0], [2.0, 2.0]])
    assert dominated(merits).tolist() == [0, 0, 0, 2, 5, 0]
    assert PAIR.overall(merits * [1, -1]).tolist() == [0, 0, 0, -2, -5, 0]


@given(arrays(float, (40, 3), elements=st.integers(0, 4).map(float)))
def test_the_count_is_that_of_the_definition(merits):
    count = [sum((b >= a).all() and (b > a).any() for b in merits) for a in merits]
    assert dominated(merits).tolist() == count


@given(st.integers(0, 1000))
def test_the_best_of_every_round_is_on_the_front_and_rounds_differ(number):
    merits = np.random.default_rng(number).normal(size=(30, 2))
    learned, goal = PAIR.of_round(merits * [1, -1], 0, number)
    assert dominated(merits)[int(goal(learned).argmax())] == 0


def test_rounds_reach_the_dents_of_a_front():
    dent = np.array([[1.0, 0.0], [0.0, 1.0], [0.45, 0.45]])  # no weighed sum is best at the third
    best = {int(PAIR.of_round(dent * [1, -1], 0, number)[0].argmax()) for number in range(40)}
    assert best == {0, 1, 2}


def test_better_is_above_the_best_or_on_the_front():
    one = Objectives()
    assert one.better(np.array([[1.0]]), np.array([[0.5], [2.0]]))
    assert not one.better(np.array([[1.0]]), np.array([[0.5]]))
    assert one.better(np.empty((0, 1)), np.array([[0.5]]))
    assert not one.better(np.array([[1.0]]), np.empty((0, 1)))
    before = np.array([[1.0, 1.0]])
    assert PAIR.better(before, np.array([[0.5, 0.5]]))  # less ink, and less edge, which is minimised
    assert not PAIR.better(before, np.array([[0.5, 1.5]]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Objectives(()), "needs an objective"),
        (lambda: Objectives((Objective("a"), Objective("a"))), "different names"),
        (lambda: Objectives((Objective("a", weight=1.0), Objective("b"))), "weigh all, or none"),
        (lambda: Objective("a", weight=0.0), "above 0"),
        (lambda: Objective("a", goal=float("nan")), "come near to nan"),
    ],
    ids=["none", "names", "some weights", "no weight", "nan"],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def measured(x) -> list[float]:
    """Ink, and how much neighbours differ."""
    return [float(x.mean()), float(np.abs(np.diff(x, axis=-1)).mean())]


def test_a_campaign_pushes_the_front_and_trains_on_it(codes_run, tmp_path):
    settings = Settings(
        objectives=PAIR, trees=Trees(most=60, least=5), retrain_every=6, first_share=0.02, unlikely=None
    )
    campaign = Campaign.begin(tmp_path / "pair", codes_run, digits(), settings)
    rows = np.arange(0, 1797, 4)
    campaign.score_data(rows, [measured(campaign.data.batch(np.array([row])).x.numpy()) for row in rows])
    for _ in range(3):
        for one in campaign.ask(2):
            campaign.tell(one.id, measured(one.event.numpy()))
    best = campaign.ranked()
    count = sum(value == 0 for value in PAIR.overall(campaign.scores_of(best)))
    assert any(entry.origin == "asked" for entry in best[:count])
    assert campaign.due
    for _ in campaign.retrain():
        pass
    again = Campaign.resume(campaign.folder, digits())
    assert again.objectives == PAIR
    assert again.best().scores == campaign.best().scores
    with pytest.raises(ShapeError, match="One score of each: ink, edge"):
        again.tell(best[0].id, 3.0)
    with pytest.raises(ShapeError, match="One of each objective"):
        again.score_data([0], [1.0])
