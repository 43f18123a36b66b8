"""One data term over all tiles: no seams in means and draws, and measurements that reach over tiles are met.

The truth is a stationary Gaussian texture on the large event, whose exact posterior is known; the tiled methods know it
on tiles alone.
"""

import pytest
import torch

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference import DAPS, HMC, MMPS, DataCovariance, Guided, TiledCovariance, bayes, exact_posterior
from oneprior.inference.guidance.beliefs import make_beliefs
from oneprior.priors.diffusion.samplers import Ancestral
from oneprior.priors.diffusion.schedules import LinearSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser
from oneprior.priors.tiled import TiledDenoiser, TiledPrior, tiled, tiled_gaussian
from oneprior.priors.tiles import Tiles
from oneprior.tasks import restore
from oneprior.tasks.measurement import simulate

TILE, LARGE = (1, 8, 12), (1, 8, 28)


def _texture(shape, length=1.2):
    """A Gaussian with covariance 1/4 exp(-r^2 / (2 length^2)) and a little noise."""
    one = []
    for n in shape[1:]:
        place = torch.arange(n, dtype=torch.float64)
        one.append(torch.exp(-0.5 * ((place[:, None] - place) / length).square()))
    values, vectors = torch.linalg.eigh(0.25 * torch.kron(*one))
    keep = values > 1e-3
    return LowRankGaussian(torch.full(shape, 0.2), vectors[:, keep].float(), values[keep].float(), 2e-3)


def _denoiser():
    return TiledDenoiser(ClosedFormDenoiser(_texture(TILE), LinearSchedule()), Tiles(LARGE, TILE))


def _seams(x, exact):
    """How much the squared steps from column to column exceed the exact ones, z of each column; (draws, n, ...)."""
    steps = [(v[..., 1:] - v[..., :-1]).square().mean((0, 2, 3)) for v in (x, exact)]
    gap = steps[0] - steps[1]
    return gap.mean(0) / (gap.std(0) / len(gap) ** 0.5), (steps[0].mean(0) / steps[1].mean(0)).sqrt()


@pytest.mark.parametrize("words", ["mask:random:0.5", "downsample:4"])
def test_no_seams_and_a_misfit_of_one(words):
    """Measured with 400 rows: steps at edges of tiles are 0.3 to 2 % from those elsewhere; glued tiles are 85 % off."""
    n, draws, sigma = 64, 2, 0.15
    law, truth = _denoiser(), _texture(LARGE)
    measurement = simulate(truth.sample(Rows(n, seed=1)), words, sigma, Rows(n, seed=2))
    exact = exact_posterior(truth, measurement.likelihood).sample(Rows(n, seed=3), draws)
    posterior = bayes(law, measurement.likelihood)
    sampler = DAPS(steps=15, covariance=TiledCovariance(_texture(TILE)))
    x = sampler(posterior, draws, Rows(n, seed=4)).x
    for found, wanted in ((x, exact), (x.mean(0, keepdim=True), exact.mean(0, keepdim=True))):
        z, ratio = _seams(found, wanted)
        assert float(z.abs().max()) < 4.0
        inner = law.tiles.starts[1][1:]
        seams = torch.tensor(sorted({s - 1 for s in inner} | {s + TILE[2] - 1 for s in law.tiles.starts[1][:-1]}))
        assert abs(float(ratio[seams].mean() / ratio.mean()) - 1) < 0.06
    residual = (measurement.y - measurement.operator(x[0])) / sigma
    assert abs(float(residual.square().mean().sqrt()) - 1) < 3 / (2 * residual.numel()) ** 0.5 + 0.03
    error = [(v.mean(0) - measurement.truth).square().mean() for v in (x, exact)]
    assert abs(float((error[0] / error[1]).sqrt()) - 1) < 0.03  # no worse than exact draws


def test_the_test_of_seams_sees_glued_tiles():
    truth = _texture(LARGE)
    exact = truth.sample(Rows(64))[None]
    glued = torch.cat([_texture(TILE).sample(Rows(64).stream(k)) for k in range(3)], -1)[..., :28][None]
    z, _ = _seams(glued, exact)
    assert float(z[[11, 23]].min()) > 6
    blended = tiled(_texture(TILE), LARGE)
    assert isinstance(blended, LowRankGaussian)  # of rank under 512
    z, ratio = _seams(blended.sample(Rows(64, seed=1))[None], exact)
    assert float(ratio.max()) < 1.15  # the price of blending independent tiles: cos(pi / (2 overlap))


def test_moment_matching_is_joint_too():
    n, sigma = 24, 0.1
    truth = _texture(LARGE)
    measurement = simulate(truth.sample(Rows(n, seed=1)), "downsample:4", sigma, Rows(n, seed=2))
    sampler, misfit = Ancestral(steps=15), []
    whole = ClosedFormDenoiser(truth, LinearSchedule())
    for prior, covariance in ((_denoiser(), TiledCovariance(_texture(TILE))), (whole, DataCovariance())):
        x = Guided(MMPS(covariance), sampler)(bayes(prior, measurement.likelihood), 2, Rows(n, seed=4)).x
        residual = (measurement.y - measurement.operator(x.flatten(0, 1)).unflatten(0, (2, n))) / sigma
        misfit.append(float(residual.square().mean().sqrt()))
    assert abs(misfit[0] / misfit[1] - 1) < 0.05  # few ancestral steps come too near to y, with tiles or without


