"""The mixture that a finished denoiser keeps for its restorations."""

import pytest
import torch
from sklearn.datasets import load_digits

import oneprior
from oneprior.core import AffineMap, Rows
from oneprior.data import array_dataset
from oneprior.priors.mixture import GaussianMixturePrior
from oneprior.tasks import restore, simulate
from oneprior.training import load
from oneprior.training.guide import fit_guide

X = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guide") / "run"
    oneprior.train("diffusion", data=array_dataset(X[:600]), out=folder, images=640, tracker="none", preview_every=0)
    return load(folder)


def test_a_denoiser_keeps_a_mixture_of_its_data(run):
    law = run.guide()
    assert isinstance(law, GaussianMixturePrior)
    assert law.event_shape == run.event_shape
    held_out = X[1500:]
    single = run.moments()
    assert float(law.log_prob(held_out).mean()) > float(single.log_prob(held_out).mean())


def test_it_is_used_where_no_other_guide_is_given(run):
    given = simulate(X[1500:1504], "mask:left", 0.1, Rows(4, seed=1), units=AffineMap())
    found, told, other = (
        restore(run, given, samples=2, aim="fast", guide=guide) for guide in (None, run.guide(), run.moments())
    )
    assert torch.equal(found.draws, told.draws)
    assert not torch.allclose(found.draws, other.draws, atol=1e-3)


def test_few_events_have_no_guide_and_a_family_that_is_no_denoiser_neither(tmp_path):
    settings = {"images": 64, "tracker": "none", "preview_every": 0}
    oneprior.train("diffusion", data=array_dataset(X[:100]), out=tmp_path / "few", **settings)
    oneprior.train("vae", data=array_dataset(X[:600]), out=tmp_path / "vae", **settings)
    assert load(tmp_path / "few").guide() is None
    assert load(tmp_path / "vae").guide() is None


def test_the_guide_is_a_run_and_has_no_empty_directions(run):
    kept = load(run.path / "guide")
    assert kept.family == "ppca"
    assert int(kept.model.rank.max()) == kept.model.basis.shape[-1]


def test_the_fit_is_the_same_again():
    data = array_dataset(X[:400])
    a, b = (fit_guide(data, seed=3).prior() for _ in range(2))
    assert torch.equal(a.log_prob(X[:5]), b.log_prob(X[:5]))
