"""A network file of another program as a run: kept, loaded, sampled from, restored with, trained further."""

import hashlib
import json

import numpy as np
import pytest
import torch
from network_files import official, snapshot, write
from PIL import Image

from oneprior.apps.main import run as command
from oneprior.core import ConditionSpec, InputError, Rows
from oneprior.nets.style_generator import StyleGenerator
from oneprior.tasks import restore
from oneprior.training import import_run, load

LABELS = (ConditionSpec("label", "class", classes=3),)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A network of 8 x 8 pictures of three labels, z of 3 and w of 4 numbers."""
    torch.manual_seed(0)
    sizes = {"latent": 3, "style": 4, "width": 4, "max_width": 4, "mapping_layers": 2}
    generator = StyleGenerator((1, 8, 8), LABELS, **sizes)
    return write(tmp_path_factory.mktemp("files") / "films.pkl", snapshot(official(generator)))


@pytest.fixture(scope="module")
def imported(file, tmp_path_factory):
    return import_run(file, tmp_path_factory.mktemp("runs") / "films", licence="CC BY 4.0")


def test_a_run_says_where_it_came_from(file, imported):
    card = (imported.path / "card.md").read_text()
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert "imported from films.pkl (its network G_ema)" in card
    assert "**Licence**: CC BY 4.0. It is that of films.pkl" in card
    assert imported.units.range == (0.0, 255.0)
    assert imported.record.geometry.dtype == "uint8"


def test_a_run_is_the_same_when_it_is_loaded_or_made_again(file, imported, tmp_path):
    torch.manual_seed(5)
    again = import_run(file, tmp_path / "again").model.state_dict()
    for other in (load(imported.path).model.state_dict(), again):
        assert all(torch.equal(value, other[name]) for name, value in imported.model.state_dict().items())


def test_a_run_is_never_written_over(file, imported):
    with pytest.raises(InputError, match="holds config.json already"):
        import_run(file, imported.path)


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_every_space_restores(imported, space):
    prior = imported.prior({"label": [1]}, space=space)
    y = prior.sample(Rows(1)).reshape(1, 1, 4, 2, 4, 2).mean((3, 5))
    found = restore(prior, y, "downsample:2", 0.1, samples=2, method="elliptical-slice")
    assert found.draws.shape == (2, 1, 1, 8, 8)
    assert bool(torch.isfinite(found.draws).all())


def test_the_command_line_imports_samples_informs_and_restores(file, tmp_path, capsys):
    out = tmp_path / "run"
    assert command(["import", str(file), "--out", str(out)]) == 0
    assert "1 x 8 x 8 pictures of 3 labels" in capsys.readouterr().out
    assert command(["sample", str(out), "--n", "4", "--condition", "label=2", "--out", str(tmp_path / "s.npz")]) == 0
    x = np.load(tmp_path / "s.npz")["x"]
    assert (x.shape, x.dtype) == ((4, 1, 8, 8), np.uint8)
    capsys.readouterr()
    assert command(["info", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["imported_from"] == "films.pkl"
    Image.fromarray(x[0, 0]).save(tmp_path / "y.png")
    words = ["--input", str(tmp_path / "y.png"), "--operator", "mask:left", "--noise", "20", "--samples", "2"]
    words += ["--method", "elliptical-slice", "--out", str(tmp_path / "restored")]
    assert command(["restore", str(out), *words]) == 0
    assert (tmp_path / "restored" / "mean.png").exists()


def test_the_command_line_refuses_in_one_line(file, tmp_path, capsys):
    bad = tmp_path / "bad.pkl"
    marker = tmp_path / "marker"
    bad.write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    assert command(["import", str(bad), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "os.system" in said
    assert "nothing in the file was executed" in said
    assert said.count("\n") == 1
    assert not marker.exists()
    assert not (tmp_path / "run").exists()
    assert command(["import", str(file), "--out", str(tmp_path / "run"), "--size", "8"]) == 2
    assert "leave it out" in capsys.readouterr().err
    assert command(["import", str(tmp_path / "no.pkl"), "--out", str(tmp_path / "run")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_training_goes_on_from_it_with_a_fresh_critic(imported, tmp_path, capsys):
    pictures = tmp_path / "data.npz"
    np.savez(pictures, x=Rows(12).uniform(8, 8).mul(255).byte().numpy(), labels=np.arange(12) % 3)
    words = ["train", "gan", "--data", str(pictures), "--images", "8", "--batch-size", "4", "--tracker", "none"]
    assert command([*words, "--out", str(tmp_path / "more"), "--from", str(imported.path)]) == 0
    assert load(tmp_path / "more").config == imported.config
    assert command([*words, "--out", str(imported.path), "--resume"]) == 2
    assert "start a new run --from it" in capsys.readouterr().err
