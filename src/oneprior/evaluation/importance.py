"""The likelihood of a latent-variable model by importance sampling: the IWAE bound.

With z ~ p(z) = N(0, I) and x = f(z) + sigma eps, the marginal p(x) = int p(x | z) p(z) dz has no closed form. Draws
z_1 .. z_k of any q(z | x) that is nowhere 0 give the weights w_i = p(x | z_i) p(z_i) / q(z_i | x), whose mean is
unbiased for p(x); by Jensen's inequality

    L_k = E log (1/k) sum_i w_i <= log p(x),    L_1 <= L_2 <= ... -> log p(x)

(Burda, Grosse, Salakhutdinov 2016, theorem 1). L_1 is the bound that a VAE is trained with. Where q is the exact
posterior every w_i is p(x), and the bound is tight from k = 1 on.

What one set of k draws says is an estimate of L_k, unbiased for L_k and on average below log p(x). Its standard error
is of first order, sqrt((1/ess - 1/k)), and the gap to log p(x) half its square, where the effective sample size
ess = (sum w)^2 / sum w^2 is well above 1; an ess near 1 says that one draw carries all the weight, that the bound is
loose, and that its error is not known.

The decoder may come as a function, or out of a prior: the package's latent-variable priors are maps of u = (z, eps),
flat, with the decoder's noise last (`GaussianDecoder.of`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.priors.base import NoisePrior

Encoder = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x -> mean and log-variance of q(z | x), (n, *latent_shape) each."""


