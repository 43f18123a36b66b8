"""Total variation, the rival that needs no training: argmin |A x - y|^2 / (2 sigma^2) + weight TV(x).

Chambolle and Pock 2011 (algorithm 1), for a batch of measurements of pictures or volumes; isotropic total variation, x
kept in the range of values. The weight is the best of a grid on other images, for each instrument by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.evaluation import psnr
from oneprior.operators.spectral_norm import largest_singular_value
from oneprior.tasks import Measurement

WEIGHTS = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


def restore_by_total_variation(tuning: Measurement, given: Measurement, quick: bool = False) -> tuple[Tensor, float]:
    """The minimiser, (n, *event_shape) in the user's units, and the weight that was chosen on `tuning`."""
    steps = 20 if quick else 400
    scores = {}
    for weight in WEIGHTS[::3] if quick else WEIGHTS:
        x = _minimise(tuning, weight, steps)
        assert tuning.truth is not None
        scores[weight] = float(psnr(x, tuning.units.to_model(tuning.truth)).mean())
    weight = max(scores, key=lambda w: scores[w])
    return given.units.to_units(_minimise(given, weight, 3 * steps)), weight


def _minimise(given: Measurement, weight: float, steps: int) -> Tensor:
    likelihood = given.likelihood
    operator, y = likelihood.linear_operator, likelihood.y
    sigma = float(torch.as_tensor(likelihood.noise_level).max())  # type: ignore[attr-defined]
    start = torch.ones(1, *operator.in_shape)
    norm = largest_singular_value(lambda v: operator.adjoint(operator(v)), start)
    y = y / sigma
    x = operator.pinv(likelihood.y)
    step = 0.95 / (norm / sigma + (4 * (x.dim() - 2)) ** 0.5 * weight)
    p, q = _gradient(x) * 0, y * 0
    ahead = x
    for _ in range(steps):
        p = p + step * weight * _gradient(ahead)
        p = p / p.square().sum(2, keepdim=True).sqrt().clamp_min(1.0)
        q = (q + step * (operator(ahead) / sigma - y)) / (1 + step)
        new = (x - step * (operator.adjoint(q) / sigma - weight * _divergence(p))).clamp(-1, 1)
        ahead, x = 2 * new - x, new
    return x


def _gradient(x: Tensor) -> Tensor:
    """Forward differences, (n, c, *space) -> (n, c, axes, *space)."""
    return torch.stack([_difference(x, axis) for axis in range(2, x.dim())], 2)


def _difference(x: Tensor, axis: int) -> Tensor:
    """x(i + 1) - x(i) along an axis, 0 at its end."""
    return torch.cat([x.diff(dim=axis), torch.zeros_like(x.narrow(axis, 0, 1))], axis)


def _divergence(p: Tensor) -> Tensor:
    """Minus the adjoint of `_gradient`."""
    parts = []
    for k, field in enumerate(p.unbind(2)):
        edge = torch.zeros_like(field.narrow(2 + k, 0, 1))
        inside = field.narrow(2 + k, 0, field.shape[2 + k] - 1)  # the last difference is 0
        parts.append(torch.cat([inside, edge], 2 + k) - torch.cat([edge, inside], 2 + k))
    return torch.stack(parts).sum(0)
