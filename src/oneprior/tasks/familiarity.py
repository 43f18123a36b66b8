"""Does a measurement look like one of the events that a prior has seen? Asked before anything is restored.

A posterior explains any measurement as well as it can, and a restoration of something foreign can look like a confident
picture of something known. With x ~ N(mean, S), the Gaussian of the data (`training.moments`), the innovation
r = y - A mean has covariance M = A S A' + sigma^2 I, and in the eigenvectors of A S A' (eigenvalues l_i)

    T = sum_i w_i r_i^2 / (l_i + sigma^2) / sum_i w_i,    w_i = l_i / (l_i + sigma^2),

is the squared Mahalanobis distance of y in the directions in which the data are seen above the noise, about 1 for an
average event. Natural images have heavy tails, and T differs between them: for held-out Fashion-MNIST under four
instruments its 99th percentile lies at 2.6 to 3.4. Nothing of the data is kept but mean and covariance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.linear_gaussian import Instrument

FOREIGN = 4.0
"""T above which an event is called foreign: about one familiar event in a thousand."""
DRAWING = ("moment matching", "daps", "latent daps")
"""Approximate methods of which a draw fits its measurement as well as the truth does; of others it may fit better."""
REMEDY = "another kind of image, a misaligned one, or another operator or noise level than was said"
"""What a doubt without a better explanation comes from."""
_PROBES = 16


def strangeness(law: LowRankGaussian, likelihood: Likelihood) -> Tensor | None:
    """T of each row, (n,); None where the instrument is not linear, or the noise not Gaussian of one level.

    Args:
        law: the Gaussian of the data, in the same units as the likelihood's x.
        likelihood: the evidence.
    """
    if not isinstance(likelihood, GaussianLikelihood) or not likelihood.linear or likelihood.noise_level.dim() > 1:
        return None
    double = torch.complex128 if likelihood.y.is_complex() else torch.float64
    law, y = law.to(torch.float64), likelihood.y.to(double)
    instrument = Instrument(law.basis, likelihood.linear_operator, y)
    noise = likelihood.noise_level.double().square()
    innovation = instrument.innovation(law.variances, law.noise_variance, noise)
    row = torch.arange(len(y), device=y.device)
    r = instrument.vector(y) - instrument.forward(law.mean.flatten()[None])
    sigma = noise.expand(len(y))
    solved = innovation.solve(r, row)
    energy = (r * solved).sum(1) - sigma * solved.square().sum(1)
    signs = Rows(_PROBES, seed=0, stream="probes").uniform(instrument.size, dtype=torch.float64).sub(0.5).sign().to(r)
    levels, level = torch.unique(sigma, return_inverse=True)  # the trace of I - sigma^2 M^-1 (Hutchinson 1990)
    first = torch.stack([(level == k).nonzero()[0, 0] for k in range(len(levels))])
    traces = torch.stack([(signs * innovation.solve(signs, k.expand(_PROBES))).sum(1).mean() for k in first])
    seen = (instrument.size - levels * traces).clamp_min(1.0)
    return (energy / seen[level]).float()


def most_misfit(numbers: int) -> float:
    """The misfit of a posterior mean beyond which a restoration does not explain its measurement.

    The misfit of the truth is 1 with deviation 1 / sqrt(2 m) over m numbers, that of the mean below it; 1.4 leaves room
    for methods that are not exact, 2 / sqrt(m) for chance where there are few numbers (nearly three deviations).
    """
    return 1.4 + 2 / numbers**0.5


def least_misfit(numbers: int, *, clipped: bool) -> float:
    """The misfit of a draw below which the noise was hardly as large as stated.

    It has the law of sqrt(chi^2_m / m) over m numbers where prior and noise are right; its quantile of 1 in 1,000 is
    that of Wilson and Hilferty (1931), and no more than 0.6 is asked, since no prior is right. Noise that was clipped
    at black and white is smaller than it was made, down to 0.7 of it at half the range: three quarters then.

    Digits of 8 x 8 (297 held out; a Gaussian and ten; `identity`, `mask:left`, `downsample:2`; 1 to 50 % noise, clipped
    or not): of right levels at most 0.7 % are called too large; of levels 8 times too large 99 % are where the true one
    is 10 % and more, 75 % of the clipped; a half to nine tenths at 5 %, a tenth to four tenths of the clipped; hardly
    any at 1 %, where the prior itself is coarser than the noise.

    Args:
        numbers: m, in a measurement.
        clipped: whether many of them lie at the ends of the range of values.
    """
    spread = 2 / (9 * numbers)
    quantile = max(0.0, 1 - spread - 3.1 * spread**0.5) ** 1.5
    return min(0.6, quantile) * (0.75 if clipped else 1.0)


def quiet(misfit: float, numbers: int, *, clipped: bool) -> str:
    """That the noise is said to be larger than it seems, or nothing; the arguments as of `least_misfit`.

    Args:
        misfit: of a draw of the posterior.
    """
    if misfit < least_misfit(numbers, clipped=clipped):
        return (
            f"the measurement is nearer to the restoration than noise of this level would leave it ({misfit:.2f} of "
            "its deviation, and about 1 is expected): perhaps the stated noise is too large"
        )
    return ""


def doubt(misfit: float, distance: float, instead: str, numbers: int) -> str:
    """Why a restoration is not to be trusted, or nothing.

    Args:
        misfit: of the posterior mean, see `Measurement.misfit`.
        distance: T, see `strangeness`.
        instead: what explains the measurement better, see `tasks.explanations`, or nothing.
        numbers: m, in a measurement.
    """
    if instead:
        return instead
    if not misfit <= most_misfit(numbers):
        return f"the measurement lies {misfit:.1f} noise deviations from what the restoration predicts: {REMEDY}"
    if not distance <= FOREIGN:
        return f"the measurement is {distance:.1f} times as far from the training data as they are: {REMEDY}"
    return ""
