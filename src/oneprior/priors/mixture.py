"""Mixtures of low-rank Gaussians: a law with modes, and still with everything in closed form.

    p(x) = sum_k w_k N(x; mean_k, S_k),    S_k = B_k diag(v_k) B_k' + s_k I   (Tipping and Bishop 1999, section 4)

Its density, its draws, E[x | x_t] at any noise level and its posterior under any linear Gaussian measurement are exact:
so it is the hard baseline of every restoration, and the reference that samplers and denoisers are tested against.
A class condition is a choice of weights: the components of the other classes get weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError, per_row
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.base import DensityPrior
from oneprior.priors.diffusion.schedule import DenoisingPrior, Schedule
from oneprior.priors.exact import ExactPosterior, GaussianPosterior, MixturePosterior
from oneprior.priors.gaussian import LowRankGaussian


class GaussianMixturePrior(DensityPrior):
    """sum_k w_k N(mean_k, S_k).

    Args:
        components: at least one, all over the same events.
        weights: w, (K,), or one set for each row (n, K) where conditions are bound: row i uses weights[i % n].
            Any scale; 0 removes a component.

    Raises:
        ShapeError: where the weights do not fit the components, or the components' events differ.
        InputError: for negative weights, or a row of zeros.
    """

    def __init__(self, components: Sequence[LowRankGaussian], weights: Tensor) -> None:
        if not components or weights.dim() not in (1, 2) or weights.shape[-1] != len(components):
            raise ShapeError("weights of a mixture", tuple(weights.shape), f"({len(components)},)")
        if len({c.event_shape for c in components}) > 1:
            raise ShapeError("components of a mixture", "different events", "the same event_shape")
        if not bool((weights >= 0).all()) or not bool((weights.sum(-1) > 0).all()):
            raise InputError("the weights of a mixture are >= 0 and not all 0")
        self.components = tuple(components)
        self.event_shape = components[0].event_shape
        self.weights = weights / weights.sum(-1, keepdim=True)

    @property
    def device(self) -> torch.device:
        return self.components[0].device

    def log_weights(self, n: int) -> Tensor:
        """log w for n rows, (n, K), float64."""
        rows = self.weights if self.weights.dim() == 2 else self.weights[None]
        return rows[torch.arange(n, device=rows.device) % len(rows)].double().log()

    def moments(self) -> LowRankGaussian:
        """The Gaussian with the mixture's mean and covariance; of weights for each row, with those of their mean.

        Cov = sum w_k S_k + sum w_k (m_k - m)(m_k - m)'; the part that is no multiple of I is kept whole.
        """
        weights = (self.weights if self.weights.dim() == 1 else self.weights.mean(0)).double()
        means = torch.stack([c.mean.flatten() for c in self.components]).double()
        mean = weights @ means
        factors = [
            w.sqrt() * torch.cat([c.basis.double() * c.variances.double().sqrt(), (m - mean)[:, None]], 1)
            for w, c, m in zip(weights, self.components, means, strict=True)
        ]
        noise = sum(w * c.noise_variance.double() for w, c in zip(weights, self.components, strict=True))
        basis, singular, _ = torch.linalg.svd(torch.cat(factors, 1), full_matrices=False)
        keep = singular > 1e-6 * singular[:1].sum()
        law = LowRankGaussian(mean.reshape(self.event_shape), basis[:, keep], singular[keep].square(), noise)
        return law.to(self.components[0].mean.dtype)

    def sample(self, rows: Rows) -> Tensor:
        rows = rows.to(self.device)
        choice = rows.stream("component").categorical(self.log_weights(len(rows)))
        x = torch.empty(len(rows), *self.event_shape, device=self.device, dtype=self.components[0].mean.dtype)
        for k, component in enumerate(self.components):
            (place,) = (choice == k).nonzero(as_tuple=True)
            if place.numel():
                x[place] = component.sample(rows.take(place))
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        return self.joint(x, 1.0, 0.0).logsumexp(1).to(x.dtype)

    def responsibilities(self, x_t: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0) -> Tensor:
        """p(component | x_t) for x_t = alpha x + sigma noise, (n, K), float64."""
        return self.joint(x_t, alpha, sigma).softmax(1)

    def denoise(self, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """E[x | x_t], exactly; alpha and sigma () or (n,); (n, *event_shape) -> (n, *event_shape)."""
        shares = self.responsibilities(x_t, alpha, sigma).to(x_t).unbind(1)
        total = torch.zeros_like(x_t)
        for component, share in zip(self.components, shares, strict=True):
            total = total + per_row(share, x_t) * component.denoise(x_t, alpha, sigma)
        return total

    def posterior(self, likelihood: GaussianLikelihood) -> ExactPosterior:
        """p(x | y), exactly, for a linear operator and Gaussian noise.

        Raises:
            IncompatiblePrior: for a nonlinear operator.
        """
        return MixturePosterior(
            [GaussianPosterior(component, likelihood) for component in self.components],
            self.log_weights(likelihood.rows),
        )

    def joint(self, x_t: Tensor, alpha: Tensor | float = 1.0, sigma: Tensor | float = 0.0) -> Tensor:
        """log w_k + log p(x_t | k) for x_t = alpha x + sigma noise, (n, K), float64."""
        x_t = x_t.double()
        densities = [component.noised_log_prob(x_t, alpha, sigma) for component in self.components]
        return torch.stack(densities, dim=1) + self.log_weights(len(x_t))


class ClosedFormDenoiser(DenoisingPrior, DensityPrior):
    """A Gaussian or a mixture as a `DenoisingPrior`: the denoiser that a perfect network would be.

    Args:
        law: the law of x.
        schedule: the noising process.
        moments: a Gaussian for guidance to take covariances from; the law itself where it is one.
    """

    def __init__(
        self,
        law: LowRankGaussian | GaussianMixturePrior,
        schedule: Schedule,
        moments: LowRankGaussian | None = None,
    ) -> None:
        self.law, self.schedule, self.event_shape = law, schedule, law.event_shape
        self.moments = law if moments is None and isinstance(law, LowRankGaussian) else moments

    @property
    def device(self) -> torch.device:
        return self.law.device

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.law.denoise(x_t, self.schedule.alpha(t), self.schedule.sigma(t))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.law.log_prob(x)
