"""The front door: from data to a run, in every family, resumed, started from, and refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.core import InputError, Rows
from oneprior.data import array_dataset, digits
from oneprior.models.configs import FAMILIES, DiffusionConfig, VAEConfig
from oneprior.training import TrainConfig, load, train, train_iter
from oneprior.training.folder import read_tensors
from oneprior.training.material import reopen_material

TINY = {
    "ppca": {"rank": 4},
    "vae": {"width": 4, "latent": 3},
    "gan": {"width": 4, "latent": 4},
    "vqvae": {
        "width": 4,
        "codes": 8,
        "latent": 2,
        "downsample": 2,
        "prior_width": 8,
        "prior_depth": 1,
        "prior_heads": 2,
    },
    "diffusion": {"width": 8},
    "ldm": {
        "vae": {"spatial": True, "width": 4, "latent": 1, "downsample": 2},
        "diffusion": {"width": 8},
    },
}
QUICK = {"images": 96, "batch_size": 16, "tracker": "none", "previews": 4, "labels": False}


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    return array_dataset(x, np.arange(60) % 3)


def weights(folder):
    return read_tensors(folder / "model.safetensors")[0]


def equal(a, b):
    a, b = weights(a), weights(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_loads_and_draws(tmp_path, data, family):
    run = train(family, data=data, out=tmp_path / "run", model=TINY[family], **QUICK)
    x = run.prior().sample(Rows(3, seed=0))
    assert x.shape == (3, 1, 8, 8)
    assert bool(torch.isfinite(x).all())
    assert torch.equal(load(run.path).prior().sample(Rows(3, seed=0)), x)
    about = json.loads((run.path / "config.json").read_text())
    assert about["finished"]
    assert about["units"] == {"scale": 127.5, "offset": 127.5, "unit": about["units"]["unit"]}
    assert about["data"]["trained_on"] + about["data"]["held_out"] == 60
    assert list((run.path / "previews").glob("*.png"))
    written = run.save(x, tmp_path / "x.npz")
    stored = np.load(written[0])["x"]
    assert stored.dtype == np.uint8


def test_labels_become_conditions(tmp_path, data):
    run = train("vae", data=data, out=tmp_path / "run", model=TINY["vae"], **{**QUICK, "labels": True})
    assert run.conditions[0].name == "label"
    assert run.prior({"label": 2}).sample(Rows(4)).shape == (4, 1, 8, 8)


@pytest.mark.parametrize("family", ["vae", "ldm"])
def test_a_run_that_was_cut_resumes_to_the_same_bits(tmp_path, data, family):
    settings = {**QUICK, "images": 320, "model": TINY[family], "checkpoint_every": 32}
    train(family, data=data, out=tmp_path / "whole", **settings)
    for stage in {"train", "autoencoder"} if family == "ldm" else {"train"}:
        cut, count = tmp_path / f"cut-{stage}", 0
        states = train_iter(family, data=data, out=cut, **settings)
        for state in states:
            count += state.stage == stage
            if count == 3:
                break
        states.close()
        train(family, data=data, out=cut, resume=True, **settings)
        assert equal(tmp_path / "whole", cut)


def test_progress_never_goes_back(tmp_path, data):
    states = list(train_iter("ldm", data=data, out=tmp_path / "run", model=TINY["ldm"], **QUICK))
    fractions, seconds = [s.fraction for s in states], [s.seconds for s in states]
    assert fractions == sorted(fractions)
    assert seconds == sorted(seconds)
    assert fractions[-1] == 1.0
    stages = [s.stage for s in states]
    assert list(dict.fromkeys(stages)) == ["autoencoder", "encoding", "train"]
    assert [s.finished for s in states].count(True) == 1


def test_latents_are_encoded_once_and_are_the_models_own(tmp_path, data):
    run = train("ldm", data=data, out=tmp_path / "run", model=TINY["ldm"], **{**QUICK, "held_out": 0.0})
    stored = torch.from_numpy(np.load(run.path / "latents" / "training" / "x.npy"))
    assert torch.allclose(stored, run.model.latents(data.batch(torch.arange(60)).x), atol=1e-5)
    assert torch.allclose(stored.mean((0, 2, 3)), torch.zeros(1), atol=1e-4)
    assert torch.allclose(stored.std((0, 2, 3)), torch.ones(1), atol=1e-2)


def test_an_autoencoder_is_used_again(tmp_path, data):
    first = train("vae", data=data, out=tmp_path / "first", model=TINY["ldm"]["vae"], **QUICK)
    model = {"diffusion": {"width": 8}}
    run = train("ldm", data=data, out=tmp_path / "second", model=model, autoencoder=first.path, **QUICK)
    ours, theirs = weights(run.path), weights(first.path)
    assert torch.equal(
        ours["autoencoder.decoder." + next(iter_names(theirs))], theirs["decoder." + next(iter_names(theirs))]
    )
    assert run.record.result["images"] == 96
    other = train("diffusion", data=data, out=tmp_path / "other", **TINY["diffusion"], **QUICK)
    with pytest.raises(InputError, match="is a diffusion; latent diffusion stands on a vae"):
        train("ldm", data=data, out=tmp_path / "third", autoencoder=other.path, **QUICK)


def iter_names(state):
    return (name.removeprefix("decoder.") for name in state if name.startswith("decoder."))


def test_starting_from_a_run(tmp_path, data):
    settings = {**QUICK, **TINY["vae"]}
    first = train("vae", data=data, out=tmp_path / "first", **settings)
    second = train(
        "vae", data=data, out=tmp_path / "second", start_from=first.path, **{**QUICK, "learning_rate": 1e-12}
    )
    ours, theirs = weights(second.path), weights(first.path)
    assert max(float((ours[k] - theirs[k]).abs().max()) for k in ours) < 1e-6
    assert second.config == first.config
    assert second.record.data["from"] == str(first.path)
    with pytest.raises(InputError, match="is of family vae, and diffusion was asked for"):
        train("diffusion", data=data, out=tmp_path / "third", start_from=first.path, **QUICK)
    with pytest.raises(InputError, match="cannot be started from: its .* does not fit"):
        train("vae", data=data, out=tmp_path / "third", start_from=first.path, **{**settings, "width": 6})
    small = array_dataset(np.zeros((20, 1, 4, 4), np.uint8) + np.arange(16, dtype=np.uint8).reshape(4, 4))
    with pytest.raises(InputError, match=r"got shape \(1, 8, 8\), needed \(1, 4, 4\)"):
        train("vae", data=small, out=tmp_path / "third", start_from=first.path, **QUICK)
    assert not (tmp_path / "third").exists()


def test_a_folder_of_files_split_reopened_and_skipped(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / f"p{number // 2}_{number}.png")
    (tmp_path / "p9_broken.png").write_bytes(b"\x89PNG\r\n")
    out = tmp_path.with_name(tmp_path.name + "-run")
    with pytest.raises(InputError, match="broken"):
        train("ppca", data=tmp_path, out=out, rank=2, tracker="none", cache=False)
    run = train(
        "ppca", data=tmp_path, out=out, rank=2, tracker="none", held_out=0.3, subject=r"p\d+", skip_bad=True,
        cache=False,
    )  # fmt: skip
    assert "broken" in (out / "skipped.txt").read_text()
    material = reopen_material(run.record.data)
    sides = [
        {name.split("/")[-1].split("_")[0] for name in part.names} for part in (material.training, material.held_out)
    ]
    assert not sides[0] & sides[1]
    assert len(material.training) == run.record.data["trained_on"]
    (tmp_path / "p0_0.png").unlink()
    with pytest.raises(InputError, match="holds 11 events now, and held 12"):
        reopen_material(run.record.data)


def test_what_was_started_otherwise_is_not_resumed(tmp_path, data):
    settings = {**QUICK, **TINY["vae"]}
    states = train_iter("vae", data=data, out=tmp_path / "run", **settings)
    next(states)
    states.close()
    with pytest.raises(InputError, match="holds config.json already; give another --out, or --resume"):
        train("vae", data=data, out=tmp_path / "run", **settings)
    with pytest.raises(InputError, match="batch_size is 32, and was 16; latent is 5, and was 3"):
        train("vae", data=data, out=tmp_path / "run", resume=True, **{**settings, "latent": 5, "batch_size": 32})
    with pytest.raises(InputError, match="data n is 1797, and was 60"):
        train("vae", data=digits(), out=tmp_path / "run", resume=True, **settings)
    with pytest.raises(InputError, match="is of family vae, and gan was asked for"):
        train("gan", data=data, out=tmp_path / "run", resume=True)
    run = train("vae", data=data, out=tmp_path / "run", resume=True, labels=False)  # the settings are those of the run
    assert run.record.result["images"] == 96
    (again,) = train_iter("vae", data=data, out=tmp_path / "run", resume=True, labels=False)
    assert again.finished
    assert again.images == 96


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("vea", {}, "family 'vea' is unknown; it is one of ppca, vae"),
        ("vae", {"lerning_rate": 1.0}, "vae has no setting 'lerning_rate'; did you mean 'learning_rate'"),
        ("vae", {"model": {"latnet": 3}}, "VAEConfig has no setting 'latnet'; did you mean 'latent'"),
        ("vae", {"model": DiffusionConfig()}, "settings of vae are a VAEConfig, got a DiffusionConfig"),
        ("vae", {"data_options": {"sizes": 3}}, "there is no 'sizes'; did you mean 'size'"),
        ("vae", {"autoencoder": "runs/x"}, "only ldm stands on one"),
        ("vae", {"images": 5, "minutes": 1}, "not in both"),
        ("vae", {"tracker": "chalk", "images": 16}, "tracker 'chalk' is unknown; give none or one of"),
    ],
)
def test_mistakes_are_named(tmp_path, data, family, settings, said):
    with pytest.raises(InputError, match=said):
        train(family, data=data, out=tmp_path / "run", **settings)


def test_settings_as_objects_are_the_same_as_by_name(tmp_path, data):
    train("vae", data=data, out=tmp_path / "a", **QUICK, **TINY["vae"])
    config = TrainConfig(**{k: v for k, v in QUICK.items() if k != "labels"})
    model = VAEConfig(**TINY["vae"])
    train("vae", data=data, out=tmp_path / "b", config=config, model=model, data_options={"labels": False})
    assert equal(tmp_path / "a", tmp_path / "b")
    assert load(tmp_path / "b").config == dataclasses.replace(model)


def test_tensorboard_is_written(tmp_path, data):
    run = train("vae", data=data, out=tmp_path / "run", **{**QUICK, "tracker": "tensorboard"}, **TINY["vae"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert "reconstruction" in events.Tags()["scalars"]
    assert events.Tags()["images"]


def test_an_unfinished_run_loads_from_its_checkpoint(tmp_path, data):
    states = train_iter("vae", data=data, out=tmp_path / "run", **QUICK, **TINY["vae"])
    for _ in range(3):
        next(states)
    states.close()
    run = load(tmp_path / "run")
    assert not run.record.finished
    assert run.prior().sample(Rows(2)).shape == (2, 1, 8, 8)
