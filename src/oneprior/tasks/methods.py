"""Which method restores: a table over (what the prior is, what the evidence is, what the user wants).

| peeled prior | evidence | fast | best, calibrated |
|---|---|---|---|
| Gaussian, mixture, or a denoiser made of one | linear, Gaussian noise | closed form | closed form |
| denoiser that knows its data's Gaussian | linear, Gaussian noise | daps, 10 calls a draw | daps, 25; 50 calls a draw |
| denoiser that does not | linear, Gaussian noise | moment matching, 10 steps | the same, 25; 50 steps |
| denoiser | nonlinear, or behind a decoder | hmc on 8 steps of its ODE | the same, on 16 |
| map of Gaussian noise | differentiable, with noise | hmc, short | hmc |
| map of Gaussian noise | not differentiable, with noise | elliptical slice, short | elliptical slice |
| anything else (codes on a grid) | with noise | resampling | resampling, more candidates |

No method is tuned to a task: the noise level does the work.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

from oneprior.core import IncompatiblePrior, InputError
from oneprior.inference import (
    DAPS,
    HMC,
    MMPS,
    ClosedForm,
    EllipticalSlice,
    Guided,
    JacobianCovariance,
    Posterior,
    Resampling,
    Sampler,
)
from oneprior.likelihoods import GaussianLikelihood
from oneprior.priors.base import NoisePrior
from oneprior.priors.diffusion.samplers import DPMSolver
from oneprior.priors.diffusion.schedule import DenoisingPrior

Aim = Literal["fast", "best", "calibrated"]

METHODS: dict[str, Sampler] = {
    "closed-form": ClosedForm(),
    "daps": DAPS(),
    "moment-matching": Guided(),
    "hmc": HMC(),
    "elliptical-slice": EllipticalSlice(),
    "resampling": Resampling(),
}


def choose(posterior: Posterior, aim: Aim = "best", method: str | Sampler | None = None) -> tuple[Posterior, Sampler]:
    """The method of the table, and the posterior in the form that it takes.

    Args:
        posterior: what is to be drawn from.
        aim: "fast", "best" or "calibrated".
        method: a name in `METHODS` or a sampler, in place of the table.

    Raises:
        InputError: for an unknown aim or method.
        IncompatiblePrior: where the method cannot serve the posterior, or none can.
    """
    if aim not in get_args(Aim):
        raise InputError(f"aim is fast, best or calibrated, got {aim!r}")
    if isinstance(method, str):
        if method not in METHODS:
            raise InputError(f"no method is called {method!r}; there is {', '.join(METHODS)}")
        method = METHODS[method]
    if method is None:
        method = _from_table(posterior, aim)
    if NoisePrior in _kinds(method) and isinstance(posterior.prior, DenoisingPrior):
        posterior = replace(posterior, prior=posterior.prior.flow(8 if aim == "fast" else 16))
    method.check(posterior)
    return posterior, method


def _kinds(method: Sampler) -> tuple[type, ...]:
    return method.needs.prior if isinstance(method.needs.prior, tuple) else (method.needs.prior,)


def _from_table(posterior: Posterior, aim: Aim) -> Sampler:
    prior, likelihood = posterior.prior, posterior.likelihood
    linear = isinstance(likelihood, GaussianLikelihood) and likelihood.linear
    if linear and isinstance(prior, ClosedForm.needs.prior):
        return ClosedForm()
    if linear and isinstance(prior, DenoisingPrior):
        steps = {"fast": 10, "best": 25, "calibrated": 50}[aim]
        if prior.moments is not None:
            return DAPS(steps=steps)
        return Guided(MMPS(JacobianCovariance()), DPMSolver(steps=steps))
    if isinstance(prior, NoisePrior | DenoisingPrior):
        if likelihood.differentiable:
            return HMC(warmup=60, leapfrog=6) if aim == "fast" else HMC()
        return EllipticalSlice(warmup=100, thin=5) if aim == "fast" else EllipticalSlice()
    method = Resampling(candidates=256 if aim == "fast" else 4096)
    try:
        method.check(posterior)
    except IncompatiblePrior as error:
        raise IncompatiblePrior(f"no method restores a {type(prior).__name__} under this evidence: {error}") from None
    return method
