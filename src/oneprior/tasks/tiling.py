"""Events larger than the prior's own: their size from the measurement, and the prior that covers them with tiles.

Nothing is resized that was not said to be: an event of the prior's channels that is larger along some axis, and smaller
along none, is covered by overlapping tiles of the prior with one data term (`priors.tiled`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, ShapeError
from oneprior.operators.grammar import parse_operator
from oneprior.priors.base import NoisePrior, Prior
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.pushforward import Pushforward, push
from oneprior.priors.residual import ResidualPrior
from oneprior.priors.tiled import tiled
from oneprior.priors.tiles import Tiles

_FACTORS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 32)
_FLOW = 16  # steps of a denoiser's ODE, where tiles need a map of noise


def event_shape_of(words: str | Sequence[str], y: Tensor, own: torch.Size) -> torch.Size:
    """The event shape of which the words measure y: the prior's own where it fits, else that of y times a factor.

    Args:
        words: of the operator.
        y: a measurement, with its row or without, or for a mask the picture itself.
        own: event shape of the prior.

    Returns:
        (channels, *space); `own` where nothing fits, so that the error tells of the prior's shape.
    """
    axes = len(own)
    shapes = [torch.Size(y.shape), torch.Size(y.shape[1:])]

    def fits(shape: torch.Size) -> bool:
        try:
            operator = parse_operator(words, shape)
        except InputError:
            return False
        return operator.out_shape in shapes or (operator.keeps_pixels and shape in shapes)

    if fits(own):
        return own
    for seen in shapes:
        for factor in _FACTORS if len(seen) == axes else ():
            for channels in {own[0], seen[0]}:
                shape = torch.Size([channels, *(side * factor for side in seen[1:])])
                if larger(shape, own) and fits(shape):
                    return shape
    return own


def larger(shape: Sequence[int], own: Sequence[int]) -> bool:
    """Whether tiles of `own` can cover events of this shape: the same channels, and no axis smaller."""
    return len(shape) == len(own) and shape[0] == own[0] and all(a >= b for a, b in zip(shape, own, strict=True))


def can_tile(prior: Prior) -> bool:
    """Whether larger events can be covered by tiles of a prior: of a denoiser, or of a map of Gaussian noise."""
    base = prior.base if isinstance(prior, ResidualPrior) else prior
    mapped = isinstance(base, Pushforward) and isinstance(base.base, DenoisingPrior)
    return mapped or isinstance(base, DenoisingPrior | NoisePrior)


def of_tiles(event_shape: torch.Size, own: torch.Size, overlap: int | None = None) -> str:
    """What is said of a restoration in tiles."""
    sizes = " against ".join(" x ".join(map(str, shape[1:])) for shape in (event_shape, own))
    return (
        f"the measurement is larger than the prior ({sizes}): covered by {len(Tiles(event_shape, own, overlap))} "
        "overlapping tiles, each of which knows nothing beyond itself, and strangeness cannot be had; if this was not "
        "meant, check the operator and the size of the input"
    )


def covering(prior: Prior, event_shape: torch.Size, overlap: int | None = None) -> Prior:
    """The prior of larger events; the prior itself where the shape is its own.

    Raises:
        ShapeError: where tiles cannot cover them.
        IncompatiblePrior: for a prior that cannot be tiled (codes on a grid).
    """
    if tuple(event_shape) == tuple(prior.event_shape):
        return prior
    if not larger(event_shape, prior.event_shape):
        remedy = "Tiles cover events with the prior's channels that are at least as large; --size brings others to it."
        raise ShapeError("what was measured", tuple(event_shape), tuple(prior.event_shape), remedy)
    if not can_tile(prior):
        size, own = (" x ".join(map(str, shape[1:])) for shape in (event_shape, prior.event_shape))
        raise IncompatiblePrior(
            f"the measurement is of events of {size} and the prior of {own}, which cannot be laid in tiles: bring the "
            "input to the prior's size (--fit), give the operator that made it, or take a prior that can: a ppca "
            "without classes, a diffusion, a vae or a gan"
        )
    base = prior.base if isinstance(prior, ResidualPrior) else prior
    if isinstance(base, Pushforward) and isinstance(base.base, DenoisingPrior):
        prior = push(base.base.flow(_FLOW), base.decoder, base.event_shape)
    return tiled(prior, event_shape, overlap)
