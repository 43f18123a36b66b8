"""The zoo: entries made of runs, in half precision, with their licence, and the runs and trainings made of entries."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from digits_of_a_zoo import FACTS
from safetensors import safe_open
from sklearn.datasets import load_digits

import oneprior
from oneprior.core import BadRunError, InputError, Rows
from oneprior.data import array_dataset
from oneprior.training import load, publish, zoo
from oneprior.training.publication import difference, get, half
from oneprior.training.recipe import recipe_of, train_again, with_budget
from oneprior.training.zoo import Entry, Figure, Recipe

X = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
DIGITS = array_dataset(((X[:600] + 1) * 127.5).round().to(torch.uint8), layout="nchw")
QUIET = {"tracker": "none", "preview_every": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("runs"), {}
    oneprior.train("ppca", data=DIGITS, out=folder / "mixture", components=24, seed=4, **QUIET)
    oneprior.train("diffusion", data=DIGITS, out=folder / "diffusion", images=640, batch_size=32, **QUIET)
    first = {"images": 128, "batch_size": 32}
    oneprior.train("vae", data=DIGITS, out=folder / "first", spatial=True, width=8, downsample=2, **first, **QUIET)
    where = {"autoencoder": str(folder / "first"), "diffusion": {"width": 16}}
    oneprior.train("ldm", data=DIGITS, out=folder / "ldm", images=96, batch_size=16, **where, **QUIET)
    for name in ("mixture", "diffusion", "first", "ldm"):
        made[name] = load(folder / name)
    return made


@pytest.fixture(scope="module")
def place(runs, tmp_path_factory):
    """A zoo of three."""
    folder = tmp_path_factory.mktemp("zoo")
    shown = [Figure("PSNR", 21.5, "dB", 0.25, "zoo.json")]
    publish(runs["mixture"], "digits-mixture", FACTS, folder, figures=shown, examples=X[1500:1503], cpu_minutes=0.1)
    publish(runs["diffusion"], "digits-diffusion", FACTS, folder)
    publish(runs["ldm"], "digits-ldm", FACTS, folder, first=runs["first"].record)
    return folder


@pytest.fixture
def at_home(place, monkeypatch):
    """The same as the zoo of the package."""
    monkeypatch.setattr(zoo, "zoo_folder", lambda: place)


def test_an_entry_says_all_that_a_stranger_has_to_know(place, runs):
    known = zoo.entry("digits-mixture", place)
    assert known == Entry.read(place / "digits-mixture")
    assert known.facts == FACTS
    assert known.seed == 4
    assert str(known.figures[0]) == "21.5 ± 0.25 dB"
    assert known.cost["hardware"]["torch"] == torch.__version__
    assert 0 < known.relative_error < 1e-3
    assert [path.name for path in known.examples] == ["00.png", "01.png", "02.png"]
    card = (known.folder / "card.md").read_text()
    for words in (FACTS.credit, FACTS.source, FACTS.leaves_out, "under the same licence only", "Not for diagnosis"):
        assert words in card
    assert "license: cc-by-sa-4.0" in card
    assert "21.5 ± 0.25 dB (zoo.json)" in card
    free = replace(FACTS, licence="CC-BY-4.0")
    assert not free.share_alike


def test_the_list_is_by_name_and_hidden_folders_are_none(place):
    (place / ".digits-new.partial").mkdir(exist_ok=True)
    (place / ".digits-new.partial/zoo.json").write_text("{")
    assert [one.name for one in zoo.entries(place)] == ["digits-diffusion", "digits-ldm", "digits-mixture"]


def test_weights_are_stored_in_half_precision_and_used_in_single(place, runs):
    with safe_open(place / "digits-diffusion/model.safetensors", framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys() if file.get_tensor(name).numel() >= 1024}  # noqa: SIM118
    assert kinds == {torch.float16}
    again = load(place / "digits-diffusion")
    assert {p.dtype for p in again.model.parameters()} == {torch.float32}
    assert 0 < difference(runs["diffusion"].model, again.model) < 0.01
    assert again.moments().mean.dtype == torch.float32
    assert again.guide().event_shape == again.event_shape
    size = sum(path.stat().st_size for path in (place / "digits-diffusion").rglob("*.safetensors"))
    whole = sum(path.stat().st_size for path in runs["diffusion"].path.glob("*.safetensors"))
    assert size < 0.7 * whole


def test_variances_are_not_rounded():
    tensors = {"large": torch.full((2000,), 1 / 3), "small": torch.tensor([1e-9]), "count": torch.arange(2000)}
    stored = half(tensors)
    assert [stored[name].dtype for name in tensors] == [torch.float16, torch.float32, torch.int64]
    with pytest.raises(InputError, match="65504"):
        half({"huge": torch.full((2000,), 1e6)})


def test_a_mixture_is_stored_without_its_empty_directions(place, runs):
    kept, whole = load(place / "digits-mixture").model, runs["mixture"].model
    assert kept.basis.shape[-1] == int(whole.rank.max()) < whole.basis.shape[-1]
    log_prob = [model.prior().log_prob(X[1500:]) for model in (kept, whole)]
    assert torch.allclose(*log_prob, atol=0.05)


def test_a_prior_that_half_precision_changes_is_refused(runs, tmp_path, monkeypatch):
    from oneprior.training import publication as room

    monkeypatch.setattr(room, "MOST_ERROR", 1e-6)
    with pytest.raises(InputError, match="half precision moves the draws"):
        publish(runs["diffusion"], "digits", FACTS, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("licence", ["", "unknown", "Other"])
def test_a_run_of_unknown_licence_is_refused(runs, tmp_path, licence):
    with pytest.raises(InputError, match="licence of the data"):
        publish(runs["mixture"], "digits", replace(FACTS, licence=licence), tmp_path)


def test_what_was_learned_from_share_alike_data_is_shared_alike(runs, place, tmp_path):
    mine = get("digits-mixture", tmp_path / "mine", place)
    with pytest.raises(InputError, match="publish it under CC-BY-SA-4.0, not CC0-1.0"):
        publish(mine, "free", replace(FACTS, licence="CC0-1.0"), tmp_path / "zoo")
    assert publish(mine, "alike", FACTS, tmp_path / "zoo").facts.licence == "CC-BY-SA-4.0"


def test_facts_that_are_missing_are_asked_for(runs, tmp_path):
    with pytest.raises(InputError, match="lack credit, leaves_out"):
        publish(runs["mixture"], "digits", replace(FACTS, credit="", leaves_out=""), tmp_path)
    with pytest.raises(InputError, match="no name of an entry"):
        publish(runs["mixture"], "../digits", FACTS, tmp_path)
    unfinished = replace(runs["mixture"], record=replace(runs["mixture"].record, finished=False))
    with pytest.raises(InputError, match="not finished"):
        publish(unfinished, "digits", FACTS, tmp_path)


def test_what_is_too_large_is_refused_and_leaves_nothing(runs, tmp_path, monkeypatch):
    from oneprior.training import publication as room

    publish(runs["mixture"], "one", FACTS, tmp_path)
    size = zoo.entry("one", tmp_path).megabytes
    monkeypatch.setattr(room, "MOST_IN_ALL", 1.5 * size)
    with pytest.raises(InputError, match="remove one"):
        publish(runs["mixture"], "two", FACTS, tmp_path)
    publish(runs["mixture"], "one", FACTS, tmp_path)  # in its own place it has room
    monkeypatch.setattr(room, "MOST_MEGABYTES", 0.5 * size)
    with pytest.raises(InputError, match="smaller network"):
        publish(runs["mixture"], "one", FACTS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    zoo.entry("one", tmp_path).check()


def test_nothing_of_another_machine_is_told(place):
    for name in ("digits-mixture", "digits-diffusion", "digits-ldm"):
        for path in (place / name).rglob("*"):
            if path.suffix in (".json", ".md"):
                assert "/tmp" not in path.read_text(), path
        assert not list((place / name).rglob("*.py"))
        assert not (place / name / "checkpoint").exists()


@pytest.mark.usefixtures("at_home")
def test_a_name_stands_for_a_run():
    run = oneprior.load("zoo:digits-diffusion")
    assert run.name == "zoo:digits-diffusion"
    assert load(Path("zoo:digits-mixture")).family == "ppca"
    assert load(run.path / "guide").name == str(run.path / "guide")
    x = run.prior(steps=4).sample(Rows(2, seed=0))
    assert x.dtype == torch.float32
    with pytest.raises(InputError, match=r"no 'cats'; there is digits-diffusion, digits-ldm, digits-mixture"):
        oneprior.load("zoo:cats")
    with pytest.raises(InputError, match="no '../digits-ldm'"):
        oneprior.load("zoo:../digits-ldm")


def test_get_gives_a_run_of_ones_own_to_train_on_from(place, tmp_path):
    run = get("zoo:digits-diffusion", tmp_path / "mine", place)
    with safe_open(run.path / "model.safetensors", framework="pt") as file:
        assert torch.float16 not in {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    ours, theirs = run.model.state_dict(), load(place / "digits-diffusion").model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert run.guide() is not None
    assert run.name == str(tmp_path / "mine")
    more = {"images": 32, "batch_size": 16, **QUIET}
    on = oneprior.train("diffusion", data=DIGITS, out=tmp_path / "on", start_from=run.path, **more)
    assert on.record.data["from_licence"] == "CC-BY-SA-4.0"
    assert "weights are under CC-BY-SA-4.0" in (on.path / "card.md").read_text()
    with pytest.raises(InputError, match="is there already and holds something"):
        get("digits-mixture", run.path, place)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/film.png").touch()
    with pytest.raises(InputError, match="holds something"):
        get("digits-mixture", tmp_path / "other", place)


def test_a_damaged_entry_is_told(place, runs, tmp_path):
    publish(runs["mixture"], "one", FACTS, tmp_path)
    file = tmp_path / "one/moments.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BadRunError, match=r"moments.safetensors is not the file that was published"):
        get("one", tmp_path / "mine", tmp_path)
    assert not (tmp_path / "mine").exists()
    file.unlink()
    with pytest.raises(BadRunError, match="is missing"):
        zoo.entry("one", tmp_path).check()
    (tmp_path / "one/zoo.json").write_text("{}")
    with pytest.raises(BadRunError, match="missing or damaged"):
        zoo.entries(tmp_path)


def test_the_recipe_is_what_a_person_would_type(place):
    recipe = zoo.entry("digits-diffusion", place).recipe
    assert recipe == Recipe("diffusion", {"batch_size": 32, "images": 640}, (8, 8), "grey")
    assert zoo.entry("digits-mixture", place).recipe.settings == {"components": 24}
    latent = zoo.entry("digits-ldm", place).recipe.settings
    assert latent["autoencoder"] == {"batch_size": 32, "images": 128}
    assert latent["vae"] == {"width": 8, "downsample": 2}
    assert latent["diffusion"]["width"] == 16
    assert latent["images"] == round(96 / 0.7)


def test_the_recipe_trains_the_same_prior_again(place, runs, tmp_path):
    for _ in train_again(zoo.entry("digits-diffusion", place), DIGITS, tmp_path / "again", **QUIET):
        pass
    again = load(tmp_path / "again")
    state = runs["diffusion"].model.state_dict()
    assert all(torch.equal(again.model.state_dict()[name], state[name]) for name in state)
    assert again.record.data["recipe"] == "zoo:digits-diffusion"
    assert again.record.data["changes"] == QUIET


def test_both_stages_of_a_latent_diffusion_are_trained_again(place, tmp_path):
    recipe, out = zoo.entry("digits-ldm", place), tmp_path / "again"
    stages = [progress.stage for progress in train_again(recipe, DIGITS, out, images=69, **QUIET)]
    assert "autoencoder" in stages
    assert load(out / "autoencoder").record.train["images"] == 64  # half the budget in both
    assert load(out).record.model["diffusion"]["width"] == 16
    assert load(out).record.data["changes"]["images"] == 69


def test_budgets_that_make_no_sense_are_refused(place):
    mixture, deep = (zoo.entry(f"digits-{kind}", place).recipe for kind in ("mixture", "diffusion"))
    with pytest.raises(InputError, match="closed form"):
        with_budget(mixture, 100, None)
    with pytest.raises(InputError, match="not in both"):
        with_budget(deep, 100, 1.0)
    assert with_budget(deep, None, 2.0) == {"images": None, "minutes": 2.0}


def test_an_import_has_no_recipe(runs):
    with pytest.raises(InputError, match="no recipe"):
        recipe_of(replace(runs["mixture"].record, train={}))


def test_the_wheel_has_the_entries_and_the_licence(tmp_path, monkeypatch):
    """The files that setuptools would pack, by our own pyproject.toml, of a tree with one entry."""
    from setuptools import Distribution

    root = Path(__file__).parents[2]
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    package = tmp_path / "src/oneprior"
    wanted = ("zoo/LICENSE.md", "zoo/a-b/zoo.json", "zoo/a-b/examples/00.png", "zoo/a-b/guide/model.safetensors")
    for name in ("__init__.py", "core/__init__.py", *wanted):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    monkeypatch.chdir(tmp_path)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files()
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    packed = {f"{package}/{file}" for package, _, _, files in build.data_files for file in files}
    for name in wanted:
        assert any(path.endswith(name) for path in packed), (name, packed)
    assert not [one for one in build.packages if one.startswith("oneprior.zoo")]
    assert "src/oneprior/zoo/LICENSE.md" in distribution.metadata.license_files


def test_the_entries_of_the_package_are_whole():
    for known in zoo.entries():
        known.check()
        assert known.folder.joinpath("zoo.json").stat().st_size
        record = json.loads((known.folder / "config.json").read_text())
        assert record["finished"]
        assert record["data"]["licence"] == known.facts.licence
        for figure in known.figures:
            assert (Path(__file__).parents[2] / figure.source).is_file()
    assert sum(one.megabytes for one in zoo.entries()) < 100
    assert all(one.megabytes < 20 for one in zoo.entries())


@pytest.mark.usefixtures("at_home")
def test_an_entry_stays_as_it_was_published():
    from oneprior.training import measure_residual

    with pytest.raises(InputError, match="stays as it was published"):
        measure_residual(load("zoo:digits-ldm"), DIGITS)
