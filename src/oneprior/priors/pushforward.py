"""The law of a map of something simpler, and of a law tilted by evidence: the two observations of the house."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.likelihoods.base import Likelihood
from oneprior.priors.base import NoisePrior, Prior


class Pushforward(Prior):
    """The law of decode(z), z ~ base.

    Args:
        base: the simpler law.
        decoder: (n, *base.event_shape) -> (n, *event_shape).
        event_shape: shape of one decoded event.
    """

    def __init__(self, base: Prior, decoder: Callable[[Tensor], Tensor], event_shape: torch.Size) -> None:
        self.base, self.decoder, self.event_shape = base, decoder, torch.Size(event_shape)

    @property
    def device(self) -> torch.device:
        return self.base.device

    def sample(self, rows: Rows) -> Tensor:
        with torch.no_grad():
            return self.decoder(self.base.sample(rows))


class NoisePushforward(Pushforward, NoisePrior):
    """A `Pushforward` of Gaussian noise: x = decoder(base.decode(u))."""

    def __init__(self, base: NoisePrior, decoder: Callable[[Tensor], Tensor], event_shape: torch.Size) -> None:
        Pushforward.__init__(self, base, decoder, event_shape)
        self.noise_shape = base.noise_shape

    def decode(self, u: Tensor) -> Tensor:
        return self.decoder(self.base.decode(u))  # type: ignore[attr-defined]

    def sample(self, rows: Rows) -> Tensor:
        return NoisePrior.sample(self, rows)


def push(base: Prior, decoder: Callable[[Tensor], Tensor], event_shape: torch.Size) -> Pushforward:
    """`Pushforward`, keeping the noise road open where the base has one."""
    kind = NoisePushforward if isinstance(base, NoisePrior) else Pushforward
    return kind(base, decoder, event_shape)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Tilted:
    """p(z) L(z), unnormalised; `inference.bayes` makes it a posterior."""

    base: Prior
    factor: Likelihood
