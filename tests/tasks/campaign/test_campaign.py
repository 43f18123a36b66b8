"""Ask and tell: distinct candidates beyond the data, all kinds of news, and going on after a break."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from oneprior.core import BadRunError, IncompatiblePrior, InputError, ShapeError
from oneprior.data import array_dataset, digits
from oneprior.inference.search.surrogate import Trees
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.ledger import Ledger
from oneprior.tasks.campaign.objectives import Objective, Objectives
from oneprior.tasks.campaign.settings import Settings
from oneprior.training import train

QUICK = Settings(trees=Trees(most=60, least=5), best=200, others=200, seconds=20, share=0.02, first_share=0.05)


def ink(x) -> float:
    """What is maximised: the mean grey level."""
    return float(torch.as_tensor(x).mean())


@pytest.fixture
def campaign(codes_run, tmp_path):
    data = digits()
    found = Campaign.begin(tmp_path / "campaign", codes_run, data, QUICK)
    rows = np.arange(0, len(data), 3)
    found.score_data(rows, [ink(data.batch(torch.tensor([row])).x) for row in rows])
    return found


def test_candidates_are_new_distinct_and_proven(campaign):
    found = campaign.ask(4)
    points = np.stack([one.point for one in found])
    assert len(np.unique(points, axis=0)) == 4
    known = {point.tobytes() for point in campaign._data_points()}
    for one in found:
        assert one.point.tobytes() not in known
        assert one.status == "optimal"
        assert one.prediction <= one.bound + 1e-9
        assert one.distance >= 1
        assert one.event.shape == campaign.run.event_shape
    assert [one.prediction for one in found] == sorted([one.prediction for one in found], reverse=True)


def test_the_log_probability_is_that_of_the_token_prior(campaign):
    one = campaign.ask(1)[0]
    law = campaign.run.prior().base
    codes = torch.from_numpy(one.point.astype(np.int64)).reshape(1, *law.grid)
    assert one.log_prob == pytest.approx(float(law.log_prob(codes).detach()), abs=1e-5)


def test_it_goes_beyond_all_that_it_was_told(codes_run, tmp_path):
    data = digits()
    scores = np.array([ink(data.batch(torch.tensor([row])).x) for row in range(900)])
    low = np.flatnonzero(scores < np.median(scores))  # the upper half is never shown
    found = Campaign.begin(tmp_path / "beyond", codes_run, data, Settings(trees=QUICK.trees, unlikely=None))
    found.score_data(low, scores[low])
    for _ in range(2):
        for one in found.ask(3):
            found.tell(one.id, ink(one.event))
    assert found.best().origin == "asked"
    assert found.best().score > scores[low].max() + 0.5 * scores[low].std()


def test_the_trees_see_all_that_the_campaign_measured(codes_run, tmp_path):
    data = digits()
    few = Settings(trees=QUICK.trees, best=100, others=20, unlikely=None)
    found = Campaign.begin(tmp_path / "measured", codes_run, data, few)
    found.score_data(range(400), [ink(data.batch(torch.tensor([row])).x) for row in range(400)])
    for one in found.ask(6):
        found.tell(one.id, -1.0)  # far below what was promised, and below the best of the data
    found.ask(1)
    assert [one["points"] for one in found.ledger.rounds()] == [120, 126]


def test_own_measurements_weigh_what_was_asked(codes_run, tmp_path, monkeypatch):
    from oneprior.tasks.campaign import code_space

    seen, fit = [], code_space.fit_surrogate

    def kept(*given, weights, **named):
        seen.append(weights)
        return fit(*given, weights=weights, **named)

    monkeypatch.setattr(code_space, "fit_surrogate", kept)
    data = digits()
    settings = Settings(trees=QUICK.trees, splits="codes", own_share=0.1, unlikely=None)
    found = Campaign.begin(tmp_path / "weighed", codes_run, data, settings)
    found.score_data(range(400), [ink(data.batch(torch.tensor([row])).x) for row in range(400)])
    for count in (1, 3):
        for one in found.ask(count):
            found.tell(one.id, 0.0)
    found.ask(1)
    assert (seen[0] == 1).all()
    assert sorted(seen[1])[-2:] == [1, 40]  # no more, whatever its share
    assert sorted(seen[2])[-5:] == pytest.approx([1, *[400 / 9 / 4] * 4])
    with pytest.raises(InputError, match="own_share"):
        Settings(own_share=1.0)


def test_minimum_and_target_are_searched_for_too(codes_run, tmp_path):
    data, predicted = digits(), {}
    scores = [ink(data.batch(torch.tensor([row])).x) for row in range(400)]
    target = float(np.mean(scores))
    for goal in ("minimise", "maximise", target):
        settings = Settings(
            objectives=Objectives((Objective(goal=goal),)), trees=QUICK.trees, best=200, others=200, unlikely=None
        )
        found = Campaign.begin(tmp_path / str(goal), codes_run, data, settings)
        found.score_data(range(400), scores)
        predicted[goal] = found.ask(1)[0].prediction
    assert predicted["minimise"] < predicted[target] < predicted["maximise"]
    assert predicted[target] == pytest.approx(target, abs=0.01)


def test_all_kinds_of_news_are_taken(campaign):
    first, second = campaign.ask(2)
    campaign.tell(first.id, float("nan"), "it did not fit")
    campaign.tell(second.id, 0.3)
    campaign.tell(second.id, 0.4)  # again
    number = campaign.tell_event(torch.zeros(campaign.run.event_shape), 0.1)
    entries = {entry.id: entry for entry in campaign.told()}
    assert (entries[first.id].state, entries[first.id].note) == ("failed", "it did not fit")
    assert entries[second.id].score == 0.4
    assert (entries[number].origin, entries[number].score) == ("told", 0.1)
    later = campaign.ask(2)  # what failed is not asked for again
    assert not {one.point.tobytes() for one in later} & {first.point.tobytes(), second.point.tobytes()}


def test_it_goes_on_with_the_same_candidates_as_if_it_had_not_stopped(campaign):
    one = campaign.ask(1)[0]
    campaign.ledger.close()
    again = Campaign.resume(campaign.folder, digits())
    assert [entry.id for entry in again.open()] == [one.id]
    assert again.open()[0].event == pytest.approx(one.event.numpy())
    again.tell(one.id, ink(one.event))
    assert not again.open()
    assert again.settings == QUICK


def test_the_prior_follows_and_everything_is_encoded_anew(campaign):
    campaign.ledger.remember(settings=QUICK.to_json())
    before = campaign._data_points()
    while not campaign.due:
        for one in campaign.ask(5):
            campaign.tell(one.id, ink(one.event))
    for _ in campaign.retrain():
        pass
    assert campaign.run.path.name == "prior-001"
    assert campaign.run.record.model["prior_start"] == 0  # codes keep what they mean
    assert not campaign.due
    assert (campaign._data_points() != before).any()
    again = Campaign.resume(campaign.folder, digits())
    assert again.run.path == campaign.run.path.resolve()
    assert again.ask(1)[0].status == "optimal"


def test_what_is_unlikely_is_passed_over_and_told(codes_run, tmp_path):
    data = digits()
    found = Campaign.begin(tmp_path / "likely", codes_run, data, Settings(trees=QUICK.trees, unlikely=0.5))
    found.score_data(range(400), [ink(data.batch(torch.tensor([row])).x) for row in range(400)])
    one = found.ask(1)[0]
    median = np.median(found.latents.log_prob(found._data_points()))
    assert one.likely == (one.log_prob >= found.latents.least_log_prob(found._data_points(), found.settings))
    assert found.latents.least_log_prob(found._data_points(), found.settings) == pytest.approx(median, abs=1.5)
    if not one.likely:
        assert found.ledger.rounds()[0]["passed"] == 20


def test_a_ball_keeps_candidates_near_the_best(codes_run, tmp_path):
    data = digits()
    settings = Settings(trees=QUICK.trees, radius=1, centres=3, unlikely=None)
    found = Campaign.begin(tmp_path / "ball", codes_run, data, settings)
    scores = np.array([ink(data.batch(torch.tensor([row])).x) for row in range(600)])
    found.score_data(range(600), scores)
    centres = found._data_points()[np.argsort(-scores, kind="stable")[:3]]
    for one in found.ask(2):
        assert (one.point != centres).sum(1).min() <= 1


KILLED = """
import sys, numpy as np, torch
from oneprior.data import digits
from oneprior.tasks.campaign.campaign import Campaign
campaign = Campaign.resume(sys.argv[1], digits())
while True:
    for entry in campaign.open() or campaign.ask(3) and campaign.open():
        score = float(entry.event.mean())
        print(entry.id, flush=True)
        campaign.tell(entry.id, score)
        print("told", entry.id, flush=True)
