"""The whole loop: beyond the data with any number of processes, on after a break, in words where nothing goes."""

import numpy as np
import pytest
import torch

from oneprior.core import InputError
from oneprior.data import digits
from oneprior.inference.search.surrogate import Trees
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.objectives import Objective, Objectives
from oneprior.tasks.campaign.scores import Evaluator
from oneprior.tasks.campaign.settings import Settings
from oneprior.tasks.optimise import optimise, score_data

SETTINGS = Settings(
    trees=Trees(most=60, least=5), unlikely=None, retrain_every=4, first_share=0.02, share=0.02, best=200, others=200
)


def ink(event: np.ndarray) -> float:
    return float(event.mean())


def fails_when_dark(event: np.ndarray) -> float:
    if event.mean() < 5:
        raise ValueError("too dark to see")
    return float(event.mean())


def text(event: np.ndarray) -> str:
    return "good"


def low_rows(data) -> list[int]:
    """Rows in the lower half by what is maximised."""
    means = data.batch(torch.arange(len(data))).x.flatten(1).mean(1)
    return torch.nonzero(means < means.median()).flatten().tolist()[:300]


def test_it_goes_beyond_the_data_and_follows(codes_run, tmp_path):
    data = digits()
    campaign = Campaign.begin(tmp_path / "ink", codes_run, data, SETTINGS)
    with Evaluator(ink, workers=1, seconds=60) as evaluate:
        stages = [state.stage for state in score_data(campaign, evaluate, low_rows(data))]
        known = max(campaign.ledger.data_scores()[1])
        stages += [state.stage for state in optimise(campaign, evaluate, budget=8, batch=3)]
    assert {"data", "asked", "told", "training", "done"} == set(stages)
    assert stages.count("told") == 8
    assert campaign.best().score > known
    assert campaign.run.path.parent == campaign.folder


def test_what_was_asked_before_a_break_is_scored_first_and_the_budget_is_of_all(codes_run, tmp_path):
    data = digits()
    campaign = Campaign.begin(tmp_path / "break", codes_run, data, SETTINGS)
    with Evaluator(ink, workers=1) as evaluate:
        for _ in score_data(campaign, evaluate, low_rows(data)):
            pass
        asked = campaign.ask(2)
        campaign.ledger.close()
        again = Campaign.resume(campaign.folder, data)
        assert not list(score_data(again, evaluate, low_rows(data)))  # nothing twice
        states = list(optimise(again, evaluate, budget=3, batch=2))
    told = [state.number for state in states if state.stage == "told"]
    assert told[:2] == [one.id for one in asked]
    assert len(told) == 3


def test_failures_are_told_and_not_asked_for_again(codes_run, tmp_path):
    data = digits()
    settings = Settings(
        objectives=Objectives((Objective(goal="minimise"),)), trees=SETTINGS.trees, unlikely=None, retrain_every=0
    )
    campaign = Campaign.begin(tmp_path / "dark", codes_run, data, settings)
    with Evaluator(fails_when_dark, workers=1) as evaluate:
        list(score_data(campaign, evaluate, range(400)))
        list(optimise(campaign, evaluate, budget=4, batch=2))
    failed = campaign.ledger.entries(state="failed", origin="asked")
    assert all(entry.note == "ValueError: too dark to see" for entry in failed)
    points = np.stack([entry.point for entry in campaign.ledger.entries(origin="asked")])
    assert len(np.unique(points, axis=0)) == 4


def test_each_score_of_the_data_is_kept_as_it_comes(codes_run, tmp_path):
    campaign = Campaign.begin(tmp_path / "one", codes_run, digits(), SETTINGS)
    with Evaluator(ink) as evaluator:
        states = score_data(campaign, evaluator, range(40))
        for kept in (1, 2, 3):
            next(states)
            assert campaign.ledger.count("scored", "data") == kept
        states.close()
    with Evaluator(fails_when_dark) as evaluator:  # goes on with the others, and remembers why some fail
        said = [state.said for state in score_data(campaign, evaluator, range(120))]
    assert len(said) == 117
    failed = campaign.ledger.entries(state="failed", origin="data")
    assert failed
    assert all("too dark to see" in entry.note for entry in failed)
    assert f"{len(failed)} of them failed" in said[-1]


def test_a_score_that_never_works_stops_at_once_in_words(codes_run, tmp_path):
    campaign = Campaign.begin(tmp_path / "text", codes_run, digits(), SETTINGS)
    with Evaluator(text, workers=1) as evaluate, pytest.raises(InputError, match="no number: 'good'"):
        list(score_data(campaign, evaluate, range(200)))
    with Evaluator(ink) as evaluate:  # mended, it goes on from the beginning
        assert list(score_data(campaign, evaluate, range(20)))
    assert len(campaign.ledger.data_scores()[0]) == 20


def test_a_budget_of_nothing_is_refused(codes_run, tmp_path):
    campaign = Campaign.begin(tmp_path / "none", codes_run, digits(), SETTINGS)
    with Evaluator(ink) as evaluate, pytest.raises(InputError, match="at least 1"):
        list(optimise(campaign, evaluate, budget=0))
