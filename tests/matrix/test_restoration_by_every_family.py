"""restore with every family, under every kind of evidence: draws, or a clear word why not; never a traceback."""

import pytest
import torch

from matrix.families import SHAPES, TINY, Tiny
from oneprior.core import IncompatiblePrior, Rows
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.residual import Residual
from oneprior.tasks import restore, simulate
from oneprior.training.residual import write_residual
from oneprior.training.run import Run, save

EVIDENCE = [
    ("downsample:2", "10%"),
    ("mask:left", "0"),
    ("mri:random:2:coils=2", "5%"),
    ("mask:random:0.5 + downsample:2", "10%"),
    ("saturation:20%..80%:range=-1..1", "10%"),
    ("phase:2", "10%"),
    ("jpeg:30:range=-1..1", "2%"),
    ("downsample:2", "poisson:200"),
    ("identity", "rician:5%"),
    ("downsample:2", "laplace:5%"),
    ("downsample:2", "outliers:5%:share=0.1"),
    ("downsample:2", "unknown"),
    ("unknown-blur:1:spread=30%", "10%"),
]
FEW = EVIDENCE[:1] + EVIDENCE[2:3] + EVIDENCE[7:8]
WHOLE = ("ppca", "vae-mlp", "gan-conv-none", "vqvae", "diffusion-mlp-flow")  # one of each family sees everything
REFUSED = {  # what no method serves, and is told so
    "mask:left 0": ("vae", "gan", "vqvae"),  # a constraint on a surface
    "unknown-blur:1:spread=30% 10%": ("vqvae",),  # codes and a blur together
}


def built(tiny: Tiny, tmp_path, residual: bool) -> Run:
    shape = SHAPES[2]
    run = save(tiny.build(shape), tmp_path / "run")
    if residual and run.model.surface() is not None:
        law = LowRankGaussian.fit([Rows(40, seed=1).normal(*shape)], 2)
        write_residual(run.path, Residual(law, torch.full(shape, 0.2)))
    return run


@pytest.mark.parametrize("residual", [False, True], ids=["surface", "residual"])
@pytest.mark.parametrize("tiny", [t for t in TINY if 2 in t.dimensions], ids=lambda t: t.name)
def test_every_family_under_every_evidence(tiny: Tiny, tmp_path, residual):
    run = built(tiny, tmp_path, residual)
    if residual and run.model.surface() is None:
        pytest.skip("its law covers all events")
    x = (Rows(2, seed=9).uniform(*SHAPES[2]) * 2 - 1).clamp(-1, 1)
    for words, noise in EVIDENCE if tiny.name in WHOLE and not residual else FEW:
        given = simulate(x, words, noise, Rows(2, seed=3), units=run.units)
        try:
            result = restore(run, given, samples=3, aim="fast")
        except IncompatiblePrior as error:
            if run.family not in REFUSED.get(f"{words} {noise}", ()):
                raise AssertionError(f"{words} {noise}: {error}") from error
            continue
        assert result.draws.shape == (3, 2, *SHAPES[2]), (words, noise)
        assert bool(result.draws.isfinite().all()), (words, noise)
        assert len(result.doubts) == 2
