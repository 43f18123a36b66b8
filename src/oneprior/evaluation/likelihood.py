"""The likelihood of events under any prior that has one, with what kind of number it is.

| kind | prior | what is computed |
|---|---|---|
| "exact" | `DensityPrior`: a Gaussian, a mixture | log p(x) in closed form |
| "ode estimate" | `DenoisingPrior`: a diffusion or flow | the learned denoiser's ODE, `flow_likelihood` |
| "lower bound" | `NoisePrior` with the decoder's noise in u: a VAE, with its encoder | the IWAE bound, `importance` |
| "codes" | `TokenPrior`, or a decoder of one: a VQ-VAE | log P(codes), exact |

Numbers of different kinds do not rank priors without care: a bound lies below, and a likelihood of codes is not one of
pixels at all. The codes' probability says nothing of what the decoder loses, so that a coarser codec always needs fewer
bits. For pixels there is none: x = f(codes) takes finitely many values, and a real event has probability 0 under it.

A GAN, a decoder without its noise and a latent diffusion lie on a surface of lower dimension, and have no density.
There the Parzen window remains (`parzen`), with all that is said against it, or the likelihood of the latents under
`prior.base`.

High likelihood and good samples are nearly independent (Theis, van den Oord, Bethge 2016, section 3): read both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from oneprior.core import AffineMap, IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.evaluation.bits import Bits, bits_per_dimension, dequantise
from oneprior.evaluation.flow_likelihood import flow_log_prob
from oneprior.evaluation.importance import GaussianDecoder, importance_bound
from oneprior.priors.base import DensityPrior, NoisePrior, Prior, TokenPrior
from oneprior.priors.diffusion.ode import OdePrior
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.pushforward import Pushforward

Kind = Literal["exact", "lower bound", "ode estimate", "codes"]


@dataclass(frozen=True)
class Likelihood:
    """What a prior says of a set of events. Sets of one prior are joined by `+`.

    Args:
        kind: what kind of number it is; see the module.
        log_prob: nats of each event, (n,), float64.
        error_of_estimate: standard error of each `log_prob` as an estimate, (n,); 0 where it is exact.
        bits: per dimension, each event; of "codes", bits of code per number of the decoded event (per code where
            there is no decoder).
        note: what must be said beside the number.
    """

    kind: Kind
    log_prob: Tensor
    error_of_estimate: Tensor
    bits: Bits
    note: str

    def __add__(self, other: Likelihood) -> Likelihood:
        if (self.kind, self.note) != (other.kind, other.note):
            raise InputError("likelihoods of different kinds or settings cannot be joined; score all events alike")
        return Likelihood(
            self.kind,
            torch.cat([self.log_prob, other.log_prob]),
            torch.cat([self.error_of_estimate, other.error_of_estimate]),
            Bits.of(torch.cat([self.bits.each, other.bits.each])),
            self.note,
        )


def likelihood_of(
    prior: Prior,
    x: Tensor,
    rows: Rows,
    *,
    encode: Callable[[Tensor], Any] | None = None,
    levels: int | AffineMap | None = None,
    k: int = 100,
    steps: int = 64,
    probes: int = 4,
) -> Likelihood:
    """Log-likelihood of events and bits per dimension, by what the prior can do.

    Args:
        prior: see the module's table.
        x: events in [-1, 1], (n, *event_shape); of a token prior also codes, int64 (n, *grid).
        rows: one stream for each event: dequantisation, draws and probes.
        encode: of a VAE, x -> mean and log-variance of q(z | x), with the prior's conditions bound (`vae.encode`);
            of a token prior, x -> codes (`vqvae.codes`).
        levels: of discrete data, which are then dequantised: how many values, or the map to units in which they are
            whole numbers; None for continuous data. Codes have no use for it.
        k: draws of the importance bound.
        steps: of the ODE.
        probes: of the ODE's trace; 0 for the exact trace.

    Raises:
        IncompatiblePrior: for a prior without a density, or a missing encoder.
        ShapeError: for events of another shape.
    """
    tokens = prior.base if isinstance(prior, Pushforward) else prior
    if isinstance(tokens, TokenPrior):
        return _of_codes(prior, tokens, x, encode)
    if x.shape[1:] != prior.event_shape:
        raise ShapeError("events to score", x.shape, ("n", *prior.event_shape))
    law = prior.base if isinstance(prior, OdePrior) else prior
    seen = x if levels is None else dequantise(x, rows, levels)
    if isinstance(law, DensityPrior):
        kind, how = "exact", "exact"
        with torch.no_grad():
            found = law.log_prob(seen).double()
        error = torch.zeros_like(found)
    elif isinstance(law, DenoisingPrior):
        flow = flow_log_prob(law, seen, rows.stream("flow"), steps=steps, probes=probes)
        found, error = flow.log_prob, torch.hypot(flow.trace_error, flow.integrator_error)
        kind, trace = "ode estimate", f"{probes} probes" if probes else "exact trace"
        how = (
            f"of the learned denoiser's probability-flow ODE ({steps} steps, {trace}), "
            f"for x with noise of {flow.noise_level:.2g}"
        )
    elif isinstance(law, NoisePrior):
        decoder = GaussianDecoder.of(law)
        if encode is None:
            raise IncompatiblePrior(
                "the likelihood of a latent-variable prior is bounded with its encoder: give encode=vae.encode "
                "(with the condition bound, where there is one)"
            )
        bound = importance_bound(decoder, encode, seen, rows.stream("importance"), k=k)
        found, error = bound.bound, bound.error
        kind, how = "lower bound", f"a lower bound by {k} draws of the encoder (IWAE)"
    else:
        raise IncompatiblePrior(
            f"{type(prior).__name__} has no density in x. Score the latents with likelihood_of(prior.base, encode(x)), "
            "compare samples, or use parzen_log_likelihood"
        )
    note = f"{how}; {_CONTINUOUS if levels is None else _DISCRETE}"
    return Likelihood(kind, found, error, bits_per_dimension(found, prior.event_shape, levels), note)


_DISCRETE = (
    "at events dequantised by uniform noise: on average a lower bound on the log-likelihood of the discrete data, "
    "and the bits an upper bound"
)
_CONTINUOUS = (
    "a density of continuous x in [-1, 1]: its bits may be negative, and do not compare with those of discrete data"
)


def _of_codes(prior: Prior, tokens: TokenPrior, x: Tensor, encode: Callable[[Tensor], Any] | None) -> Likelihood:
    """log P(codes); of events by the encoder."""
    codes = x
    if x.is_floating_point():
        if encode is None:
            raise IncompatiblePrior(
                "a token prior scores codes: give them (int64), or the encoder that makes them, encode=vqvae.codes"
            )
        codes = encode(x)
    if codes.is_floating_point() or codes.shape[1:] != tokens.grid:
        raise ShapeError("codes to score", f"{tuple(codes.shape)} {codes.dtype}", f"(n, {tuple(tokens.grid)}) int64")
    with torch.no_grad():
        found = tokens.log_prob(codes).double()
    decoded = isinstance(prior, Pushforward)
    shape = prior.event_shape if decoded else tokens.grid
    said = (
        f"the exact likelihood of {tokens.grid.numel()} codes of {tokens.vocabulary}, not of pixels: what the codec "
        f"loses is not in it. Bits are counted {'per number of the decoded event' if decoded else 'per code'}"
    )
    return Likelihood("codes", found, torch.zeros_like(found), bits_per_dimension(found, shape, None), said)
