"""BRGM as it was published: the objective, the optimiser and the variational samples of its two public programs.

Marinescu, Moyer, Golland 2021, "Bayesian Image Reconstruction using Deep Generative Models", minimises over the styles
w of W+ (one for each layer of a StyleGAN2) a weighted sum of means,

    TensorFlow:  P(f(G(w)), y) + 0.001 MSE_255 + 100 mean(((w - w_avg) / s)^2) + 3 mean_ij |1 - cos(w_i, w_j)|
    PyTorch:     1e7 P(f(G(w)), y) + 0.001 MSE_255 + 100 mean(((w - w_avg) / s)^2) + 0.1 sum_ij |1 - cos(w_i, w_j)|

(1 in place of 0.1 from super-resolution by more than 16), where f is the instrument, MSE_255 the mean squared error in
grey levels of 0 .. 255, P a perceptual distance (LPIPS there, mean squared differences of VGG features here) and s one
number, the total root mean square radius of W. TensorFlow: Adam at 0.1, a ramp up over the first twentieth and a cosine
down over the last quarter of 5,000 steps; PyTorch: Adam at a constant 0.1, 501 steps, the last iterate.

`BRGMVariational` is `vi_recon.py`: q(w) = prod N(mu, softplus(rho)^2), six samples a step (the first without noise),
the same losses, an inverse-gamma prior on half of the deviation, 501 steps. It is kept with what is wrong in it, so
that it can be compared: the entropy of q is missing (its log q has no gradient), the draws that are returned have the
deviation that q began with, and no noise level enters anywhere. Its draws mean nothing; `exact` is False.

The noise level is not read by either. P is a parameter, (a, b) -> one number a row, of pictures in [-1, 1]; without one
that term is left out, and the diagnostics say which it was. Both programs work on W+, which is what `restore` gives
them where the prior has it; W is one style for all layers, and a prior in z (no mapping network) is taken as one style
with w_avg = 0 and unit covariance. Pictures with holes are compared with the holes at one value, as both programs do.

Rows are optimised together: every term is one number a row and Adam works entry by entry, so that a batch is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from oneprior.core import DivergedError, InputError, Rows
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.measured import MeasuredLikelihood
from oneprior.operators.base import LinearOperator
from oneprior.priors.base import NoisePrior
from oneprior.priors.styles import StyleNormal

Perceptual = Callable[[Tensor, Tensor], Tensor]
Program = Literal["tensorflow", "pytorch"]

_GREY = 127.5  # grey levels of 0 .. 255 in one unit of [-1, 1]
_STEPS = {"tensorflow": 5000, "pytorch": 501}
_NEEDS = Needs(prior=NoisePrior, differentiable=True)


@dataclass(frozen=True)
class BRGM(Sampler):
    """One reconstruction for each measurement, repeated as every draw.

    Args:
        program: which of the two.
        perceptual: P; None leaves the term out.
        steps: of Adam; the program's own by default.
        colinearity: its weight; the program's own by default.
        every: steps between two states.
    """

    name: ClassVar[str] = "brgm"
    needs: ClassVar[Needs] = _NEEDS
    program: Program = "tensorflow"
    perceptual: Perceptual | None = None
    steps: int | None = None
    colinearity: float | None = None
    every: int = 50

    def __post_init__(self) -> None:
        if self.program not in _STEPS or (self.steps is not None and self.steps < 1):
            raise InputError(f"brgm has the programs tensorflow and pytorch and needs steps >= 1, got {self.program!r}")

    @classmethod
    def published(cls, program: Program = "tensorflow", perceptual: Perceptual | None = None) -> Self:
        """One of the two programs as it was published."""
        return cls(program, perceptual)

    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        task = _Task(posterior, self.program, self.perceptual, self.colinearity)
        steps = self.steps or _STEPS[self.program]
        w = task.average(posterior.n)
        if self.program == "tensorflow":  # one scalar for all entries of w - w_avg, a hundredth of the radius
            w = w + 0.01 * task.radius_of(w) * rows.to(w.device).stream("start").normal(1, 1)
        w = w.requires_grad_()
        adam = torch.optim.Adam([w], lr=0.1, betas=(0.9, 0.999))
        for step in range(steps):
            adam.param_groups[0]["lr"] = 0.1 * (_ramp(step / steps) if self.program == "tensorflow" else 1.0)
            with torch.enable_grad():
                loss = task.loss(w)
                (w.grad,) = torch.autograd.grad(loss.sum(), w)
            _check(loss, self.name, step)
            adam.step()
            if (step + 1) % self.every == 0 or step + 1 == steps:
                x = task.events(w.detach())
                yield Draws(
                    x.expand(draws, *x.shape[1:]),
                    self.name,
                    exact=False,
                    network_calls=(step + 1) * posterior.n,
                    done=(step + 1) / steps,
                    diagnostics={"loss": loss.detach(), "perceptual": task.perceptual_name},
                )


@dataclass(frozen=True)
class BRGMVariational(Sampler):
    """The variational samples of the PyTorch program, wrong in the ways that the module's docstring lists.

    Args:
        perceptual: P; None leaves the term out.
        steps: of Adam.
        samples: of q at each step, the first without noise.
    """

    name: ClassVar[str] = "brgm variational"
    needs: ClassVar[Needs] = _NEEDS
    perceptual: Perceptual | None = None
    steps: int = 501
    samples: int = 6

    @classmethod
    def published(cls, perceptual: Perceptual | None = None) -> Self:
        """As in the program."""
        return cls(perceptual)

    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        many = posterior.repeat(self.samples)
        task, one = _Task(many, "pytorch", self.perceptual, None), _Task(posterior, "pytorch", self.perceptual, None)
        n, streams = posterior.n, rows.to(one.base.device).repeat(self.samples)
        mu = one.average(n)
        start = one.deviation(mu)
        rho = torch.log(torch.expm1(start)).clone().requires_grad_()
        mu.requires_grad_()
        adam = torch.optim.Adam([mu, rho], lr=0.1)
        for step in range(self.steps):
            eps = streams.normal(*mu.shape[1:])
            eps[:n] = 0.0
            with torch.enable_grad():
                s = softplus(rho)
                w = mu.repeat(self.samples, *[1] * (mu.dim() - 1)) + eps * s.repeat(self.samples, *[1] * (mu.dim() - 1))
                fit = task.loss(w).reshape(self.samples, n).mean(0)
                half = s / 2  # inverse gamma (0.1, 0.95)
                loss = fit + (1.1 * half.log() + 0.95 / half).flatten(1).mean(1)
                mu.grad, rho.grad = torch.autograd.grad(loss.sum(), [mu, rho])
            _check(loss, self.name, step)
            adam.step()
            if (step + 1) % 50 and step + 1 < self.steps:
                continue
            with torch.no_grad():
                noise = rows.to(mu.device).stream("samples").repeat(draws).normal(*mu.shape[1:])
                noise[:n] = 0.0  # the first sample is the mean
                w = mu.repeat(draws, *[1] * (mu.dim() - 1)) + noise * start.repeat(draws, *[1] * (mu.dim() - 1))
                x = posterior.repeat(draws)
                drawn = _Task(x, "pytorch", None, None).events(w)[0].unflatten(0, (draws, n))
            yield Draws(
                drawn,
                self.name,
                exact=False,
                network_calls=(step + 1) * self.samples * n + draws * n,
                done=(step + 1) / self.steps,
                diagnostics={"loss": loss.detach(), "perceptual": task.perceptual_name},
            )


class _Task:
    """The terms of the objective, one number a row, for styles w (n, layers, latent)."""

    def __init__(
        self, posterior: Posterior, program: Program, perceptual: Perceptual | None, colinearity: float | None
    ) -> None:
        prior, likelihood = posterior.prior, posterior.likelihood
        if not isinstance(likelihood, MeasuredLikelihood):
            raise InputError(f"brgm compares a picture with a measurement, and got a {type(likelihood).__name__}")
        assert isinstance(prior, NoisePrior)
        self.posterior, self.prior, self.likelihood = posterior, prior, likelihood
        self.program, self.perceptual = program, perceptual
        size = prior.noise_shape.numel()
        plain = torch.zeros(1, size, device=prior.device), torch.eye(size, device=prior.device)[None]
        self.base = prior if isinstance(prior, StyleNormal) else StyleNormal((size,), *plain)
        self.radius = self.base.root.square().sum((1, 2)).sqrt()
        shrink = posterior.event_shape[-1] / likelihood.operator.out_shape[-1]
        strong = 1.0 if shrink > 16 and len(likelihood.operator.out_shape) > 1 else 0.1
        own = 3.0 if program == "tensorflow" else strong
        self.weight = own if colinearity is None else colinearity
        self.target = self._picture(likelihood.y)  # one tensor for all steps: a perceptual network sees it once

    @property
    def perceptual_name(self) -> str:
        """What stands for P."""
        return "none" if self.perceptual is None else getattr(self.perceptual, "name", "given")

    def average(self, n: int) -> Tensor:
        """w_avg of each row and layer, (n, layers, latent)."""
        return self.base.decode(torch.zeros(n, *self.base.noise_shape, device=self.base.device))

    def radius_of(self, w: Tensor) -> Tensor:
        """s of each row, under its own condition, (n, 1, 1)."""
        return self.radius[self.base.row(w)].reshape(-1, 1, 1)

    def deviation(self, w: Tensor) -> Tensor:
        """Standard deviation of each entry of w under the prior, shaped as w."""
        return self.base.root.square().sum(1).sqrt()[self.base.row(w)].unsqueeze(1).expand_as(w).clone()

    def events(self, w: Tensor) -> Tensor:
        """G(w) as one draw, (1, n, *event_shape)."""
        with torch.no_grad():
            return self.posterior.events(self._decoded(w)[None])

    def loss(self, w: Tensor) -> Tensor:
        """The objective of each row, (n,)."""
        seen, target = self._picture(self.likelihood.predict(self._decoded(w))), self.target
        total = 0.001 * _GREY**2 * (seen - target).square().flatten(1).mean(1)
        if self.perceptual is not None:
            total = total + (1.0 if self.program == "tensorflow" else 1e7) * self.perceptual(seen, target)
        far = (w - self.base.mean[self.base.row(w)].unsqueeze(1)) / self.radius_of(w)
        total = total + 100 * far.square().flatten(1).mean(1)
        unit = w / w.norm(dim=2, keepdim=True).clamp_min(1e-8)
        apart = (1 - unit @ unit.transpose(1, 2)).abs().flatten(1)
        return total + self.weight * (apart.mean(1) if self.program == "tensorflow" else apart.sum(1))

    def _decoded(self, w: Tensor) -> Tensor:
        """What the prior makes of styles: themselves where it is one of styles, else the event of this noise."""
        return w if self.prior is self.base else self.prior.decode(w.reshape(-1, *self.prior.noise_shape))

    def _picture(self, y: Tensor) -> Tensor:
        """A measurement as a picture: itself, or put back where it was taken, with one value in the holes."""
        operator = self.likelihood.operator
        if len(operator.out_shape) == len(operator.in_shape) or not isinstance(operator, LinearOperator):
            return y
        return operator.adjoint(y)


def _ramp(t: float) -> float:
    """Up over the first twentieth, down by a cosine over the last quarter."""
    down = min(1.0, (1.0 - t) / 0.25)
    return (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, t / 0.05)


def _check(loss: Tensor, name: str, step: int) -> None:
    if not bool(torch.isfinite(loss).all()):
        bad = (~torch.isfinite(loss)).nonzero().flatten().tolist()
        raise DivergedError(f"{name}: the objective of rows {bad} is not finite at step {step}")