@pytest.mark.parametrize("noise", [0.1, torch.tensor([0.0, 0.1, 0.3])])
def test_one_tile_is_no_tile(noise):
    plain = ClosedFormDenoiser(_texture(TILE), LinearSchedule())
    one = TiledDenoiser(plain, Tiles(TILE, TILE))
    measurement = simulate(_texture(TILE).sample(Rows(3)), "downsample:2", noise, Rows(3))
    x_t, t, row = Rows(3, seed=5).normal(*TILE), torch.tensor(0.3), torch.arange(3)
    wanted = DataCovariance().beliefs(plain, measurement.likelihood).mean(x_t, t, row)
    tight = TiledCovariance(_texture(TILE), tolerance=1e-6).beliefs(one, measurement.likelihood)
    assert torch.allclose(tight.mean(x_t, t, row), wanted, atol=2e-3)
    many = measurement.likelihood.repeat(300)
    draws, exact = (
        covariance.beliefs(prior, many).draw(x_t.repeat(300, 1, 1, 1), t, Rows(900))[0].unflatten(0, (300, 3))
        for prior, covariance in ((one, TiledCovariance(_texture(TILE), tolerance=1e-5)), (plain, DataCovariance()))
    )
    assert torch.allclose(draws.mean(0), wanted, atol=5 * float(draws.std(0).max()) / 300**0.5)
    spread = exact.var(0).mean((1, 2, 3))
    assert torch.allclose(draws.var(0).mean((1, 2, 3)), spread, rtol=0.05, atol=1e-4)


def test_a_rows_draw_does_not_depend_on_its_batch():
    measurement = simulate(_texture(LARGE).sample(Rows(3)), "downsample:4", 0.1, Rows(3))
    sampler = DAPS(steps=4, covariance=TiledCovariance(_texture(TILE), tolerance=1e-6))
    both = sampler(bayes(_denoiser(), measurement.likelihood), 2, Rows(3)).x
    alone = sampler(bayes(_denoiser(), measurement.take(torch.tensor([2])).likelihood), 2, Rows([2])).x
    assert torch.allclose(both[:, 2], alone[:, 0], atol=1e-3)


def test_denoising_goes_by_fusion():
    """Where y is x and noise, the denoiser itself knows E[x0 | x_t, y], tiled or not, a time for each row."""
    n = 32
    measurement = simulate(_texture(LARGE).sample(Rows(n, seed=1)), "identity", 0.3, Rows(n, seed=2))
    wanted = exact_posterior(_texture(LARGE), measurement.likelihood).mean()
    beliefs = make_beliefs(_denoiser(), measurement.likelihood, None)
    nothing = torch.zeros(n, *LARGE)
    found = beliefs.mean(nothing, torch.tensor(1.0), torch.arange(n))
    error = [(v - measurement.truth).square().mean((1, 2, 3)) for v in (found, wanted)]
    assert abs(float(error[0].mean() / error[1].mean()) - 1) < 0.03
    x, mean = beliefs.draw(nothing, torch.tensor(1.0), Rows(n))
    assert x.shape == mean.shape == nothing.shape


def test_the_covariance_of_a_tile_is_chosen_where_it_is_due():
    measurement = simulate(_texture(LARGE).sample(Rows(1)), "downsample:4", 0.1, Rows(1))
    large = TiledDenoiser(_denoiser().tile, Tiles((1, 8, 200), TILE))
    assert large.moments is None
    y = simulate(_texture(LARGE).sample(Rows(1)).repeat(1, 1, 1, 8)[..., :200], "downsample:4", 0.1, Rows(1))
    for covariance in (None, DataCovariance(_texture(TILE))):
        assert type(make_beliefs(large, y.likelihood, covariance)).__name__ == "_TiledBeliefs"
    plain = ClosedFormDenoiser(_texture(LARGE), LinearSchedule())
    with pytest.raises(IncompatiblePrior, match="needs a TiledDenoiser"):
        TiledCovariance().beliefs(plain, measurement.likelihood)
    with pytest.raises(IncompatiblePrior, match="and a tile"):
        TiledCovariance(_texture(LARGE)).beliefs(_denoiser(), measurement.likelihood)


def test_restore_takes_a_tiled_prior():
    x = _texture(LARGE).sample(Rows(2))
    measurement = simulate(x, "downsample:4", 0.1, Rows(2))
    for prior in (_denoiser(), tiled_gaussian(_texture(TILE), Tiles(LARGE, TILE))):
        result = restore(prior, measurement, samples=3, aim="fast")
        assert result.mean.shape == x.shape
        assert 0.1 < float(result.diagnostics["misfit"].min()) < 1.2  # of the mean


def test_the_noise_road_serves_tiles_unchanged():
    tiles = Tiles((1, 3, 7), (1, 3, 4))
    tile = _texture((1, 3, 4))
    measurement = simulate(_texture((1, 3, 7)).sample(Rows(3, seed=1)), "downsample:2", 0.2, Rows(3, seed=2))
    exact = exact_posterior(tiled_gaussian(tile, tiles), measurement.likelihood)
    posterior = bayes(TiledPrior(tile, tiles), measurement.likelihood)
    draws = HMC(warmup=80, leapfrog=5, thin=1)(posterior, 240, Rows(3))
    deviation = exact.covariance_diag().sqrt()
    assert float(((draws.mean() - exact.mean()) / deviation).abs().max()) < 0.35  # 240 draws of 4 chains
    assert abs(float((draws.std() / deviation).mean()) - 1) < 0.05
