"""The likelihood of a diffusion by its probability-flow ODE, with the error of the estimate.

With y = x + s noise and D(y, s) = E[x | y], the ODE of Song et al. 2021 (section 4.3) is, in r = log s,

    dy / dr = y - D(y, s),    d log p(y) / dr = -(d - tr dD/dy)

(the instantaneous change of variables: Chen et al. 2018, theorem 1). It is integrated upwards in
w = y / (1 + s^2)^(1/2), in which a solution neither grows nor shrinks, and which is x_t of a schedule that preserves
variance:

    dw / dr = w / (1 + s^2) - D / (1 + s^2)^(1/2),
    log p(x) = log p_top(w_top) + int (d / (1 + s^2) - tr dD/dy) dr - d/2 log(1 + s_low^2).

Whose law is it? That of the *learned denoiser's ODE* between the grid's noise levels: what `prior.flow()` draws in the
limit of many steps, before its last denoising. For a network it agrees with the law of a stochastic sampler only as far
as the network is exact. It is the law of x + s_low noise, since data on a surface have no density at s = 0. The top is
what the samplers start from, N(mean, S + s^2 I) where the prior knows its `moments`, else N(0, s^2 I).

Three errors are told apart.
- The trace is a mean of v' dD/dy v over Rademacher vectors v (Hutchinson 1990; Grathwohl et al. 2019, FFJORD), and
  unbiased. Each of the `probes` is an estimate of its own, and their spread gives the standard error of each event. A
  probe is drawn anew for every second step, not once for the path as in FFJORD: the errors at different noise levels
  then average out.
- Heun's method is run with N and with N / 2 steps and the same probes; the difference over 3 is its error to leading
  order (Richardson 1911). It is added to the result, and reported: an event for which it is large is not resolved.
- The spread over events, which no estimate mends: `bits_per_dimension`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError, inner
from oneprior.priors.diffusion.samplers.base import Grid, Path
from oneprior.priors.diffusion.schedule import DenoisingPrior

FLOW = Grid("logsnr", low=0.002, high=80.0)


@dataclass(frozen=True)
class FlowLikelihood:
    """What the ODE says of each event; all (n,), float64, in nats.

    Args:
        log_prob: log p of x + `noise_level` noise at x.
        trace_error: its standard error from the probes; 0 for an exact trace, nan for one probe.
        integrator_error: the correction that doubling the steps made, signed; it is in `log_prob` already, whose own
            error is smaller where the steps are fine enough for it to be small.
        noise_level: s_low, in units of x.
    """

    log_prob: Tensor
    trace_error: Tensor
    integrator_error: Tensor
    noise_level: float


def flow_log_prob(
    prior: DenoisingPrior, x: Tensor, rows: Rows, *, steps: int = 64, probes: int = 4, grid: Grid = FLOW
) -> FlowLikelihood:
    """Log-likelihood of events by the probability-flow ODE, in 3 * steps calls of the denoiser and its gradient.

    The gradient is taken `probes` times a call. All rows are worked on at once: give as many events as memory allows,
    and for conditions bound row by row as many as were bound.

    Args:
        prior: any denoiser that torch can differentiate.
        x: events, (n, *event_shape); dequantised (`bits.dequantise`) if they are discrete.
        rows: one stream for each event.
        steps: of the finer of two runs of Heun's method, even.
        probes: Rademacher vectors; 0 for the exact trace, by d gradients a call.
        grid: where the noise levels lie; "logsnr" converges fastest. A network should know its lowest level.

    Raises:
        ShapeError: for events of another shape, or rows of another number.
        InputError: for steps that are odd or fewer than 4, events that are nan, a denoiser without a gradient.
    """
    if x.shape[1:] != prior.event_shape:
        raise ShapeError("events to score", x.shape, ("n", *prior.event_shape))
    if len(rows) != len(x):
        raise ShapeError("rows of the probes", (len(rows),), (len(x),), "Give one row for each event.")
    if steps < 4 or steps % 2 or probes < 0:
        raise InputError(f"give an even number of steps from 4 on and probes >= 0, got {steps} and {probes}")
    if not bool(torch.isfinite(x).all()):
        raise InputError("the events hold nan or infinity; they have no likelihood")
    path = grid.path(prior.schedule, steps + 1, prior.device)
    field = _Field(prior, path, rows.to(prior.device), probes, x.dtype)
    fine, coarse = (_integrate(field, x.to(prior.device), stride) for stride in (1, 2))
    correction = (fine - coarse) / 3
    found = fine + correction
    if probes == 0:
        error = torch.zeros_like(found[0])
    else:
        error = found.std(0) / math.sqrt(probes) if probes > 1 else torch.full_like(found[0], math.nan)
    return FlowLikelihood(found.mean(0), error, correction.mean(0), path.level(steps))


class _Field:
    """The right-hand side of the ODE at the path's times, counted upwards from the lowest level."""

    def __init__(self, prior: DenoisingPrior, path: Path, rows: Rows, probes: int, dtype: torch.dtype) -> None:
        self.prior, self.path, self.rows, self.probes, self.dtype = prior, path, rows, probes, dtype
        self.steps = len(path) - 1

    def level(self, k: int) -> float:
        """s at time k."""
        return self.path.level(self.steps - k)

    def directions(self, k: int) -> Tensor:
        """v for the steps from k, the same for k even and k + 1; (m, n or 1, *event_shape)."""
        shape = self.prior.event_shape
        if self.probes == 0:
            unit = torch.eye(shape.numel(), dtype=self.dtype, device=self.prior.device)
            return unit.reshape(-1, 1, *shape)
        signs = self.rows.stream(f"probes {k // 2}").integers(2, self.probes, *shape).movedim(1, 0)
        return 2.0 * signs.to(self.dtype) - 1.0

    def __call__(self, w: Tensor, k: int, directions: Tensor) -> tuple[Tensor, Tensor]:
        """dw / dr, (n, *event_shape), and its divergence by each probe, (m, n), or exactly, (1, n)."""
        s, alpha, t = self.level(k), self.path.alpha[self.steps - k], self.path.t[self.steps - k]
        scale = math.sqrt(1 + s * s)
        with torch.enable_grad():
            x_t = (alpha * scale * w).to(self.dtype).requires_grad_()
            denoised = self.prior.denoise(x_t, t)
        if not denoised.requires_grad:
            raise InputError("this denoiser has no gradient, so that no likelihood can be had of its flow")
        found = []
        for j, v in enumerate(directions):  # one forward pass serves all
            v = v.expand_as(x_t)
            (product,) = torch.autograd.grad(denoised, x_t, v, retain_graph=j + 1 < len(directions))
            found.append(alpha * inner(product.double(), v.double()))
        trace = torch.stack(found)
        trace = trace if self.probes else trace.sum(0, keepdim=True)
        return w / scale**2 - denoised.detach().double() / scale, w[0].numel() / scale**2 - trace


def _integrate(field: _Field, x: Tensor, stride: int) -> Tensor:
    """log p(x) by Heun's method with every `stride`-th time of the path, by each probe, (m, n)."""
    low = field.level(0)
    w = x.double() / math.sqrt(1 + low * low)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for k in range(0, field.steps, stride):
        h = math.log(field.level(k + stride) / field.level(k))
        directions = field.directions(k)
        slope, first = field(w, k, directions)
        end, second = field(w + h * slope, k + stride, directions)
        w = w + h / 2 * (slope + end)
        total = total + h / 2 * (first + second)
    return total + _top(field, w) - field.prior.event_shape.numel() / 2 * math.log1p(low * low)


def _top(field: _Field, w: Tensor) -> Tensor:
    """log p(w) at the top of the path, (n,)."""
    s, law = field.level(field.steps), field.prior.moments
    alpha, sigma = 1 / math.sqrt(1 + s * s), s / math.sqrt(1 + s * s)
    if law is not None:
        return law.noised_log_prob(w, alpha, sigma)
    return -0.5 * (inner(w, w) + w[0].numel() * sigma**2 * math.log(2 * math.pi * sigma**2)) / sigma**2
