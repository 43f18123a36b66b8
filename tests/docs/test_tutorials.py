"""The tutorials are executed, block by block, in order, in an empty folder; their tables are as the code is."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from oneprior.core import Rows
from oneprior.inference import bayes
from oneprior.likelihoods import GaussianLikelihood, LaplaceLikelihood
from oneprior.operators.grammar import parse_operator
from oneprior.priors.base import NoisePrior
from oneprior.priors.diffusion.foreign import ForeignDenoiser
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.tasks.methods import choose

DOCS = Path(__file__).parents[2] / "docs"


def _load():
    spec = importlib.util.spec_from_file_location("docs_make", DOCS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tutorial")


@pytest.mark.parametrize("page", make.PAGES)
def test_every_block_of_a_page_runs(page: str, folder: Path, monkeypatch):
    """Shell blocks in a shell; the Python of a page in one namespace, as a reader would type it."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend("")
    assert make.blocks(page)
    make.run_page(page)


def test_the_tables_of_a_page_are_as_the_code_is():
    pages = {name: (DOCS / name).read_text() for name in make.WITH_TABLES}
    everywhere = "".join(pages.values())
    assert all(f"<!-- {name}: made by docs/make.py -->" in everywhere for name in make.TABLES)
    for page in pages.values():
        assert make.with_tables(page) == page, "python docs/make.py tables"


def test_pictures_and_links_of_the_pages_are_there():
    for path in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


class _Curve(NoisePrior):
    noise_shape, event_shape = torch.Size((2,)), torch.Size((1, 4, 4))

    def decode(self, u):
        return torch.tanh(u @ torch.linspace(-1, 1, 32).reshape(2, 16)).reshape(-1, 1, 4, 4)


def _gaussian():
    return LowRankGaussian.fit([Rows(40).normal(1, 4, 4)], 3)


def _denoiser(moments):
    return ForeignDenoiser(lambda x, s: x / (1 + s[0] ** 2), (1, 4, 4), moments=moments)


PRIORS = {
    "Gaussian, mixture, or a denoiser made of one": _gaussian,
    "denoiser that knows its data's covariance": lambda: _denoiser(_gaussian()),
    "denoiser, for denoising, or knowing no covariance": lambda: _denoiser(None),
    "denoiser": lambda: _denoiser(_gaussian()),
    "map of Gaussian noise": _Curve,
}
EVIDENCE = {
    "linear, Gaussian noise": ("downsample:2", GaussianLikelihood),
    "behind a decoder, nonlinear, other noise": ("downsample:2", LaplaceLikelihood),
    "differentiable, Gaussian noise": ("function:torch:tanh", GaussianLikelihood),
    "differentiable, other noise": ("function:torch:tanh", LaplaceLikelihood),
    "not differentiable": ("function:torch:round:differentiable=no", GaussianLikelihood),
}


def _told(cell: str, left: str) -> tuple[str, int | None]:
    """Method and steps of a cell: "daps 30", "hmc, longer", or "40", of the method to its left."""
    name, steps = re.fullmatch(r"(.*?)(?:,? ?(?:longer|shorter)| ?(\d+))?", cell).groups()  # type: ignore[union-attr]
    return (name or left).replace(",", ""), int(steps) if steps else None


def test_the_table_of_methods_is_what_is_chosen():
    """Every cell of the rows whose prior is made in a line."""
    seen = 0
    for line in make.methods_by_aim().splitlines()[2:]:
        kind, evidence, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if kind not in PRIORS or evidence not in EVIDENCE:
            continue
        words, law = EVIDENCE[evidence]
        operator, name = parse_operator(words, (1, 4, 4)), ""
        posterior = bayes(PRIORS[kind](), law(torch.zeros(1, *operator.out_shape), operator, 0.1))
        for aim, cell in zip(("fast", "best", "calibrated"), cells, strict=True):
            name, steps = _told(cell, name)
            sampler = choose(posterior, aim)[1]
            assert sampler.name == name, (line, aim)
            assert steps is None or steps == (getattr(sampler, "steps", None) or sampler.sampler.steps), (line, aim)
            seen += 1
    assert seen >= 18
