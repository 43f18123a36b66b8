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

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from oneprior.core import InputError, ShapeError, user_function
from oneprior.evaluation.embed import WORDS, Features, open_features

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
            torch.stack([_apart(a.double(), b.double()) for a, b in zip(stages(p), stages(q), strict=True)]).mean(0)
            for p, q in zip(x.split(batch), y.split(batch), strict=True)
            if len(p)
        ]
    return torch.cat(found) if found else x.new_zeros(0, dtype=torch.float64)


@dataclass(frozen=True)
class PerceptualTerm:
    """A perceptual distance as a term of an objective: differentiable, and of pictures of any size.

    Args:
        name: what tables say of it.
        distance: of pairs of pictures in [-1, 1], (n, channels, *space) twice -> (n,).
    """

    name: str
    distance: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of each pair, (n,).

        Raises:
            ShapeError: where the function returns anything else.
        """
        found = self.distance(x, y)
        if not isinstance(found, Tensor) or found.shape != (len(x),):
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError(f"what {self.name} returns", given, (len(x),), "One number for each pair of pictures.")
        return found


def open_perceptual(word: str, event_shape: torch.Size) -> PerceptualTerm:
    """The perceptual distance that a word of the command line means.

    Args:
        word: features with stages (`own:FILE`, `inception:FILE`; see `open_features`), whose distance is that of
            `perceptual_distance`; or `module:function`, a function of the user's of two batches of pictures, such as
            LPIPS where the weights are at hand.
        event_shape: of the prior's events: smaller pictures (what a camera measured) are enlarged to it for a network
            by repeating pixels, and a grey one is repeated in all channels.

    Raises:
        InputError: for a word that means no features, or features without stages.
        ShapeError: where the function does not map pairs of pictures to one number each.
    """
    kind = word.partition(":")[0]
    if ":" in word and kind not in WORDS and not word.endswith(".safetensors"):
        term = PerceptualTerm(word, user_function(word))
        blank = torch.zeros(2, *event_shape)
        with torch.no_grad():
            term(blank, blank)
        return term
    features = open_features(word, torch.zeros(1, *event_shape))
    stages = features.stages
    if stages is None:
        raise InputError(
            f"the features {features.name} have no stages to compare on; take a network's: own:FILE, inception:FILE"
        )

    def fitted(x: Tensor) -> Tensor:
        x = x.expand(-1, event_shape[0], *x.shape[2:]) if x.shape[1] == 1 else x
        return x if x.shape[2:] == event_shape[1:] else F.interpolate(x, size=tuple(event_shape[1:]), mode="nearest")

    def distance(x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(stages(fitted(x)), stages(fitted(y)), strict=True)
        return torch.stack([_apart(a, b) for a, b in pairs]).mean(0)

    return PerceptualTerm(features.name, distance)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Squared difference of unit vectors over channels, averaged over places, (n, c, *space) -> (n,)."""
    a, b = (z.flatten(2) for z in (a, b))
    a, b = (z / (z.norm(dim=1, keepdim=True) + _TINY) for z in (a, b))
    return (a - b).square().sum(1).mean(1)
