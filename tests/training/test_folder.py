"""The run folder: what comes out is what went in, and every kind of damage is named."""

import json

import pytest
import torch
from training.toys import Toy, ToyConfig

from oneprior.core import AffineMap, BadRunError, ConditionSpec, Geometry, InputError
from oneprior.training import load, save
from oneprior.training.folder import RunRecord, read_tensors, settings_from, write_tensors


@pytest.fixture
def known(monkeypatch):
    """The toy is a family for the time of a test."""
    from oneprior.models.configs import FAMILIES

    monkeypatch.setitem(FAMILIES, "toy", (ToyConfig, "training.toys:Toy"))


@pytest.fixture
def run(tmp_path, known):
    model = Toy(ToyConfig(hidden=5, widths=(7,)), (1, 4, 4))
    return save(model, tmp_path / "run", units=AffineMap.from_range(0, 65535), geometry=Geometry("uint16"))


def test_a_run_comes_back(run):
    again = load(run.path)
    assert again.config == run.config == ToyConfig(hidden=5, widths=(7,))
    assert again.units == AffineMap.from_range(0, 65535)
    assert again.geometry == Geometry("uint16")
    assert tuple(again.event_shape) == (1, 4, 4)
    ours, theirs = run.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not again.model.training
    assert "license_name: unknown" in (run.path / "card.md").read_text()


def test_values_come_back_in_the_users_units(run):
    assert torch.equal(run.to_units(torch.tensor([-1.0, 1.0])), torch.tensor([0.0, 65535.0]))


def test_nothing_is_written_over(run):
    with pytest.raises(InputError, match="holds config.json already; give another --out, or --resume"):
        save(run.model, run.path)


def _edit(run, **changes):
    path = run.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _truncate(run):
    path = run.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def _other_weights(run):
    tensors, facts = read_tensors(run.path / "model.safetensors")
    write_tensors(run.path / "model.safetensors", {**tensors, "encoder.weight": torch.zeros(2, 2)}, facts)


def _fewer_weights(run):
    tensors, facts = read_tensors(run.path / "model.safetensors")
    tensors.pop("encoder.weight")
    write_tensors(run.path / "model.safetensors", tensors, facts)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run.path / "config.json").unlink(), "has no config.json, so it is no run"),
        (lambda run: (run.path / "config.json").write_text('{"oneprior": '), "config.json is damaged"),
        (lambda run: (run.path / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json is damaged"),
        (lambda run: (run.path / "config.json").write_text('{"_class_name": "UNet"}'), "not written by OnePrior"),
        (lambda run: _edit(run, format=99), "has format 99 .* upgrade"),
        (lambda run: _edit(run, family="nerf"), "of family 'nerf'"),
        (lambda run: _edit(run, event_shape=None), "config.json is damaged"),
        (lambda run: _edit(run, model={"hidden": 5, "depth": 3}), "ToyConfig knows no depth"),
        (lambda run: (run.path / "model.safetensors").unlink(), "model.safetensors is missing"),
        (_truncate, r"model.safetensors \(\d+ bytes\) is truncated"),
        (lambda run: (run.path / "model.safetensors").write_bytes(b""), "is truncated or no safetensors"),
        (lambda run: (run.path / "model.safetensors").write_bytes(b"\x80\x04pickle" * 9), "is truncated or no safe"),
        (_other_weights, r"encoder.weight has shape \(2, 2\), and the model needs \(5, 16\)"),
        (_fewer_weights, "lacks encoder.weight"),
    ],
)
def test_damage_is_named(run, damage, said):
    damage(run)
    with pytest.raises(BadRunError, match=said):
        load(run.path)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(BadRunError, match="is no folder"):
        load(tmp_path / "nowhere")


def test_a_record_comes_back(tmp_path, known):
    record = RunRecord(
        "toy",
        {"hidden": 3},
        (1, 8),
        (ConditionSpec("label", "class", classes=2, names=("cat", "dog")),),
        AffineMap(2.0, 1.0, "mm"),
        Geometry("int16", (1.0, 2.0), ((1.0, 0.0), (0.0, 1.0)), "nifti", 2),
        {"seed": 3},
    )
    record.write(tmp_path)
    assert RunRecord.read(tmp_path) == record


def test_nested_settings_come_back():
    from dataclasses import asdict

    from oneprior.models.configs import LDMConfig, VAEConfig

    config = LDMConfig(vae=VAEConfig(latent=3, spatial=True))
    plain = json.loads(json.dumps(asdict(config)))
    assert settings_from(LDMConfig, plain, "here") == config


def test_tied_weights_are_written(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "x.safetensors", {"a": weight, "b": weight, "c": weight.T}, {"step": 1})
    tensors, facts = read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["b"], weight)
    assert torch.equal(tensors["c"], weight.T)
    assert facts == {"step": 1}


def test_conditions_by_name_number_and_tensor(tmp_path, known):
    from oneprior.training.run import Run

    heard = {}

    class Listener(Toy):
        def prior(self, condition=None, **options):
            heard.update(condition or {}, **options)

    label = ConditionSpec("label", "class", classes=2, names=("cat", "dog"))
    age = ConditionSpec("age", "vector", shape=(1,))
    model = Listener(ToyConfig(), (1, 4, 4), (label, age))
    run = Run(tmp_path, model, RunRecord("toy", {}, (1, 4, 4), (label, age)))
    run.prior({"label": "dog", "age": [0.5]}, steps=7)
    assert heard["label"].tolist() == [1]
    assert heard["age"].tolist() == [[0.5]]
    assert heard["steps"] == 7
    run.prior({"label": [0, "dog"]})
    assert heard["label"].tolist() == [0, 1]
    with pytest.raises(InputError, match=r"label is a class 0 .. 1 \(cat, dog\); got 'cow'"):
        run.prior({"label": "cow"})
    with pytest.raises(InputError, match="knows no condition mask; it has label, age"):
        run.prior({"mask": 1})
