"""The three games, and the penalty that makes them converge.

With logits d = D(x) of real and generated events, and f(t) = log(1 + e^t) the softplus:

- `minimax` (Goodfellow et al. 2014, equation 1): the critic minimises f(-d_real) + f(d_fake), the generator its
  negative, of which only -f(d_fake) = log(1 - sigmoid(d_fake)) depends on it. Its gradient vanishes where the critic
  is sure.
- `nonsaturating` (the same paper, section 3): the generator minimises f(-d_fake) instead; same fixed point, and the
  largest gradient where the critic is sure.
- `relativistic` (Jolicoeur-Martineau 2019; paired, Huang et al. 2024, equation 2): the critic minimises f(-(d_real -
  d_fake)), the generator f(-(d_fake - d_real)). Every generated event is judged against a real one, so that no mode
  of the data can be given up for free.

None of them converges by itself: near the equilibrium the players circle. R1 = E |grad D(real)|^2 (Mescheder, Geiger
and Nowozin 2018) and R2, the same at generated events, with weight gamma / 2 each, damp the circling; with both the
relativistic game converges locally (Huang et al. 2024, proposition 2).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

Objective = Literal["relativistic", "nonsaturating", "minimax"]


def critic_loss(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    """What the critic minimises, per row: logits (n,), (n,) -> (n,)."""
    return softplus(fake - real) if objective == "relativistic" else softplus(-real) + softplus(fake)


def generator_loss(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    """What the generator minimises, per row: logits (n,), (n,) -> (n,); only "relativistic" reads `real`."""
    if objective == "relativistic":
        return softplus(real - fake)
    return softplus(-fake) if objective == "nonsaturating" else -softplus(fake)


def gradient_penalty(logits: Tensor, *events: Tensor) -> list[Tensor]:
    """|d sum(logits) / d x|^2 for each tensor of events, (n, *event_shape) -> (n,), itself differentiable."""
    gradients = torch.autograd.grad(logits.sum(), events, create_graph=True)
    return [g.square().flatten(1).sum(1) for g in gradients]
