"""Events larger than those that a prior was trained on, covered by overlapping tiles, with one joint law.

The tiles become one prior of the large event, so that a measurement of it, however global, is one data term: nothing is
restored tile by tile and glued. With W_t the windows of `tiles.Tiles` (diagonal, sum_t W_t = I) there are two roads:

- `TiledPrior`, for a map of noise: independent tiles, blended with the roots of the windows about the mean m,

      x = sum_t W_t m + sum_t W_t^(1/2) (decode(u_t) - m),     Cov[x] = sum_t W_t^(1/2) C W_t^(1/2),

  which keeps the variance of every entry: blending with W_t itself would halve it between two tiles, and a posterior
  would understate its uncertainty there. Of Gaussian tiles the law is a `LowRankGaussian` again (`tiled_gaussian`).
- `TiledDenoiser`, for a denoiser: E[x | x_t] = sum_t W_t denoise(x_t in tile t), the least-squares agreement of
  the tiles (Bar-Tal, Yariv, Lipman, Dekel 2023, "MultiDiffusion", equations 3 to 5). All tiles see the same x_t: what
  they make agrees where they overlap. It is the denoiser of the large law in so far as an entry depends on nothing
  beyond half an overlap.

What a tile does not know, no tiling knows: contents with a place (a face, a brain) stand in every tile anew, and
dependence beyond a tile comes from the data alone. Textures, films, scans of large sheets are what it is for.

Measured (`tests/inference/test_tiled.py` with 400 rows; Gaussian texture of correlation length 1.2 on 8 x 28, tiles of
12 with half overlap, noise 0.15, deviation 0.5; against the exact posterior of the whole). The denoiser: steps at the
edges of tiles are 0.997 (half of the entries missing) and 0.992 (`downsample:4`, whose boxes straddle tiles) of those
elsewhere in draws, 0.997 and 0.980 in the mean of two, none beyond its error; misfit 1.01 and 1.01; the error of the
mean within 0.7 % of the exact one's. Independent tiles: steps within overlaps 2 and 3 % too large (5 % with a third
of overlap), deviations 1 % too large. Tiles glued edge to edge: 85 % too large.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, Rows
from oneprior.priors.base import NoisePrior, Prior
from oneprior.priors.diffusion.prior import Calls
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.pushforward import Pushforward, push
from oneprior.priors.tiles import Tiles

_DRAWS = 64  # behind the mean of a tile, where it is not known: it is off by an eighth of a deviation
_RANK = 512  # directions up to which a tiled denoiser's covariance is written as one; above it is solved for
_WRITTEN = 1 << 27  # numbers of the factor up to which tiled Gaussians are written as one (1 GiB)


class TiledPrior(NoisePrior):
    """Independent tiles of one noise prior, blended; u = the noise of all tiles, (tiles, *noise_shape of one).

    Args:
        tile: the prior of one tile.
        tiles: where they lie.
        mean: E[x] of a tile, of its event_shape; known for a Gaussian, else the mean of 64 draws: of all conditions
            together where rows have conditions of their own, so tile a decoder for one condition at a time.
        at_once: tiles that are decoded together, which bounds the memory.
    """

    def __init__(self, tile: NoisePrior, tiles: Tiles, mean: Tensor | None = None, at_once: int = 16) -> None:
        _fits(tile, tiles)
        self.tile, self.tiles, self.at_once = tile, tiles, at_once
        self.event_shape = tiles.event_shape
        self.noise_shape = torch.Size([len(tiles), *tile.noise_shape])
        self.mean = _mean_of(tile) if mean is None else mean

    @property
    def device(self) -> torch.device:
        return self.tile.device

    def decode(self, u: Tensor) -> Tensor:
        n, many = u.shape[0], len(self.tiles)
        noise = u.movedim(1, 0).flatten(0, 1)
        parts = [self.tile.decode(part) for part in noise.split(self.at_once * n)]
        mean = self.mean.to(parts[0])
        centred = self.tiles.lay(self.tiles.weigh(torch.cat(parts) - mean, 0.5))
        return centred + self.tiles.blend(mean.expand(many, *mean.shape))


class TiledDenoiser(DenoisingPrior):
    """E[x | x_t] of a large event from the denoiser of a tile, on the same schedule.

    Args:
        tile: the prior of one tile.
        tiles: where they lie.
        at_once: tiles that go through the network together, which bounds the memory.

    Attributes:
        moments: of the large event where those of a tile are known and all tiles together have at most 512 directions;
            else None, and guidance goes tile by tile (`inference.guidance.TiledCovariance`).
    """

    def __init__(self, tile: DenoisingPrior, tiles: Tiles, at_once: int = 16) -> None:
        _fits(tile, tiles)
        self.tile, self.tiles, self.at_once = tile, tiles, at_once
        self.event_shape, self.schedule, self.sampler = tiles.event_shape, tile.schedule, tile.sampler
        law = tile.moments
        self.moments = tiled_gaussian(law, tiles) if law is not None and len(tiles) * law.rank <= _RANK else None
        self.calls: Calls = tile.calls or Calls()

    @property
    def device(self) -> torch.device:
        return self.tile.device

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        n = x_t.shape[0]
        times = torch.as_tensor(t, device=x_t.device).expand(n)
        parts = [
            self.tile.denoise(part, times.repeat(len(part) // n))
            for part in self.tiles.cut(x_t).split(self.at_once * n)
        ]
        if self.tile.calls is None:  # else it counts for itself
            self.calls.batches += len(parts)
            self.calls.rows += len(self.tiles) * n
        return self.tiles.blend(torch.cat(parts))


def _writable(law: LowRankGaussian, tiles: Tiles) -> bool:
    """Whether the Gaussian of all tiles is small enough to be written as one, and its exact posterior to be had."""
    return len(tiles) * law.rank * tiles.event_shape.numel() <= _WRITTEN


def tiled_gaussian(law: LowRankGaussian, tiles: Tiles) -> LowRankGaussian:
    """The law of independent Gaussian tiles, blended: N(sum W_t m, sum W_t^(1/2) B v B' W_t^(1/2) + s I), exactly.

    Args:
        law: of one tile, of rank q.
        tiles: where they lie; the result has rank tiles * q at most.
    """
    many, size = len(tiles), tiles.event_shape.numel()
    roots = tiles.weights.sqrt().to(law.device)
    each = law.basis.double() * law.variances.double().sqrt()
    factor = torch.zeros(size, many, law.rank, dtype=torch.float64, device=law.device)
    for k, index in enumerate(tiles.index.to(law.device)):
        factor[index, k] = roots[k][:, None] * each
    basis, singular, _ = torch.linalg.svd(factor.flatten(1), full_matrices=False)
    keep = singular > 1e-7 * singular[:1].sum()
    mean = tiles.blend(law.mean.expand(many, *law.mean.shape))[0]
    return LowRankGaussian(mean, basis[:, keep], singular[keep].square(), law.noise_variance)


def tiled(
    prior: Prior,
    event_shape: torch.Size | tuple[int, ...],
    overlap: int | Sequence[int] | None = None,
    *,
    local: bool = False,
) -> Prior:
    """The prior of larger events, covered by tiles of this one; the prior itself where the shape is its own.

    Args:
        prior: of one tile. A denoiser becomes a `TiledDenoiser`, a Gaussian a Gaussian, another map of noise (a GAN, a
            VAE, the flow of a diffusion) a `TiledPrior` through its decoder.
        event_shape: of the large event, (channels, *space).
        overlap: entries that neighbours share; half a tile by default. Fewer are quicker and show more of the seams.
        local: of a decoded denoiser (latent diffusion): that the decoder is convolutional and without attention, so
            that the latents can be tiled and decoded whole.

    Raises:
        IncompatiblePrior: for priors that are neither (codes on a grid; a decoded denoiser whose decoder is not said
            to be local), with what to do.
        ShapeError: for an event smaller than a tile, or with other channels.
        InputError: for an overlap that tiles cannot have, or a shape that no latent decodes to.
    """
    event_shape = torch.Size(event_shape)
    if event_shape == prior.event_shape:
        return prior
    tiles = Tiles(event_shape, prior.event_shape, overlap)
    if isinstance(prior, DenoisingPrior):
        return TiledDenoiser(prior, tiles)
    if isinstance(prior, LowRankGaussian) and _writable(prior, tiles):
        return tiled_gaussian(prior, tiles)
    if isinstance(prior, NoisePrior):
        return TiledPrior(prior, tiles)
    if isinstance(prior, Pushforward) and isinstance(prior.base, DenoisingPrior):
        if local:
            return _tiled_latents(prior, event_shape, overlap)
        raise IncompatiblePrior(
            "the tiles of a decoded denoiser are decoded one by one, and the denoiser knows only their codes. Say "
            "local=True if its decoder is convolutional without attention; or take the noise road, "
            "tiled(push(prior.base.flow(), prior.decoder, prior.event_shape), event_shape)"
        )
    raise IncompatiblePrior(
        f"a {type(prior).__name__} over {tuple(prior.event_shape)} cannot be tiled over {tuple(event_shape)}: that "
        "takes a denoiser or a map of Gaussian noise. Resize the measurement to the prior's size, or take another "
        "prior (a mixture: ClosedFormDenoiser(mixture, schedule))"
    )


def _tiled_latents(prior: Pushforward, event_shape: torch.Size, overlap: int | Sequence[int] | None) -> Prior:
    """A latent denoiser over larger latents; the overlap is in entries of the event."""
    inner = prior.base.event_shape
    if len(inner) != len(event_shape):
        raise IncompatiblePrior(f"latents of shape {tuple(inner)} have no place in the event: they cannot be tiled")
    factors = [n // k for n, k in zip(prior.event_shape[1:], inner[1:], strict=True)]
    space = [n // f for n, f in zip(event_shape[1:], factors, strict=True)]
    latents = torch.Size([inner[0], *space])
    if overlap is not None:
        each = (overlap,) * len(factors) if isinstance(overlap, int) else tuple(overlap)
        overlap = [max(1, -(-o // f)) for o, f in zip(each, factors, strict=True)]
    with torch.no_grad():
        made = prior.decoder(torch.zeros(1, *latents, device=prior.device))
    if tuple(made.shape[1:]) != tuple(event_shape):
        raise InputError(
            f"no latent decodes to an event of shape {tuple(event_shape)}: {tuple(latents)} gives "
            f"{tuple(made.shape[1:])}. Give sides that are multiples of {factors}"
        )
    return push(tiled(prior.base, latents, overlap), prior.decoder, event_shape)


def _fits(tile: Prior, tiles: Tiles) -> None:
    if tile.event_shape != tiles.tile_shape:
        raise InputError(f"tiles of {tuple(tiles.tile_shape)} were laid for a prior of {tuple(tile.event_shape)}")


def _mean_of(prior: NoisePrior) -> Tensor:
    """E[x], exactly for a Gaussian and else of draws that depend on nothing but the prior."""
    if isinstance(prior, LowRankGaussian):
        return prior.mean
    return prior.sample(Rows(_DRAWS, stream="mean of a tile")).mean(0)
