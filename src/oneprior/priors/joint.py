"""The joint law of an image and of the numbers of an instrument that measured it.

Both are maps of white noise, x = decode(u) and theta = v, so the pair (x, theta), laid end to end as one list, is a map
of the noise (u, v): a `NoisePrior` again, and every method of the noise road infers an image and its instrument
together without knowing it. A priori the two are independent; the measurement ties them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.priors.base import NoisePrior


class JointPrior(NoisePrior):
    """(x, theta) as one list of d + k numbers, x ~ prior and theta ~ N(0, I); made by `joint`.

    Args:
        prior: the law of x, d numbers an event.
        theta_shape: shape of theta, k numbers.
    """

    def __init__(self, prior: NoisePrior, theta_shape: torch.Size | tuple[int, ...]) -> None:
        self.prior, self.theta_shape = prior, torch.Size(theta_shape)
        numbers = self.theta_shape.numel()
        self.event_shape = torch.Size([prior.event_shape.numel() + numbers])
        self.noise_shape = torch.Size([prior.noise_shape.numel() + numbers])

    @property
    def device(self) -> torch.device:
        return self.prior.device

    def decode(self, u: Tensor) -> Tensor:
        size = self.prior.noise_shape.numel()
        x = self.prior.decode(u[:, :size].reshape(-1, *self.prior.noise_shape))
        return torch.cat([x.flatten(1), u[:, size:].to(x)], 1)

    def parts(self, event: Tensor) -> tuple[Tensor, Tensor]:
        """A list as x and theta; (..., d + k) -> (..., *prior.event_shape), (..., *theta_shape)."""
        size = self.prior.event_shape.numel()
        x, theta = event[..., :size], event[..., size:]
        return x.unflatten(-1, self.prior.event_shape), theta.unflatten(-1, self.theta_shape)


def joint(prior: NoisePrior, theta_shape: torch.Size | tuple[int, ...]) -> JointPrior:
    """The law of (x, theta) with theta ~ N(0, I) of this shape, as one list."""
    return JointPrior(prior, theta_shape)
