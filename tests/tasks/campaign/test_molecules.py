"""The same campaign on sequences: scores see SMILES, and no molecule is asked for twice, whatever its codes."""

import itertools
import json

import numpy as np
import pytest
import torch

from oneprior.apps.main import run as oneprior
from oneprior.core import InputError
from oneprior.data import digits, open_dataset, write_events
from oneprior.inference.search.exact import Best
from oneprior.inference.search.objective import Goal
from oneprior.inference.search.surrogate import Trees
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.code_space import _Round
from oneprior.tasks.campaign.latents import Known
from oneprior.tasks.campaign.presented import identities, presented
from oneprior.tasks.campaign.scores import Evaluator
from oneprior.tasks.campaign.settings import Settings
from oneprior.tasks.optimise import optimise, score_data
from oneprior.tasks.real import open_real
from oneprior.training import load, train

PARTS = ("C", "O", "N", "CC", "C(C)", "C(=O)", "C=C", "CO")


def oxygens(smiles: str) -> float:
    return float(smiles.count("O"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A file of 512 molecules of three parts, and a vqvae of them."""
    folder = tmp_path_factory.mktemp("molecules")
    lines = ["".join(parts) for parts in itertools.product(PARTS, repeat=3)]
    (folder / "all.smi").write_text("\n".join(lines) + "\n")
    (folder / "scoring.py").write_text("def oxygens(smiles):\n    return smiles.count('O')\n")
    train(
        "vqvae",
        data=folder / "all.smi",
        out=folder / "run",
        images=16_000,
        batch_size=32,
        downsample=2,
        codes=24,
        width=16,
        prior_width=16,
        prior_depth=1,
        prior_heads=2,
        held_out=0.0,
        preview_every=0,
        tracker="none",
    )
    return folder


def test_other_data_than_the_runs_are_told(place, tmp_path):
    write_events(digits().batch(torch.arange(4)).x, tmp_path / "digits")
    with pytest.raises(InputError, match="the run is of molecules, and these data are none"):
        open_real(load(place / "run"), tmp_path / "digits")


def test_sequences_are_reconstructed_and_drawn_as_molecules(place, tmp_path):
    run = load(place / "run")
    assert run.model.config.one_hot == 1  # set by itself
    data = open_dataset(place / "all.smi")
    x = data.batch(torch.arange(len(data))).x
    with torch.no_grad():
        again = run.model.decode_codes(run.model.codes(x))
    assert torch.allclose(((again + 1) / 2).sum(1), torch.ones(1), atol=1e-4)  # probabilities at each place
    assert (again.argmax(1) == x.argmax(1)).float().mean() > 0.9
    assert oneprior(["sample", str(place / "run"), "--n", "5", "--out", str(tmp_path / "drawn.smi")]) == 0
    assert len((tmp_path / "drawn.smi").read_text().splitlines()) == 5


def test_no_molecule_is_asked_for_twice_and_scores_see_smiles(place, tmp_path):
    run, data = load(place / "run"), open_dataset(place / "all.smi")
    settings = Settings(trees=Trees(most=40, least=5), retrain_every=0, unlikely=None)
    campaign = Campaign.begin(tmp_path / "oxygen", run, data, settings)
    with Evaluator(oxygens) as evaluate:
        list(score_data(campaign, evaluate, range(0, 512, 2)))
        list(optimise(campaign, evaluate, budget=6, batch=3))
    made = [torch.from_numpy(entry.event)[None] for entry in campaign.told()]
    known = set(identities(run, data.batch(torch.arange(len(data))).x))
    found = identities(run, torch.cat(made))
    assert len(set(found)) == 6
    assert not known & set(found)
    assert presented(run, made[0]) == [found[0].decode()]
    assert campaign.told()[0].score == oxygens(found[0].decode())
    assert set(torch.cat(made).unique().tolist()) == {-1.0, 1.0}


def test_the_same_command_serves_molecules(place, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", str(place))
    words = ["optimise", str(place / "run"), "--score", "scoring:oxygens", "--initial", "200", "--leaf", "5"]
    words += ["--trees", "30", "--budget", "3", "--batch", "3", "--retrain-every", "2", "--out", str(tmp_path / "out")]
    assert oneprior(words) == 0
    assert json.loads((tmp_path / "out/result.json").read_text())["figures"]["told"] == 3
    best = sorted((tmp_path / "out/best").glob("*.smi"))
    assert len(best) == 3
    assert (tmp_path / "out/best.png").exists() or len(best) == 3
    assert "<img" in (tmp_path / "out/report.html").read_text()


def test_a_molecule_of_no_atom_is_passed_over(place, tmp_path, monkeypatch):
    campaign = Campaign.begin(tmp_path / "empty", load(place / "run"), open_dataset(place / "all.smi"))
    latents, nothing = campaign.latents, -torch.ones(1, *campaign.data.event_shape)
    nothing[:, 0] = 1.0  # the end, at once
    points = latents.encode(campaign.data.batch(torch.arange(512)).x)
    known = Known(points[:20], np.zeros(20), Goal(), points[:20], points[:20], taken=campaign._taken([]))
    now = _Round(latents, known, Settings(unlikely=None), latents.space, points[:20])
    decode, empty = latents.decode, np.full(latents.numbers, latents.law.vocabulary - 1.0)
    seen = {point.tobytes() for point in (*points[:20], empty)}
    drawn = np.random.default_rng(0).integers(0, latents.law.vocabulary, (200, latents.numbers)).astype(float)
    new = [point for point in drawn if point.tobytes() not in seen]
    other = next(point for point in new if identities(campaign.run, decode(point[None]))[0] not in known.taken)
    monkeypatch.setattr(latents, "decode", lambda x: nothing if (x == empty).all() else decode(x))
    for point in (empty, other):
        now.take(Best(point, 1.0, 1.0, 1.0, "optimal", 0.0, (), 0), point, 0.0)
    assert [one.point.tolist() for one in now.found] == [other.tolist()]


def test_how_much_of_the_data_comes_back_is_told(place, tmp_path):
    campaign = Campaign.begin(tmp_path / "back", load(place / "run"), open_dataset(place / "all.smi"))
    kept = campaign.given_back()
    assert kept is not None
    x = campaign.data.batch(torch.linspace(0, 511, 200).round().long()).x
    made = campaign.latents.decode(campaign.latents.encode(x))
    same = [a == b for a, b in zip(identities(campaign.run, x), identities(campaign.run, made), strict=True)]
    assert kept == pytest.approx(sum(same) / 200)
    assert kept > 0.3
