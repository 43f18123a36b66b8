"""Candidates that keep a specification, splits on the codebook, and how near candidates come to a group."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from oneprior.core import AffineMap, InputError
from oneprior.data import digits
from oneprior.evaluation.embed import principal_features
from oneprior.inference.search import Ball, Search
from oneprior.inference.search.surrogate import Trees, fit_surrogate
from oneprior.tasks.campaign.admission import Admission
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.code_space import principal_axes
from oneprior.tasks.campaign.settings import Settings
from oneprior.tasks.campaign.shift import shifts
from oneprior.training import train

TREES = Trees(most=30, least=5)
DARK = {"checks": [{"name": "not too bright", "check": "mean", "at_most": 5.0}]}  # grey levels go to 16
ONE = {"checks": [{"name": "one thing", "check": "parts", "threshold": 4.0, "at_most": 1}]}
QUIET = {"held_out": 0.0, "preview_every": 0, "tracker": "none"}


def begun(run, folder, **settings):
    """A campaign that knows the ink of every third digit."""
    campaign = Campaign.begin(folder, run, digits(), Settings(trees=TREES, retrain_every=0, **settings))
    rows = np.arange(0, 1797, 3)
    campaign.score_data(rows, campaign.data.batch(torch.from_numpy(rows)).x.flatten(1).mean(1).numpy())
    return campaign


def test_the_worst_broken_rule_is_named():
    both = {"checks": [*DARK["checks"], {"name": "not empty", "check": "largest", "at_least": 8}]}
    admission = Admission(both, AffineMap.from_range(0, 16))
    bright, empty, good = torch.ones(1, 8, 8), -torch.ones(1, 8, 8), -torch.ones(1, 8, 8)
    good[0, 2:4] = 0.5
    assert admission.broken(torch.stack([bright, empty, good])) == ["not too bright", "not empty", ""]
    assert Admission(None, AffineMap()).broken(torch.stack([bright])) == [""]


def test_a_rule_of_sets_is_refused(codes_run, tmp_path):
    with pytest.raises(InputError, match="new is a rule of a set"):
        begun(codes_run, tmp_path / "set", rules={"checks": [{"name": "new", "check": "variety", "at_least": 1}]})
    for rule, said in (
        ({"check": "mean", "at_most": "auto"}, "still auto"),
        ({"check": "confidence", "at_least": 0}, "classif"),
    ):
        with pytest.raises(InputError, match=said):
            begun(codes_run, tmp_path / "set", rules={"checks": [{"name": "new", **rule}]})
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("family", ["vqvae", "vae"])
def test_candidates_keep_the_rules(codes_run, family, tmp_path):
    run = codes_run
    if family == "vae":
        run = train("vae", data=digits(), out=tmp_path / "vae", images=3000, latent=4, width=8, **QUIET)
    free, held = begun(run, tmp_path / "free"), begun(run, tmp_path / "held", rules=DARK)
    most, made = held.run.units.to_model(torch.tensor(5.0)), []
    for _ in range(2):
        for one in held.ask(2):
            made.append(float(one.event.mean()))
            held.tell(one.id, made[-1])
    assert made
    assert max(made) <= most + 1e-6
    if family == "vqvae":  # without the rule it goes where it wants
        assert max(float(one.event.mean()) for one in free.ask(2)) > most
    refused = [entry for entry in held.ledger.entries() if entry.origin == "refused"]
    assert {entry.note for entry in refused} <= {"it breaks the rule 'not too bright'"}
    assert sum(one["refused"] for one in held.ledger.rounds()) == len(refused)
    assert not [entry for entry in held.told() if entry.origin == "refused"]


def test_a_rule_that_counts_leaves_room_for_what_is_at_its_bound(codes_run, tmp_path):
    """Most of what keeps it has no margin at all, and must stay allowed."""
    held = begun(codes_run, tmp_path / "parts", rules=ONE, unlikely=None)
    known, latents = held._known(1), held.latents
    margins = held.admission.margins(latents.decode(known.data))[0].numpy()
    assert (margins == 0).mean() > 0.5
    assert (margins < 0).any()
    rules = latents.rules(known, latents.space, held.settings, [])
    assert rules
    for rule in rules:
        said = rule.model.predict(known.data)
        assert (said[margins >= 0] >= rule.low).mean() > 0.85
        assert (said[margins < 0] >= rule.low).mean() < 0.5


def test_rules_that_all_keep_or_none_can(codes_run, tmp_path):
    always = {"checks": [{"name": "finite", "check": "largest", "at_most": 1000, "scale": 1e-9}]}
    assert len(begun(codes_run, tmp_path / "always", rules=always, unlikely=None).ask(2)) == 2
    never = begun(codes_run, tmp_path / "never", rules={"checks": [{"name": "black", "check": "mean", "at_most": -1}]})
    assert not never.ask(1)
    assert all(entry.origin == "refused" for entry in never.ledger.entries() if entry.origin != "data")


def test_splits_on_the_codebook_are_proven_too(codes_run, tmp_path):
    campaign = begun(codes_run, tmp_path / "vectors", splits="codebook", unlikely=None)
    found = campaign.ask(2)
    assert [one.status for one in found] == ["optimal", "optimal"]
    assert found[0].prediction >= found[1].prediction
    with pytest.raises(InputError, match="'codes', 'shared', 'codebook'"):
        Settings(splits="colours")


def test_the_splits_that_predict_better_are_taken(codes_run, tmp_path):
    fits = {}
    for splits in ("codes", "shared", "codebook", "better"):
        campaign = begun(codes_run, tmp_path / splits, splits=splits, unlikely=None)
        campaign.ask(1)
        (fits[splits],) = campaign.ledger.rounds()
    assert len({fits[one]["r2"] for one in ("codes", "shared", "codebook")}) == 3
    best = max(("codes", "shared", "codebook"), key=lambda one: fits[one]["r2"])
    assert fits["better"]["splits"] == best
    assert fits["better"]["r2"] == fits[best]["r2"]


def test_a_codebook_is_seen_along_the_axes_in_which_it_varies():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) @ np.linalg.qr(rng.normal(size=(8, 8)))[0][:2]
    seen = principal_axes(plane + 3)
    assert seen.shape == (50, 2)
    np.testing.assert_allclose(seen.T @ seen - np.diag(np.diag(seen.T @ seen)), 0, atol=1e-9)
    apart = [np.linalg.norm(one[:, None] - one[None], axis=2) for one in (plane, seen)]
    np.testing.assert_allclose(*apart, atol=1e-9)
    assert principal_axes(np.ones((5, 3))).shape == (5, 1)


def test_of_grids_that_the_trees_cannot_tell_apart_a_likely_one_is_taken(codes_run, tmp_path):
    campaign = begun(codes_run, tmp_path / "likely", unlikely=None, splits="codes")
    latents, least = campaign.latents, Trees(most=3, least=5)
    points = latents.encode(digits().batch(torch.arange(600)).x)
    surrogate = fit_surrogate(latents.space, points, points[:, 0], least)
    best = Search(surrogate.models, latents.space).best([Ball(points[:5], 3)])
    assert best.point is not None
    likelier, log_prob = latents._likeliest(best.point, best.alike, campaign.settings, 1)
    assert log_prob > latents.log_prob(best.point[None])[0]
    assert surrogate.predict(likelier[None])[0] == pytest.approx(best.prediction)
    assert (points[:5] != likelier).sum(1).min() <= 3
    own = [np.array([int(code)]) for code in best.point]
    rewarded = replace(campaign.settings, realism=0.1)  # a reward of each code has chosen already
    for alike, settings in ((own, campaign.settings), (best.alike, rewarded)):
        assert latents._likeliest(best.point, alike, settings, 1)[0].tolist() == best.point.tolist()


def test_what_comes_nearer_has_smaller_distances():
    x = digits().batch(torch.arange(1797)).x
    zero = torch.from_numpy(load_digits().target == 0)
    group, more, rest = x[zero][:90], x[zero][90:], x[~zero]
    found = shifts(group, [("rest", rest), ("more", more), ("few", rest[:3])], principal_features(group, 16))
    assert [one.name for one in found] == ["rest", "more"]
    assert found[0].n == found[1].n == len(more)
    assert found[1].kernel < found[0].kernel - 2 * found[0].error
    assert found[1].frechet < found[0].frechet
    with pytest.raises(InputError, match="too small"):
        shifts(group[:3], [("rest", rest)], principal_features(group, 4))
