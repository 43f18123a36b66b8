"""The mixture that a finished denoiser keeps for its restorations."""

import shutil

import pytest
import torch
from sklearn.datasets import load_digits

import oneprior
from oneprior.core import AffineMap, InputError, Rows
from oneprior.data import array_dataset
from oneprior.priors.diffusion.blended import Blended
from oneprior.priors.diffusion.prior import DiffusionPrior
from oneprior.priors.mixture import GaussianMixturePrior
from oneprior.tasks import restore, simulate
from oneprior.training import load
from oneprior.training.guide import fit_guide, refit_blend
from oneprior.training.run import BLEND

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


def test_inference_believes_in_the_blend_and_samples_are_the_networks_own(run):
    whole = run.whole_prior()
    assert isinstance(whole, Blended)
    assert type(run.prior()) is DiffusionPrior
    assert bool(((whole.weights >= 0) & (whole.weights <= 1)).all())
    # after 640 pictures of training the mixture is better nearly everywhere
    assert float(whole.weights[-4:].max()) < 0.5
    given = simulate(X[1500:1504], "mask:left", 0.1, Rows(4, seed=1), units=AffineMap())
    by_run = restore(run, given, samples=2, aim="fast", seed=3)
    by_prior = restore(whole, given, samples=2, aim="fast", guide=run.guide(), seed=3, units=run.units)
    assert torch.allclose(by_run.draws, by_prior.draws, atol=1e-5)
    assert by_run.network_calls == by_prior.network_calls > 0
    assert float((by_run.mean - X[1500:1504]).square().mean()) < float(
        (restore(run.prior(), given, samples=2, aim="fast", guide=run.guide(), seed=3).mean - X[1500:1504])
        .square()
        .mean()
    )


def test_the_blend_is_fitted_anew_for_a_run_of_before(run, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(run.path, folder)
    kept = (folder / BLEND).read_bytes()
    (folder / BLEND).unlink()
    old = load(folder)
    assert type(old.whole_prior()) is DiffusionPrior
    refit_blend(old, array_dataset(X[1500:]))
    assert isinstance(load(folder).whole_prior(), Blended)
    assert isinstance(old.whole_prior(), Blended)  # also where the run was open before
    assert (folder / BLEND).read_bytes() != kept  # other events
    shutil.rmtree(folder / "guide")
    with pytest.raises(InputError, match="no guide to blend with"):
        refit_blend(load(folder), array_dataset(X[1500:]))


def test_a_bound_condition_is_left_to_the_network(tmp_path):
    labels = torch.from_numpy(load_digits().target)[:600]
    data = array_dataset(X[:600], labels)
    oneprior.train("diffusion", data=data, out=tmp_path / "run", images=64, tracker="none", preview_every=0)
    labelled = load(tmp_path / "run")
    assert isinstance(labelled.whole_prior(), Blended)
    assert type(labelled.whole_prior({"label": [3]})) is DiffusionPrior


def test_a_codec_alone_ends_its_training_without_a_prior(tmp_path):
    tiny = {"codes": 8, "latent": 4, "width": 8, "prior_start": 1.0}
    quiet = {"preview_every": 0, "tracker": "none"}
    run = oneprior.train("vqvae", data=array_dataset(X), out=tmp_path / "codec", images=512, **tiny, **quiet)
    assert not (run.path / "guide").exists()
    with pytest.raises(InputError, match="codec alone"):
        run.prior()
