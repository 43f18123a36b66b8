"""evaluate, calibrate and stress on every family."""

from collections import deque

import pytest
import torch

from matrix.families import SHAPES, TINY, Tiny
from oneprior.core import ConditionSpec, Rows
from oneprior.evaluation.specifications import suite_from
from oneprior.tasks.calibration import calibrate_iter
from oneprior.tasks.evaluation import evaluate
from oneprior.tasks.real import Real
from oneprior.training.run import Run, save

LABEL = ConditionSpec("label", "class", (), "add", 3, ("a", "b", "c"))
SUITE = suite_from({"checks": [{"check": "sharpness", "at_least": 0}, {"check": "repeat_distance", "at_most": 1e-3}]})


def built(tiny: Tiny, tmp_path, conditions=()) -> tuple[Run, Real]:
    shape = SHAPES[2]
    run = save(tiny.build(shape, conditions), tmp_path / "run")
    rows = Rows(24, seed=9)
    told = {"label": rows.integers(3)} if conditions else {}
    return run, Real(rows.uniform(*shape) * 2 - 1, told)


@pytest.mark.parametrize("tiny", [t for t in TINY if 2 in t.dimensions], ids=lambda t: t.name)
def test_every_family_is_evaluated(tiny: Tiny, tmp_path):
    conditions = (LABEL,) if tiny.conditional else ()
    run, real = built(tiny, tmp_path, conditions)
    options = {"steps": 2} if run.family == "diffusion" else {}
    found = evaluate(run, real, n=24, train=real, suite=SUITE, likelihoods=2, options=options)
    names = [row.name for row in found.rows]
    assert any(name.startswith("kernel distance (pca") for name in names)
    assert "Parzen log-likelihood" in names
    has_none = any(note.startswith("No likelihood") for note in found.notes)
    assert (found.likelihood is None) == has_none
    assert has_none == (run.family == "gan")
    assert [f.state for f in found.findings][1] != "broken"  # the same row is the same sample


@pytest.mark.parametrize("tiny", [t for t in TINY if 2 in t.dimensions], ids=lambda t: t.name)
def test_every_family_is_calibrated(tiny: Tiny, tmp_path):
    run, real = built(tiny, tmp_path)
    few = Real(real.x[:4], {})
    aim = "fast" if run.family == "diffusion" else "calibrated"
    (study,) = deque(calibrate_iter(run, few, "downsample:2", 0.3, samples=4, aim=aim), maxlen=1)
    assert study.calibration is not None
    assert study.calibration.images == 4
    assert not study.calibration.verdict.conclusive or study.calibration.verdict.flagged
    assert torch.isfinite(torch.tensor([v for v, _ in study.scores.values()])).all()
