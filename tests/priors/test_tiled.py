"""Large events from tiles: the cover, the joint law of Gaussian tiles, the laws of priors, and what cannot be tiled."""

import pytest
import torch
from torch import nn

from oneprior.core import IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.laws import check_prior
from oneprior.priors import tiled as module
from oneprior.priors.base import NoisePrior, StandardNormal
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.diffusion.schedules import LinearSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.priors.pushforward import NoisePushforward, push
from oneprior.priors.tiled import TiledDenoiser, TiledPrior, tiled, tiled_gaussian
from oneprior.priors.tiles import Tiles


def _gaussian(shape, rank=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = torch.Size(shape).numel()
    basis = torch.linalg.qr(torch.randn(size, rank, generator=generator))[0]
    mean = torch.randn(shape, generator=generator)
    return LowRankGaussian(mean, basis, torch.arange(1.0, rank + 1), 0.1)


class Decoder(NoisePrior):
    noise_shape, event_shape = torch.Size((2,)), torch.Size((1, 4, 4))

    def decode(self, u):
        return (u @ torch.arange(32.0).reshape(2, 16).sin()).tanh().reshape(-1, 1, 4, 4) + 0.5


CASES = [
    ((1, 11), (1, 4), None),
    ((2, 7, 9), (2, 7, 4), 1),
    ((1, 5, 6, 7), (1, 3, 4, 5), None),
    ((3, 17, 16), (3, 16, 16), 4),
    ((1, 20), (1, 8), 7),
    ((1, 9, 8), (1, 4, 4), (3, 2)),
]


@pytest.mark.parametrize(("event", "tile", "overlap"), CASES, ids=str)
def test_tiles_cover_everything_and_their_weights_sum_to_one(event, tile, overlap):
    tiles = Tiles(event, tile, overlap)
    ones = torch.ones(len(tiles), *tile, dtype=torch.float64)
    assert torch.allclose(tiles.blend(ones), torch.ones(1, *event, dtype=torch.float64))
    assert float(tiles.weights.min()) > 0
    for starts, side, size, least in zip(tiles.starts, tile[1:], event[1:], tiles.overlaps, strict=True):
        assert starts[0] == 0
        assert starts[-1] + side == size
        assert all(b - a <= side - least for a, b in zip(starts, starts[1:], strict=False))
    x, y = Rows(2).normal(*event), Rows(2 * len(tiles)).normal(*tile)
    cut = tiles.cut(x)
    start = [axis[-1] for axis in tiles.starts]
    last = x[(slice(None), slice(None), *(slice(s, s + k) for s, k in zip(start, tile[1:], strict=True)))]
    assert torch.equal(cut[-2:], last)  # tile-major: the last tile of both rows
    assert torch.allclose((cut * y).sum(), (x * tiles.lay(y)).sum(), rtol=1e-4)
    assert torch.allclose(tiles.blend(cut), x, atol=1e-6)  # tiles that agree are left as they are


def test_an_overlap_goes_over_as_sine_and_cosine():
    weights = Tiles((1, 12), (1, 8), 4).weights
    angle = 0.5 * torch.pi * (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    assert torch.allclose(weights[0, 4:], angle.cos().square())
    assert torch.allclose(weights[1, :4], angle.sin().square())
    assert torch.equal(weights[0, :4], torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("event", "tile", "overlap", "message"),
    [
        ((1, 3), (1, 4), None, "Enlarge"),
        ((2, 8), (1, 4), None, "or larger"),
        ((1, 8, 8), (1, 8), None, "or larger"),
        ((1, 9), (1, 4), 4, "overlap by 1 to 3"),
        ((1, 9), (1, 4), 0, "overlap by 1 to 3"),
        ((1, 9, 9), (1, 4, 4), (1, 1, 1), "one for each of 2 axes"),
    ],
)
def test_a_cover_that_cannot_be_is_refused(event, tile, overlap, message):
    with pytest.raises((ShapeError, InputError), match=message):
        Tiles(event, tile, overlap)


def test_gaussian_tiles_are_one_gaussian():
    law = _gaussian((1, 4, 4))
    tiles = Tiles((1, 4, 9), (1, 4, 4), 2)
    joint = tiled(law, (1, 4, 9), 2)
    assert isinstance(joint, LowRankGaussian)
    cover = torch.zeros(len(tiles), 36, 16, dtype=torch.float64)
    for k, index in enumerate(tiles.index):
        cover[k, index, torch.arange(16)] = tiles.weights[k].sqrt()
    covariance = law.covariance()(torch.eye(16)).double()
    wanted = sum(w @ covariance @ w.T for w in cover)
    found = joint.covariance()(torch.eye(36)).double()
    assert (found - wanted).abs().max() < 1e-5
    noise = TiledPrior(law, tiles)  # the same law as a map of noise
    zero = noise.decode(torch.zeros(1, *noise.noise_shape))
    assert torch.allclose(zero[0], joint.mean, atol=1e-5)
    columns = noise.decode(torch.eye(noise.noise_shape.numel()).reshape(-1, *noise.noise_shape)) - zero
    assert (columns.flatten(1).T @ columns.flatten(1) - wanted).abs().max() < 1e-4
    white = tiled(LowRankGaussian.standard((1, 4, 4), torch.zeros(())), (1, 7, 9))
    assert isinstance(white, LowRankGaussian)
    assert torch.allclose(white.covariance().diagonal(), torch.ones(63))  # no variance is lost between tiles


def test_many_gaussian_tiles_are_a_map_of_noise(monkeypatch):
    assert isinstance(tiled(_gaussian((1, 4, 4), rank=15), (1, 24, 24)), LowRankGaussian)
    monkeypatch.setattr(module, "_WRITTEN", 1000)
    assert isinstance(tiled(_gaussian((1, 4, 4), rank=15), (1, 24, 24)), TiledPrior)


def test_tiled_priors_obey_the_laws():
    decoder = tiled(Decoder(), (1, 7, 10))
    assert isinstance(decoder, TiledPrior)
    check_prior(decoder)
    assert torch.allclose(decoder.mean, torch.tensor(0.5).expand(1, 4, 4), atol=0.3)
    denoiser = tiled(ClosedFormDenoiser(_gaussian((1, 4, 4)), LinearSchedule()), (1, 7, 10))
    assert isinstance(denoiser, TiledDenoiser)
    check_prior(denoiser)


def test_decoding_in_parts_changes_nothing():
    tiles = Tiles((1, 7, 10), (1, 4, 4))
    u = Rows(3).normal(len(tiles), 2)
    whole, parts = (TiledPrior(Decoder(), tiles, at_once=k).decode(u) for k in (100, 1))
    assert torch.allclose(whole, parts, atol=1e-6)
    x_t, prior = Rows(3).normal(1, 7, 10), ClosedFormDenoiser(_gaussian((1, 4, 4)), LinearSchedule())
    whole, parts = (TiledDenoiser(prior, tiles, at_once=k).denoise(x_t, torch.tensor(0.4)) for k in (100, 5))
    assert torch.allclose(whole, parts, atol=1e-5)


def test_an_event_of_the_priors_own_size_is_not_tiled():
    for prior in (Decoder(), _gaussian((1, 4, 4)), ClosedFormDenoiser(_gaussian((1, 4, 4)), LinearSchedule())):
        assert tiled(prior, prior.event_shape) is prior
    one = Tiles((1, 4, 4), (1, 4, 4))
    assert len(one) == 1
    rows = Rows(3)
    assert torch.allclose(TiledPrior(Decoder(), one).sample(Rows(3)), Decoder().sample(rows), atol=1e-6)
    plain = ClosedFormDenoiser(_gaussian((1, 4, 4)), LinearSchedule())
    assert torch.allclose(TiledDenoiser(plain, one).sample(Rows(3)), plain.sample(Rows(3)), atol=1e-4)
    law = tiled_gaussian(_gaussian((1, 4, 4)), one)
    assert torch.allclose(law.covariance().diagonal(), _gaussian((1, 4, 4)).covariance().diagonal(), atol=1e-5)


def test_a_condition_stays_with_its_row():
    class Told(DenoisingPrior):
        """Denoises to what its row was told, row i to value i % 2, as a network with bound conditions does."""

        event_shape, schedule = torch.Size((1, 4)), LinearSchedule()

        def denoise(self, x_t, t):
            value = (torch.arange(len(x_t)) % 2).float()
            return value[:, None, None].expand_as(x_t) + 0 * t[:, None, None]

    prior = TiledDenoiser(Told(), Tiles((1, 9), (1, 4)), at_once=2)
    x0 = prior.denoise(torch.zeros(4, 1, 9), torch.tensor(0.5))
    assert torch.allclose(x0[:, 0, 0], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert torch.allclose(x0, x0[..., :1].expand_as(x0))
    assert prior.calls.rows == 4 * len(prior.tiles)


def test_decoded_priors():
    up = nn.Upsample(scale_factor=2)
    latent = ClosedFormDenoiser(_gaussian((1, 3, 3)), LinearSchedule())
    decoded = push(latent, up, torch.Size((1, 6, 6)))
    with pytest.raises(IncompatiblePrior, match="local=True"):
        tiled(decoded, (1, 12, 10))
    large = tiled(decoded, (1, 12, 10), 2, local=True)
    assert large.event_shape == (1, 12, 10)
    assert isinstance(large.base, TiledDenoiser)
    assert large.base.event_shape == (1, 6, 5)
    with pytest.raises(InputError, match="multiples of"):
        tiled(decoded, (1, 13, 10), local=True)
    noise = push(latent.flow(4), up, torch.Size((1, 6, 6)))  # the remedy
    assert isinstance(tiled(noise, (1, 12, 10)), TiledPrior)
    plain = push(StandardNormal((4,)), lambda z: z.reshape(-1, 1, 2, 2), torch.Size((1, 2, 2)))
    assert isinstance(plain, NoisePushforward)
    assert isinstance(tiled(plain, (1, 5, 5)), TiledPrior)


def test_what_has_no_tiles_is_told():
    mixture = GaussianMixturePrior([_gaussian((1, 4, 4)), _gaussian((1, 4, 4), seed=1)], torch.ones(2))
    with pytest.raises(IncompatiblePrior, match="ClosedFormDenoiser\\(mixture"):
        tiled(mixture, (1, 8, 8))
    assert isinstance(tiled(ClosedFormDenoiser(mixture, LinearSchedule()), (1, 8, 8)), TiledDenoiser)
    with pytest.raises(InputError, match="were laid for"):
        TiledPrior(Decoder(), Tiles((1, 9), (1, 4)))
