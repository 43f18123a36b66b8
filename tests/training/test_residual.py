"""The residual of a run: measured when training ends, kept with it, believed in by restoration."""

import numpy as np
import pytest
import torch

import oneprior
from oneprior.core import InputError, Rows
from oneprior.data import array_dataset
from oneprior.priors.residual import ResidualPrior
from oneprior.training import load
from oneprior.training.residual import fit_residual, measure_residual, read_residual

X = Rows(96, seed=3).normal(1, 8, 8).mul(0.3).clamp(-1, 1)


def trained(tmp_path, family, **settings):
    return oneprior.train(family, data=array_dataset(X), out=tmp_path / family, images=64, batch_size=32, **settings)


@pytest.mark.parametrize("family", ["vae", "gan", "vqvae"])
def test_a_run_keeps_what_its_decoder_cannot_say(tmp_path, family):
    settings = {"vqvae": {"prior_start": 0.5, "codes": 8}}.get(family, {})
    trained(tmp_path, family, **settings)
    run = load(tmp_path / family)
    law = read_residual(run.path, torch.device("cpu"))
    assert law is not None
    assert law.scale.shape == (1, 8, 8)
    left = float(law.covariance_diag().mean())
    assert 0.02 < left < 0.3  # of events of variance .09, which an untrained decoder hardly explains
    prior = run.whole_prior()
    assert isinstance(prior, ResidualPrior)
    assert prior.sample(Rows(3)).shape == (3, 1, 8, 8)
    assert not isinstance(run.prior(), ResidualPrior)


def test_a_gan_with_styles_keeps_one_for_each_space(tmp_path):
    trained(tmp_path, "gan", network="stylegan2", latent=8, width=4)
    run = load(tmp_path / "gan")
    assert {p.name for p in run.path.glob("residual*")} == {f"residual{s}.safetensors" for s in ("", ".w", ".w+")}
    left = {}
    for space in ("z", "w", "w+"):
        law = read_residual(run.path, torch.device("cpu"), space)
        assert law is not None
        left[space] = float(law.scale.square().mean())
    assert left["w+"] < left["z"]  # a style for each layer reaches more


def test_a_law_that_covers_all_events_has_none(tmp_path):
    trained(tmp_path, "ppca")
    run = load(tmp_path / "ppca")
    assert fit_residual(run.model, array_dataset(X)) is None
    assert type(run.whole_prior()) is type(run.prior())
    with pytest.raises(InputError, match="no residual"):
        measure_residual(run, array_dataset(X))


def test_it_is_measured_again_on_the_runs_own_data(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    oneprior.train("vae", data=tmp_path / "x.npy", out=tmp_path / "vae", images=64, batch_size=32, held_out=0.25)
    run = load(tmp_path / "vae")
    before = read_residual(run.path, torch.device("cpu"))
    measure_residual(run)
    after = read_residual(run.path, torch.device("cpu"))
    assert before is not None
    assert after is not None
    assert torch.equal(before.scale, after.scale)
    assert torch.allclose(before.law.variances, after.law.variances)


def test_it_can_be_left_out_and_measured_later(tmp_path):
    trained(tmp_path, "vae", residual=0)
    run = load(tmp_path / "vae")
    assert read_residual(run.path, torch.device("cpu")) is None
    measure_residual(run, array_dataset(X))
    assert isinstance(load(tmp_path / "vae").whole_prior(), ResidualPrior)