@dataclass(frozen=True)
class GaussianDecoder:
    """p(x | z) = N(f(z), sigma^2 I), z ~ N(0, I).

    Args:
        mean: f, (n, size) -> (n, *event_shape); where conditions are bound row by row, row i takes that of i % n.
        noise_level: sigma > 0.
        size: number of latents.
    """

    mean: Callable[[Tensor], Tensor]
    noise_level: float
    size: int

    @classmethod
    def of(cls, prior: NoisePrior) -> GaussianDecoder:
        """The decoder inside a prior whose noise is u = (z, eps).

        Raises:
            IncompatiblePrior: if the last entries of u are not added to x with one deviation, as in a GAN.
        """
        shape, total = prior.event_shape, prior.noise_shape.numel()
        size = total - shape.numel()
        if len(prior.noise_shape) != 1 or size < 1:
            raise IncompatiblePrior(_no_density(prior, f"{total} numbers of noise for {shape.numel()} of x"))

        def mean(z: Tensor) -> Tensor:
            return prior.decode(torch.cat([z, z.new_zeros(len(z), shape.numel())], 1))

        rows = Rows(2, stream="decoder noise", device=prior.device)
        with torch.no_grad():
            z, eps = rows.normal(size), rows.normal(shape.numel())
            added = (prior.decode(torch.cat([z, eps], 1)) - mean(z)).flatten(1).double()
        noise_level = float((added * eps).sum() / eps.double().square().sum())
        if not noise_level > 0 or float((added - noise_level * eps).abs().max()) > 1e-2 * noise_level:
            raise IncompatiblePrior(_no_density(prior, "noise that is not simply added to x"))
        return cls(mean, noise_level, size)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z), (n, *event_shape) and (m n, size) -> (m n,), float64; rows of x are used in turn."""
        mean = self.mean(z)
        error = (mean.reshape(-1, *x.shape).double() - x.double()).flatten(2).square().sum(2).flatten()
        variance = self.noise_level**2
        return -0.5 * (error / variance + x[0].numel() * math.log(2 * math.pi * variance))


@dataclass(frozen=True)
class ImportanceBound:
    """Lower bounds of log p(x) for each event; all (n,), float64, in nats.

    Args:
        bound: the estimate of L_k.
        error: its standard error to first order; nan for k = 1.
        elbo: L_1, the mean of the log weights.
        elbo_error: standard error of `elbo`; nan for k = 1.
        effective_sample_size: of the k weights, 1 to k.
        k: number of draws.
    """

    bound: Tensor
    error: Tensor
    elbo: Tensor
    elbo_error: Tensor
    effective_sample_size: Tensor
    k: int


@torch.no_grad()
def importance_bound(
    decoder: GaussianDecoder, encode: Encoder, x: Tensor, rows: Rows, *, k: int = 100, chunk: int = 10
) -> ImportanceBound:
    """The IWAE bound with k draws of the encoder's q(z | x).

    Args:
        decoder: p(x | z).
        encode: q(z | x), a Gaussian with a diagonal covariance.
        x: events, (n, *event_shape); dequantised (`bits.dequantise`) if they are discrete.
        rows: one stream for each event; a larger k goes on where a smaller one stopped.
        k: draws of each event.
        chunk: draws that are decoded at once: memory is that of chunk * n events, whatever k is.

    Raises:
        ShapeError: where encoder, decoder and rows disagree.
        InputError: for k or chunk below 1, or events that are nan.
    """
    if len(rows) != len(x):
        raise ShapeError("rows of the draws", (len(rows),), (len(x),), "Give one row for each event.")
    if k < 1 or chunk < 1:
        raise InputError(f"the bound needs k >= 1 draws in chunks of at least 1, got {k} and {chunk}")
    if not bool(torch.isfinite(x).all()):
        raise InputError("the events hold nan or infinity; they have no likelihood")
    n = len(x)
    mean, log_variance = (v.flatten(1) for v in encode(x))
    if mean.shape != (n, decoder.size):
        raise ShapeError("latents of the encoder", mean.shape, (n, decoder.size), "Give the decoder's own encoder.")
    streams = rows.to(x.device).repeat(k)
    sums = _Sums(n, x.device)
    for first in range(0, k, chunk):
        count = min(chunk, k - first)
        eps = streams.take(slice(first * n, (first + count) * n)).normal(decoder.size, dtype=mean.dtype)
        z = mean.repeat(count, 1) + (0.5 * log_variance).exp().repeat(count, 1) * eps
        # log p(z) - log q(z | x): the constants of the two normals cancel
        ratio = 0.5 * (eps.double().square() - z.double().square()).sum(1)
        ratio = ratio + 0.5 * log_variance.double().sum(1).repeat(count)
        sums.add((decoder.log_prob(x, z) + ratio).reshape(count, n))
    return sums.finish(k)


class _Sums:
    """Running sums of w, w^2, log w and (log w)^2; those of w as logarithms."""

    def __init__(self, n: int, device: torch.device) -> None:
        zero = torch.zeros(n, dtype=torch.float64, device=device)
        self.once, self.twice = zero - math.inf, zero - math.inf
        self.mean, self.scatter, self.count = zero, zero, 0

    def add(self, log_w: Tensor) -> None:
        """(m, n) more log weights."""
        m = len(log_w)
        self.once = torch.logaddexp(self.once, log_w.logsumexp(0))
        self.twice = torch.logaddexp(self.twice, (2 * log_w).logsumexp(0))
        mean, total = log_w.mean(0), self.count + m
        apart = mean - self.mean
        self.scatter = self.scatter + (log_w - mean).square().sum(0) + apart.square() * (self.count * m / total)
        self.mean, self.count = self.mean + apart * (m / total), total

    def finish(self, k: int) -> ImportanceBound:
        ess = (2 * self.once - self.twice).exp()
        unknown = torch.full_like(ess, math.nan)
        return ImportanceBound(
            bound=self.once - math.log(k),
            error=(1 / ess - 1 / k).clamp_min(0).sqrt() if k > 1 else unknown,
            elbo=self.mean,
            elbo_error=(self.scatter / (k * (k - 1))).sqrt() if k > 1 else unknown,
            effective_sample_size=ess,
            k=k,
        )


def _no_density(prior: NoisePrior, why: str) -> str:
    return (
        f"{type(prior).__name__} over {tuple(prior.event_shape)} has no density in x ({why}): a GAN, or a decoder "
        "without its noise. Compare samples instead, or use parzen_log_likelihood"
    )
