"""A perceptual distance between two events: how far apart their activations are in a feature network.

With phi_l(x), (c_l, *space_l), the activations of stage l, made unit vectors over channels at every place,

    d(x, y) = mean_l  mean_place  |phi_l(x) / |phi_l(x)| - phi_l(y) / |phi_l(y)||^2.

It is the distance of Zhang, Isola, Efros, Shechtman, Wang 2018 (LPIPS) without its learned weights, which were fitted
to people's judgements of photographs and exist for three networks only; their paper finds the unweighted form close to
it. Every stage lies in [0, 4], and so does the mean (the paper takes the sum over its five).

Any network that exposes stages will do, in one to three dimensions: a classifier of one's own for scans, Inception for
photographs. The number belongs to the network: name it (`Features.name`), and never print it as LPIPS. It rewards
texture where squared error rewards blur, so that for restorations it is read of single draws, not of their mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError
from oneprior.evaluation.embed import Features

_TINY = 1e-10  # where all channels are off, the vector stays zero


def perceptual_distance(x: Tensor, y: Tensor, features: Features, batch: int = 50) -> Tensor:
    """The distance of each pair of events on the stages of a network.

    Args:
        x: events in [-1, 1], (n, channels, *space).
        y: as many of the same shape.
        features: those of a network that has stages (`own:FILE`, `inception:FILE`).
        batch: pairs looked at together.

    Returns:
        (n,), float64, in [0, 4]; 0 where the events are equal.

    Raises:
        ShapeError: if the shapes differ.
        InputError: if events are not finite, or the features have no stages.

    Source: Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", equation 1.
    """
    if x.shape != y.shape or x.dim() < 3:
        raise ShapeError("the second events", tuple(y.shape), tuple(x.shape), "Give pairs, (n, channels, *space).")
    stages = features.stages
    if stages is None:
        raise InputError(
            f"the features {features.name} have no stages to compare on; take a network's: own:FILE, inception:FILE"
        )
    if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise InputError("events hold nan or infinity; the samples diverged")
    with torch.no_grad():
        found = [
            torch.stack([_apart(a, b) for a, b in zip(stages(p), stages(q), strict=True)]).mean(0)
            for p, q in zip(x.split(batch), y.split(batch), strict=True)
            if len(p)
        ]
    return torch.cat(found) if found else x.new_zeros(0, dtype=torch.float64)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Squared difference of unit vectors over channels, averaged over places, (n, c, *space) -> (n,)."""
    a, b = (z.flatten(2).double() for z in (a, b))
    a, b = (z / (z.norm(dim=1, keepdim=True) + _TINY) for z in (a, b))
    return (a - b).square().sum(1).mean(1)