"""


def test_killed_at_any_moment_it_loses_no_score_and_repeats_none(campaign):
    campaign.ledger.close()
    told: list[int] = []
    for lines in (3, 6, 9):
        command = [sys.executable, "-c", KILLED, str(campaign.folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in itertools.islice(process.stdout, lines):
            if line.startswith("told"):
                told.append(int(line.split()[1]))
        process.kill()  # -9
        process.wait()
        rest = process.stdout.read().split("\n")  # what was printed before it died
        told += [int(line.split()[1]) for line in rest if line.startswith("told")]
    assert len(told) == len(set(told))
    ledger = Ledger(campaign.folder)
    scored = [entry.id for entry in ledger.entries(state="scored", origin="asked")]
    assert set(told) <= set(scored)
    asked = ledger.entries(origin="asked")
    assert len(np.unique(np.stack([entry.point for entry in asked]), axis=0)) == len(asked)
    assert len(scored) + ledger.count("open", "asked") == len(asked)


def test_what_makes_no_sense_is_refused(campaign, codes_run, tmp_path):
    with pytest.raises(InputError, match="no candidate has the number 4711"):
        campaign.tell(4711, 1.0)
    with pytest.raises(ShapeError):
        campaign.tell_event(torch.zeros(1, 4, 4), 1.0)
    with pytest.raises(InputError, match="holds a campaign already"):
        Campaign.begin(campaign.folder, codes_run, digits(), QUICK)
    with pytest.raises(BadRunError, match="holds no campaign"):
        Campaign.resume(tmp_path / "nothing", digits())
    with pytest.raises(InputError, match="began with 1797 events"):
        Campaign.resume(campaign.folder, array_dataset(np.eye(8, dtype=np.float32)[None, None]))
    with pytest.raises(InputError, match="'maximise', 'minimise'"):
        Objective(goal="more")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "campaign.sqlite").write_text("not a data base, but long enough to look like one" * 9)
    with pytest.raises(BadRunError, match="cannot be read as a campaign"):
        Campaign.resume(tmp_path / "other", digits())


def test_equal_scores_are_refused_in_words(codes_run, tmp_path):
    found = Campaign.begin(tmp_path / "equal", codes_run, digits(), QUICK)
    found.score_data(range(200), np.full(200, 2.0))
    with pytest.raises(InputError, match="all 200 scores are 2"):
        found.ask(1)


@pytest.mark.parametrize("family", ["gan", "vae"])
def test_continuous_latents_are_searched_in_a_trust_region(family, tmp_path):
    data = digits()
    quiet = {"held_out": 0.0, "preview_every": 0, "tracker": "none"}
    tiny = {"images": 3000, "latent": 4, "width": 8}
    other = train(family, data=data, out=tmp_path / family, **quiet, **tiny)
    settings = Settings(retrain_every=0)
    found = Campaign.begin(tmp_path / "campaign", other, data, settings)
    scores = np.array([ink(data.batch(torch.tensor([row])).x) for row in range(200)])
    low = np.flatnonzero(scores < np.median(scores))
    found.score_data(low, scores[low])
    said = []
    for _ in range(8):
        for one in found.ask(4):
            said.append(one.status)
            found.tell(one.id, ink(one.event))
    made = [entry.score for entry in found.told()]
    assert said[-1].startswith("trust region")
    assert (said[0] == "drawn") == (family == "gan")  # which knows no latents of the data
    assert np.mean(made[-8:]) > np.mean(made[:8])
    assert max(made) > scores[low].max()


def test_what_has_no_latents_to_search_is_refused(tmp_path):
    other = train("ppca", data=digits(), out=tmp_path / "ppca", preview_every=0, tracker="none", held_out=0.0)
    with pytest.raises(IncompatiblePrior, match="neither codes nor continuous noise"):
        Campaign.begin(tmp_path / "none", other, digits(), QUICK)
    assert not (tmp_path / "none").exists()


def test_only_a_part_of_the_best_events_changes(codes_run, tmp_path):
    data, part = digits(), ((4, 8), (0, 5))
    settings = Settings(trees=QUICK.trees, splits="codes", where=part, centres=3, unlikely=None)
    found = Campaign.begin(tmp_path / "part", codes_run, data, settings)
    found.score_data(range(400), [ink(data.batch(torch.tensor([row])).x) for row in range(400)])
    assert found.settings == Campaign.resume(tmp_path / "part", data).settings
    latents = found.latents
    where, grid = latents.places(part), tuple(latents.law.grid)
    patch = 8 // grid[0]
    lines, columns = np.unravel_index(where, grid)
    assert set(lines.tolist()) == set(range(4 // patch, grid[0]))
    assert set(columns.tolist()) == set(range(-(-5 // patch)))
    known = found._known(1)
    best = known.points[np.argsort(-known.merit, kind="stable")[:3]]
    outside = [k for k in range(latents.numbers) if k not in where]
    asked = {one.id for one in found.ask(3)}
    made = [one.point for one in found.ledger.entries() if one.id in asked]
    assert len(made) == 3
    for point in made:
        assert (point[outside] == best[:, outside]).all(1).any()


@pytest.mark.parametrize("part", [((0, 9), (0, 4)), ((0, 4),), ((3, 3), (0, 4))], ids=str)
def test_a_part_that_is_none_is_refused_before_anything_is_scored(codes_run, tmp_path, part):
    with pytest.raises(InputError, match="no part of an event of 8 x 8"):
        Campaign.begin(tmp_path / "none", codes_run, digits(), Settings(where=part))
    assert not (tmp_path / "none").exists()
