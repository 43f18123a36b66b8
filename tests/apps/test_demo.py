"""The demonstration at a hundredth of its size: all its parts, none of its figures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.apps import demo, demo_zoo
from oneprior.apps.main import run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "budget", lambda data: demo.Budget(1280, 1280, 4, "fast"))
        assert run(["demo", "--out", str(out)]) == 0
    return out


def test_it_leaves_runs_pictures_a_page_and_a_record(made):
    assert {p.name for p in (made / "runs").iterdir()} == {"ppca", "mixture", "vae", "diffusion"}
    names = {p.name for p in (made / "pictures").iterdir()}
    assert {"samples.png", "samples_vae.png", "restored_half.png", "restored_coarse.png", "restored_noisy.png"} <= names
    page = (made / "report.html").read_text(encoding="utf-8")
    assert "http" not in page
    assert page.count("<img") > 30
    assert "oneprior train diffusion --data photos/" in page
    figures = json.loads((made / "result.json").read_text())["figures"]
    assert figures["learned_from"] == 1797 - 4
    assert set(figures["gain_over_ppca_db"]) == {"half", "coarse", "noisy"}
    assert all(error > 0 for error in figures["gain_over_ppca_error_db"].values())
    assert len(figures["scores"]) == 3 * 5
    for score in figures["scores"].values():
        assert 5 < score["psnr_draw"] < score["psnr_mean"] < 30
        assert 0.3 < score["coverage"] <= 1
    assert figures["scores"]["half/ppca"]["exact"] is True


def test_another_budget_does_not_overwrite_what_is_trained(made, capsys):
    before = {path: path.read_bytes() for path in (made / "runs").glob("*/model.safetensors")}
    assert run(["demo", "--out", str(made), "--vae-images", "640", "--held-out", "4"]) == 2
    assert "images is 640, and was 1280" in capsys.readouterr().err
    assert len(before) == 4
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_digits_have_no_labels_and_their_own_units():
    data = demo.open_images(None, None)
    assert (len(data), tuple(data.event_shape), data.conditions) == (1797, (1, 8, 8), ())
    assert data.units.range == (0, 16)
    x = data.batch(torch.arange(50)).x
    assert (x.min(), x.max()) == (-1, 1)


def test_any_folder_will_do(tmp_path):
    for k in range(12):
        pixels = np.full((20, 20, 3), 20 * k, np.uint8)
        (tmp_path / f"{k % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"{k % 2}" / f"{k}.png")
    data = demo.open_images(tmp_path, "6")
    assert (len(data), tuple(data.event_shape), data.conditions) == (12, (3, 6, 6), ())
    learned, held_out = demo.parted(data, 100)
    assert len(held_out) in (2, 3)
    assert len(learned) + len(held_out) == 12


def test_larger_images_get_smaller_budgets():
    small, large = demo.open_images(None, None), demo.open_images(None, None)
    large.event_shape = torch.Size((3, 32, 32))
    assert demo.budget(small).diffusion_images > demo.budget(large).diffusion_images
    with demo.threads_for(small):
        assert torch.get_num_threads() == 1


def test_noise_is_on_the_scale_of_the_model():
    data = demo.open_images(None, None)
    problem = demo.Problem("x", "x", "identity", 0.5)
    measurement = demo.damaged(problem, data, 0)
    assert measurement.noise_level == pytest.approx(0.5 * 8)
    noise = (measurement.y - measurement.truth) / 8
    assert float(noise.std()) == pytest.approx(0.5, rel=4 / np.sqrt(2 * noise.numel()))


def test_a_perfect_restoration_scores_so():
    from oneprior.tasks import Restoration

    data = demo.open_images(None, None)
    measurement = demo.damaged(demo.PROBLEMS[0], demo.parted(data, 10)[1], 0)
    truth = measurement.truth
    assert truth is not None
    draws = truth + 0.08 * torch.linspace(-1, 1, 19).reshape(-1, 1, 1, 1, 1)
    result = Restoration(draws, truth, draws.std(0), measurement, "oracle", True)
    score = demo.score(result, demo.active(data))
    assert score.psnr_mean > 100
    assert score.psnr_draw == pytest.approx(10 * np.log10(4 / 0.01**2), abs=1e-3)
    assert score.coverage == score.coverage_active == 1


def test_priors_of_the_zoo_are_shown_on_events_that_they_have_not_seen(made):
    entries = demo_zoo.chosen()
    assert len({entry.facts.domain for entry in entries}) == len(entries) > 0
    page = (made / "report.html").read_text(encoding="utf-8")
    figures = json.loads((made / "result.json").read_text())["figures"]["zoo"]
    for entry in entries:
        assert f"zoo:{entry.name}" in page
        assert entry.facts.licence in page
        assert (made / f"pictures/zoo_{entry.facts.domain}.png").is_file()
        assert 18 < figures[entry.name]["psnr_mean"] < 40


def test_without_a_zoo_the_page_is_silent_about_it(tmp_path):
    assert demo_zoo.chosen(tmp_path) == []
    assert demo_zoo.sections([]) == []
