"""p(x0 | x_t, y) where the measurement is not linear, or its noise not Gaussian: drawn by randomise, then optimise.

Between a noisy event and a measurement behind a network (the decoder of a latent diffusion), a nonlinear instrument or
another noise than Gaussian, what is believed of the clean event is still

    p(x0 | x_t, y) ~ N(x0; D, C) L(x0),      x0 = D + C^(1/2) v,   v ~ N(0, I) a priori,

with D = E[x0 | x_t] and C from the data's low-rank Gaussian, or isotropic. For Gaussian noise that is a nonlinear
least-squares problem in v, and a draw is the solution of a randomised one (Bardsley, Solonen, Haario, Laine 2014),

    v = argmin |v - e|^2 / 2 + |(y + sigma e' - h(D + C^(1/2) v)) / sigma|^2 / 2,      e, e' ~ N(0, I),

with h what predicts y. It is exact where h is affine, and elsewhere leaves out a determinant that is nearly constant
where h is nearly affine over the spread of the belief, which shrinks as the noise level falls. The solution comes by
Gauss-Newton steps from the last level's draw, each one evaluation of h and a few steps of conjugate gradients on the
row's own I + K'K, K = dh / dv / sigma, by products with a kept graph. These are preconditioned, for events of up to
`DENSE` entries, by a curvature that is measured once: with J the Jacobian of h at draws of the data's Gaussian,

    G = E[J' J]  (from random products J' xi),      H = I + C^(1/2) G C^(1/2) / sigma^2,

shared by all rows and levels. A row that a step made worse goes back half the way. Behind a decoder the residual is
computed in single precision and K in bf16, where the device multiplies that natively (measured: 2.4 times the speed;
K is off by some thousandths, which the step from the last level's draw multiplies, not the draw).

Noise that is Gaussian once its scale is known (Laplace, outliers, an unknown sigma) is served by Gibbs sampling, the
scale drawn at each level given the last x0. Any other law of y given h is replaced, at each step, by the Gaussian with
its slope g and curvature w at the present h: a measurement h + g / w of deviation w^(-1/2), entry by entry. There the
draws are those of a moving Laplace approximation: exact for many counts, not for few.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows, in_bf16, native_bf16, per_row, still_weights
from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.measured import MeasuredLikelihood, numbers, numbers_of_level
from oneprior.likelihoods.scale_mixture import ScaleMixture
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.gaussian import LowRankGaussian, Spectral

LEAST = 1e-3
"""The noise that stands for none: a thousandth of half the value range."""

DENSE = 1024
"""Entries of an event up to which curvature is measured once."""

AT_ONCE = 1 << 21
"""Numbers of what is measured, over all rows, of which graphs are kept at the same time: about a gigabyte."""


class SampledBeliefs:
    """Draws of p(x0 | x_t, y) for the rows of one likelihood, in order.

    Args:
        prior: the denoiser.
        likelihood: any that says what it predicts.
        moments: the Gaussian behind C; those of the prior by default, and N(0, I) where there are none.
        newton: Gauss-Newton steps of a draw, each an evaluation of the likelihood.
        products: steps of conjugate gradients in each.
        problems: rows of the measurement, which the draws of the likelihood repeat; where it is told, the rows of large
            events are worked on in pieces of whole draws.

    Raises:
        IncompatiblePrior: for evidence that is no measurement with noise.
    """

    def __init__(
        self,
        prior: DenoisingPrior,
        likelihood: Likelihood,
        moments: LowRankGaussian | None = None,
        newton: int = 1,
        products: int = 4,
        problems: int = 0,
    ) -> None:
        if not isinstance(likelihood, GaussianLikelihood | MeasuredLikelihood):
            raise IncompatiblePrior(
                f"draws around a denoised event need a measurement with noise, and got a {type(likelihood).__name__}: "
                "use hmc on the diffusion's ODE"
            )
        self.prior, self.newton, self.products = prior, newton, products
        self.likelihood: MeasuredLikelihood = likelihood
        plain = torch.zeros(prior.event_shape, device=prior.device)
        self.moments = moments or prior.moments or LowRankGaussian.standard(prior.event_shape, plain)
        self.looked, size = 0, likelihood.operator.in_shape.numel()
        self.piece = problems * max(1, AT_ONCE // (problems * size)) if problems else likelihood.rows
        dense = prior.event_shape.numel() <= DENSE
        self.curvature = _mean_curvature(self.likelihood, self.moments) if dense else None

    def draw(self, x_t: Tensor, t: Tensor, rows: Rows, last: Tensor | None = None) -> Tensor:
        """x0 ~ p(x0 | x_t, y), (n, *event_shape).

        Args:
            x_t: (n, *event_shape).
            t: ().
            rows: n of them.
            last: the draw of the level before, given which the noise's scale is drawn.
        """
        schedule = self.prior.schedule
        centre = self.prior.denoise(x_t, t)
        root = self.moments.posterior_covariance(schedule.alpha(t), schedule.sigma(t)).power(0.5)
        e = rows.normal(*self.prior.event_shape).to(x_t)
        shake = rows.normal(_reals(self.likelihood)).to(x_t)
        likelihood = self._gaussian(centre if last is None else last, rows)
        start = torch.zeros_like(e) if last is None else root.power(-1)(last - centre)
        self.looked += self.newton
        parts = torch.arange(len(e), device=e.device).split(max(1, self.piece))
        if len(parts) == 1:
            return centre + root(self._newton(likelihood, centre, root, start, e, shake))
        pieces = [self._newton(likelihood.take(k), centre[k], root, start[k], e[k], shake[k]) for k in parts]
        return centre + root(torch.cat(pieces))

    def _newton(
        self, likelihood: MeasuredLikelihood, centre: Tensor, root: Spectral, v: Tensor, e: Tensor, shake: Tensor
    ) -> Tensor:
        """v by Gauss-Newton steps from a first guess; a row that a step made worse goes back half the way."""
        best, shared = v, None if self.curvature is None else _Shared(self.curvature, root)
        least = torch.full((len(v),), torch.inf, device=v.device)
        for _ in range(self.newton):
            point = _Linearised(likelihood, centre, root, v, shake, shared)
            value = 0.5 * (v - e).flatten(1).square().sum(1) + 0.5 * point.residual.square().sum(1)
            worse = per_row((value > least).to(v), v).bool()
            step = point.step(e - v, self.products)
            v, best = torch.where(worse, 0.5 * (v + best), v + step), torch.where(worse, best, v)
            least = torch.minimum(value, least)
        return v

    def _gaussian(self, x: Tensor, rows: Rows) -> MeasuredLikelihood:
        """The likelihood, with the scale of its noise drawn given x where it has one."""
        if not isinstance(self.likelihood, ScaleMixture):
            return self.likelihood
        self.looked += 1
        return self.likelihood.given(self.likelihood.draw_scale(x, rows))


def _mean_curvature(likelihood: MeasuredLikelihood, moments: LowRankGaussian) -> Tensor:
    """G = E[J' J] of what is predicted at draws of the data's Gaussian, (d, d); the same for any rows."""
    d = moments.size
    total = moments.basis.new_zeros(d, d)
    probes = Rows(2 * d + 64, seed=0, stream="curvature", device=moments.device)
    for start in range(0, len(probes), 256):
        rows = probes.take(slice(start, start + 256))
        with torch.enable_grad():
            x = moments.sample(rows).requires_grad_()
            clean = numbers(likelihood.predict(x))
            (back,) = torch.autograd.grad(clean, x, rows.stream("direction").normal(clean.shape[1]).to(clean))
        total += back.flatten(1).T @ back.flatten(1)
    return total / len(probes)


class _Linearised:
    """(y + sigma e' - h(D + R v)) / sigma around one v, with its graph kept.

    Args:
        likelihood: of the rows.
        centre: D.
        root: R.
        v: where.
        shake: e', (n, m reals).
        shared: what conjugate gradients are preconditioned with.

    Attributes:
        residual: (n, m).
        weight: 1 / sigma, broadcastable to it.
    """

    def __init__(
        self,
        likelihood: MeasuredLikelihood,
        centre: Tensor,
        root: Spectral,
        v: Tensor,
        shake: Tensor,
        shared: _Shared | None,
    ) -> None:
        with torch.enable_grad(), still_weights():
            self.point = v.detach().requires_grad_()
            rough = _rough(likelihood)
            clean = rough.predict(centre + root(self.point))
            seen = clean.detach() if rough is likelihood else _seen(likelihood, centre + root(v))
            gap, self.weight = _local(likelihood, seen)
            self.scaled = numbers(clean) * self.weight
            self.probe = torch.zeros_like(self.scaled, requires_grad=True)
            (self.pulled,) = torch.autograd.grad(self.scaled, self.point, self.probe, create_graph=True)
        self.residual, self.shared = gap * self.weight + shake, shared

    def back(self, r: Tensor) -> Tensor:
        """K' r; (n, m) -> (n, *event_shape)."""
        return torch.autograd.grad(self.scaled, self.point, r, retain_graph=True)[0]

    def ahead(self, w: Tensor) -> Tensor:
        """K w, as the gradient of a gradient; (n, *event_shape) -> (n, m)."""
        return torch.autograd.grad(self.pulled, self.probe, w, retain_graph=True)[0]

    def step(self, pull: Tensor, products: int) -> Tensor:
        """(I + K'K)^-1 (pull + K' residual), by conjugate gradients from 0; rows that have converged stand still."""
        r = pull + self.back(self.residual)
        p = s = self._smooth(r)
        x, rho = torch.zeros_like(r), (r * s).flatten(1).sum(1)
        goal = 1e-6 * rho
        for _ in range(products):
            active = rho > goal
            q = p + self.back(self.ahead(p))
            length = torch.where(active, rho / (p * q).flatten(1).sum(1).clamp_min(1e-30), 0.0)
            x, r = x + per_row(length, p) * p, r - per_row(length, p) * q
            s, before = self._smooth(r), rho
            rho = torch.where(active, (r * s).flatten(1).sum(1), rho)
            p = s + per_row(torch.where(active, rho / before.clamp_min(1e-30), 0.0), p) * p
        return x

    def _smooth(self, r: Tensor) -> Tensor:
        """H^-1 r, with the row's own mean noise; r itself where no curvature is shared."""
        if self.shared is None:
            return r
        precision = self.weight.square().expand(len(r), -1).mean(1)
        return self.shared.solve(r, precision)


class _Shared:
    """I + w^2 R G R, solved for any w by one eigendecomposition.

    Args:
        curvature: G, (d, d).
        root: R.
    """

    def __init__(self, curvature: Tensor, root: Spectral) -> None:
        half = root(root(curvature).T)
        values, self.vectors = torch.linalg.eigh(0.5 * (half + half.T))
        self.values = values.clamp_min(0.0)

    def solve(self, r: Tensor, precision: Tensor) -> Tensor:
        """(n, *event_shape), w^2 (n,) -> (n, *event_shape)."""
        along = (r.flatten(1) @ self.vectors) / (1 + precision[:, None] * self.values)
        return (along @ self.vectors.T).reshape(r.shape)


def _rough(likelihood: MeasuredLikelihood) -> MeasuredLikelihood:
    """The likelihood with its decoder in bf16, where it has one and that pays."""
    decoder, y = likelihood.through, likelihood.y
    if decoder is None or y.real.dtype != torch.float32 or not native_bf16(y.device):
        return likelihood
    return likelihood.behind(in_bf16(decoder))


@torch.no_grad()
def _seen(likelihood: MeasuredLikelihood, x: Tensor) -> Tensor:
    return likelihood.predict(x)


def _local(likelihood: MeasuredLikelihood, clean: Tensor) -> tuple[Tensor, Tensor]:
    """y - h and 1 / sigma as reals, (n, m) and broadcastable to it; of the local Gaussian where noise is another."""
    if isinstance(likelihood, GaussianLikelihood):
        level = numbers_of_level(likelihood.noise_level.clamp_min(LEAST), likelihood.y)
        return numbers(likelihood.y - clean), 1 / level
    with torch.enable_grad():
        place = clean.detach().requires_grad_()
        (slope,) = torch.autograd.grad(likelihood.density(place).sum(), place, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), place)
    curvature = numbers(-bend).clamp_min(1e-6)
    return numbers(slope.detach()) / curvature, curvature.sqrt()


def _reals(likelihood: MeasuredLikelihood) -> int:
    """m."""
    return likelihood.operator.out_shape.numel() * (2 if likelihood.y.is_complex() else 1)
