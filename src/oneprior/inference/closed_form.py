"""The exact posterior of Gaussians and mixtures under a linear measurement: no iteration, no approximation.

Draws are exact and independent; mean, standard deviation and evidence are the formulas, not averages of draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.base import Prior, StandardNormal
from oneprior.priors.exact import ExactPosterior, GaussianPosterior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior

_MOST = 4096  # entries up to which the standard deviation is computed, rather than taken from the draws


def exact_posterior(prior: Prior, likelihood: GaussianLikelihood) -> ExactPosterior:
    """p(x | y) in closed form.

    Raises:
        IncompatiblePrior: where the prior is no Gaussian or mixture of them, or the operator is not linear.
    """
    if isinstance(prior, ClosedFormDenoiser):
        prior = prior.law
    if isinstance(prior, StandardNormal):
        prior = LowRankGaussian.standard(prior.event_shape, likelihood.y.real)
    if isinstance(prior, LowRankGaussian):
        return GaussianPosterior(prior, likelihood)
    if isinstance(prior, GaussianMixturePrior):
        return prior.posterior(likelihood)
    raise IncompatiblePrior(f"{type(prior).__name__} has no closed-form posterior; use a sampler")


@dataclass(frozen=True)
class ClosedForm(Sampler):
    """Exact draws, mean, deviation and evidence.

    Args:
        deviation: whether to compute the standard deviation; for events of more than 4096 entries, and behind a
            decoder, it is that of the draws.
    """

    name: ClassVar[str] = "closed form"
    needs: ClassVar[Needs] = Needs(
        prior=(LowRankGaussian, GaussianMixturePrior, ClosedFormDenoiser, StandardNormal), gaussian=True, linear=True
    )
    deviation: bool = True

    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        likelihood = posterior.likelihood
        assert isinstance(likelihood, GaussianLikelihood)
        exact = exact_posterior(posterior.prior, likelihood)
        computed = self.deviation and not posterior.decoders and exact.event_shape.numel() <= _MOST
        yield Draws(
            posterior.events(exact.sample(rows.to(likelihood.y.device), draws)),
            self.name,
            exact=True,
            diagnostics={"log_evidence": exact.log_evidence} if exact.has_evidence else {},
            centre=posterior.decode(exact.mean()) if posterior.affine else None,
            spread=exact.covariance_diag().sqrt() if computed else None,
        )
