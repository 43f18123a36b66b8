"""The latent space of a GAN in which a posterior is asked, and the law that is believed around its pictures there."""

from typing import Literal

import pytest
import torch

from oneprior.core import IncompatiblePrior, InputError, Rows
from oneprior.inference import EllipticalSlice
from oneprior.models.configs.gan import GANConfig
from oneprior.models.configs.ppca import PPCAConfig
from oneprior.models.gan import GAN
from oneprior.models.ppca import PPCA
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.pushforward import Pushforward
from oneprior.priors.residual import Residual, ResidualPrior
from oneprior.priors.styles import Space, StyleNormal
from oneprior.tasks import restore, simulate
from oneprior.tasks.calibration import calibrate_iter
from oneprior.tasks.real import Real
from oneprior.training.order import seeded
from oneprior.training.residual import residual_space, write_residual
from oneprior.training.run import Run, save

SHAPE = (1, 8, 8)
QUICK = EllipticalSlice(warmup=3, thin=1)


def gan(folder, network: Literal["stylegan2", "conv"] = "stylegan2") -> Run:
    with seeded(3, "space"):
        model = GAN(GANConfig(network=network, latent=6, width=4, mapping_layers=2), SHAPE)
    return save(model, folder)


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    return gan(tmp_path_factory.mktemp("runs") / "style")


def seen(run: Run, n=2, space: Space = "z"):
    x = run.prior(space=space).sample(Rows(n, seed=1))
    return simulate(x, "downsample:2", 0.05, Rows(n, seed=2))


def believed(deviation: float) -> Residual:
    law = LowRankGaussian.fit([Rows(40, seed=1).normal(*SHAPE)], 0)
    return Residual(law, torch.full(SHAPE, deviation))


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_the_posterior_is_asked_in_the_space_that_is_named(style, space):
    found = restore(style, seen(style), samples=3, method=QUICK, space=space)
    assert found.diagnostics["space"] == space
    same = restore(style.prior(space=space), seen(style), samples=3, method=QUICK)
    assert torch.allclose(found.draws, same.draws, atol=1e-4)


def test_a_wider_space_fits_pictures_of_its_own_better(style):
    """What a w for each layer makes is not in the reach of one w for all, nor of z."""
    given = seen(style, space="w+")
    fit = {space: restore(style, given, samples=1, method="map", space=space) for space in ("z", "w", "w+")}
    misfit = {space: float(found.diagnostics["misfit"].mean()) for space, found in fit.items()}
    assert misfit["w+"] < 0.8 * misfit["w"]
    assert misfit["w+"] < 0.8 * misfit["z"]


def test_truncation_draws_the_pictures_towards_one(style):
    far = restore(style, seen(style), samples=8, method="resampling", space="w")
    near = restore(style, seen(style), samples=8, method="resampling", space="w", truncation=0.1)
    assert near.diagnostics["truncation"] == "0.1"
    assert float((near.mean[0] - near.mean[1]).norm()) < 0.3 * float((far.mean[0] - far.mean[1]).norm())


@pytest.mark.parametrize(("method", "space"), [("brgm-pytorch", None), ("brgm", "w"), (None, None)])
def test_brgm_works_on_w_plus_and_ours_on_z_where_nothing_else_is_said(style, method, space):
    from oneprior.inference.noise.brgm import BRGM

    chosen = {"brgm-pytorch": BRGM("pytorch", steps=3), "brgm": BRGM(steps=3)}.get(method or "", QUICK)
    found = restore(style, seen(style), samples=2, method=chosen, space=space)
    assert found.diagnostics["space"] == (space or ("w+" if method else "z"))
    if method:
        assert found.diagnostics["perceptual"] == "none"


def test_brgm_says_that_a_gan_without_styles_has_only_z(tmp_path):
    from oneprior.inference.noise.brgm import BRGM

    run = gan(tmp_path / "conv", network="conv")
    assert restore(run, seen(run), samples=1, method=BRGM(steps=2)).diagnostics["space"] == "z"


def test_the_residual_is_the_one_that_was_measured_in_the_space(tmp_path):
    run = gan(tmp_path / "style")
    write_residual(run.path, believed(0.5))
    assert [residual_space(run.path, space) for space in (None, "w", "w+")] == [None, None, None]
    said = restore(run, seen(run), samples=1, method=QUICK, space="w+").diagnostics["residual"]
    assert "measured in z" in said
    write_residual(run.path, believed(0.1), "w+")
    known: dict[Space, float] = {"z": 0.5, "w": 0.5, "w+": 0.1}
    for space, deviation in known.items():
        prior = run.whole_prior(space=space)
        assert isinstance(prior, ResidualPrior)
        assert isinstance(prior.base, Pushforward)
        assert isinstance(prior.base.base, StyleNormal) == (space != "z")
        assert float(prior.residual.scale.mean()) == pytest.approx(deviation)
    assert "residual" not in restore(run, seen(run), samples=1, method=QUICK, space="w+").diagnostics


def test_w_is_asked_by_default_where_its_residual_was_measured(tmp_path):
    run = gan(tmp_path / "style")
    write_residual(run.path, believed(0.5))
    assert restore(run, seen(run), samples=1, method=QUICK).diagnostics["space"] == "z"
    write_residual(run.path, believed(0.1), "w")
    found = restore(run, seen(run), samples=1, method=QUICK)
    assert found.diagnostics["space"] == "w"
    assert "residual" not in found.diagnostics
    assert restore(run, seen(run), samples=1, method=QUICK, residual=False).diagnostics["space"] == "z"


def test_what_has_no_such_space_says_so(style, tmp_path):
    conv = gan(tmp_path / "conv", network="conv")
    ppca = save(PPCA(PPCAConfig(rank=2), SHAPE), tmp_path / "ppca")
    with pytest.raises(IncompatiblePrior, match=r"space w\+ needs a GAN with a mapping network"):
        restore(conv, seen(conv), samples=1, space="w+")
    y = torch.zeros(1, 1, 4, 4)
    with pytest.raises(IncompatiblePrior, match="a ppca has no space to choose"):
        restore(ppca, y, "downsample:2", 0.1, samples=1, space="z")
    with pytest.raises(IncompatiblePrior, match="a ppca has no truncation to choose"):
        restore(ppca, y, "downsample:2", 0.1, samples=1, truncation=0.5)
    with pytest.raises(InputError, match=r"run.prior\(space=...\)"):
        restore(style.prior(), y, "downsample:2", 0.1, samples=1, space="w")
    with pytest.raises(InputError, match="space is z, w or w"):
        restore(style, y, "downsample:2", 0.1, samples=1, space="v")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="truncation is above 0"):
        restore(style, y, "downsample:2", 0.1, samples=1, truncation=0.0)


def test_a_calibration_asks_in_the_space_too(style):
    x = style.prior(space="w").sample(Rows(3, seed=5)).clamp(-1, 1)
    states = calibrate_iter(style, Real(x, {}), "downsample:2", 0.1, samples=4, method=QUICK, space="w")
    study = next(iter(states))
    assert study.restoration.diagnostics["space"] == "w"
