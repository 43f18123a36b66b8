"""Bayes, once: a prior and a likelihood become a posterior on the space where inference is easiest.

Every task is a tilt, p(x) L(x). Where x = f(z), p(x) L(x) is p(z) L(f(z)): `bayes` peels decoders and tilts off, so no
method of inference ever sees them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.fixed import Fixed
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.product import Product
from oneprior.operators.affine import Affine
from oneprior.operators.base import LinearOperator
from oneprior.priors.base import NoisePrior, Prior
from oneprior.priors.pushforward import Pushforward, Tilted
from oneprior.priors.residual import ResidualPrior, Residue


@dataclass(frozen=True)
class Posterior:
    """p(z) L(z) on the base space, and the way back to x.

    Args:
        prior: the base law, p(z).
        likelihood: log L(z), one row per problem.
        decoders: what was peeled, outermost first; z goes through the last of them first.
        event_shape: shape of one x.
        n: number of problems.
        residue: what the decoders cannot say, integrated out of the likelihood; `Sampler.run` adds it to every draw.
    """

    prior: Prior
    likelihood: Likelihood
    decoders: tuple[Callable[[Tensor], Tensor], ...]
    event_shape: torch.Size
    n: int
    residue: Residue | None = None

    @property
    def affine(self) -> bool:
        """Whether x is an affine map of z, so that the mean of x is the decoded mean of z."""
        return all(isinstance(f, Affine | LinearOperator) for f in self.decoders)

    def decode(self, z: Tensor) -> Tensor:
        """z -> x, (n, *shape of z) -> (n, *event_shape)."""
        for f in reversed(self.decoders):
            z = f(z)
        return z

    def events(self, z: Tensor) -> Tensor:
        """Draws on the base space as events: (draws, n, *shape of z) -> (draws, n, *event_shape)."""
        with torch.no_grad():
            return self.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def repeat(self, draws: int) -> Posterior:
        """The same problems, draws times over, draw-major."""
        return replace(self, likelihood=self.likelihood.repeat(draws), n=self.n * draws)

    def log_density(self, u: Tensor) -> Tensor:
        """log p(u) + log L(decode(u)) on the noise road, up to a constant; (n, *noise_shape) -> (n,)."""
        if not isinstance(self.prior, NoisePrior):
            raise IncompatiblePrior(f"{type(self.prior).__name__} is no map of Gaussian noise")
        return -0.5 * u.square().flatten(1).sum(1) + self.likelihood.log_prob(self.prior.decode(u))


def bayes(prior: Prior | Tilted, likelihood: Likelihood, n: int | None = None) -> Posterior:
    """The posterior p(x) L(x), with every `Pushforward` and `Tilted` peeled off.

    Args:
        prior: any prior.
        likelihood: the evidence; its rows are the problems.
        n: number of problems, where the likelihood serves any number.
    """
    decoders: list[Callable[[Tensor], Tensor]] = []
    event_shape: torch.Size | None = None
    residue: Residue | None = None
    while True:
        if isinstance(prior, ResidualPrior) and not decoders and Residue.serves(likelihood):
            assert isinstance(likelihood, GaussianLikelihood)
            residue = Residue(prior.residual, likelihood)
            likelihood, prior = residue.marginal(), prior.base
            continue
        if isinstance(prior, Tilted):
            likelihood, prior = Product((likelihood, prior.factor)), prior.base
        elif isinstance(prior, Pushforward):
            event_shape = event_shape or prior.event_shape
            likelihood = likelihood.pullback(prior.decoder)
            decoders.append(prior.decoder)
            prior = prior.base
        else:
            break
    n = likelihood.rows if likelihood.rows is not None else n
    if n is None:
        raise InputError("the likelihood serves any number of rows: say how many problems there are (n=)")
    return Posterior(prior, likelihood, tuple(decoders), event_shape or prior.event_shape, n, residue)


@dataclass(frozen=True)
class Draws:
    """Draws from (an approximation of) a posterior.

    Args:
        x: (draws, n, *event_shape).
        method: the name of the sampler.
        exact: True where the draws follow the posterior itself, False where the method is an approximation.
        network_calls: calls of the network truly made, each of one row.
        seconds: wall time.
        done: the finished share, 0 to 1, for progress bars.
        diagnostics: what the method says of itself (acceptance, step sizes, ESS ...).
        centre: E[x | y] where the method knows it better than the mean of these draws, (n, *event_shape).
        spread: the standard deviation where the method knows it better than theirs.
        mirrored: whether draws 2 k and 2 k + 1 are a pair made of mirrored random numbers (`Rows.repeat`).
    """

    x: Tensor
    method: str
    exact: bool
    network_calls: int = 0
    seconds: float = 0.0
    done: float = 1.0
    diagnostics: dict[str, Any] = field(default_factory=dict)
    centre: Tensor | None = None
    spread: Tensor | None = None
    mirrored: bool = False

    def mean(self) -> Tensor:
        """Posterior mean, (n, *event_shape)."""
        return self.x.mean(0) if self.centre is None else self.centre

    def std(self) -> Tensor:
        """Posterior standard deviation, (n, *event_shape)."""
        if self.spread is not None:
            return self.spread
        return spread_of(self.x, self.mirrored)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """The central interval between order statistics: with S draws it holds exactly level when
        k = (1 - level) / 2 * (S + 1) is whole (S = 19, 39, 99 for 90 %)."""
        s = self.x.shape[0]
        k = (1 - level) / 2 * (s + 1)
        if abs(k - round(k)) > 1e-6 or round(k) < 1:
            raise InputError(f"{s} draws have no exact {level:.0%} interval; take 19, 39 or 99 for 90 %")
        order = self.x.sort(0).values
        return order[round(k) - 1], order[s - round(k)]


def spread_of(x: Tensor, mirrored: bool = False) -> Tensor:
    """The standard deviation behind draws (draws, ...), entry by entry; 0 of a single one.

    Of mirrored draws it is the spread within pairs and of the pairs' means, which is unbiased where the spread of all
    would take the pairs' agreement about the mean for width; one pair tells only the first of the two.
    """
    if len(x) < 2:
        return torch.zeros_like(x[0])
    if not mirrored:
        return x.std(0)
    even, odd = x[: len(x) // 2 * 2].unflatten(0, (-1, 2)).unbind(1)
    within = (0.5 * (even - odd)).square().mean(0)
    return (within + (0.5 * (even + odd)).var(0)).sqrt() if len(even) > 1 else within.sqrt()


@dataclass(frozen=True)
class Needs:
    """What a sampler needs of a posterior; checked before any work.

    Args:
        prior: the type (or types) the peeled prior must have.
        gaussian: whether the likelihood must be Gaussian.
        linear: whether its operator must be linear.
        differentiable: whether gradients must pass through the likelihood.
        density: whether the likelihood must have a density (no noise level 0).
    """

    prior: type[Prior] | tuple[type[Prior], ...] = Prior
    gaussian: bool = False
    linear: bool = False
    differentiable: bool = False
    density: bool = False


class Sampler(ABC):
    """One method of inference; an iterator of states, the last of which is the result."""

    name: ClassVar[str]
    needs: ClassVar[Needs]

    @abstractmethod
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        """Yields the work so far; `rows` are the n problems."""

    def __call__(self, posterior: Posterior, draws: int, rows: Rows) -> Draws:
        start = time.perf_counter()
        (state,) = deque(self.run(posterior, draws, rows), maxlen=1)
        return replace(state, seconds=time.perf_counter() - start)

    def run(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        """`iterate`, after the checks that belong before any work.

        Raises:
            IncompatiblePrior: where the posterior lacks what the method needs.
            ShapeError: where there is not one row of random numbers for each problem.
            InputError: for fewer than one draw.
        """
        self.check(posterior)
        if len(rows) != posterior.n:
            raise ShapeError("rows", (len(rows),), (posterior.n,), "Give one row for each measurement.")
        if draws < 1:
            raise InputError(f"draws >= 1 are needed, got {draws}")
        if posterior.residue is None:
            yield from self.iterate(posterior, draws, rows)
            return
        for state in self.iterate(posterior, draws, rows):
            yield _completed(state, posterior.residue, rows)

    def check(self, posterior: Posterior) -> None:
        """Raises `IncompatiblePrior` where the posterior lacks what the method needs."""
        needs, likelihood = self.needs, posterior.likelihood
        if not isinstance(posterior.prior, needs.prior):
            kinds = needs.prior if isinstance(needs.prior, tuple) else (needs.prior,)
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise IncompatiblePrior(
                f"{self.name} needs a {wanted}, and this prior is a {type(posterior.prior).__name__}"
            )
        if needs.gaussian and not isinstance(likelihood, GaussianLikelihood):
            raise IncompatiblePrior(f"{self.name} needs Gaussian noise, and got a {type(likelihood).__name__}")
        if needs.gaussian and isinstance(likelihood, GaussianLikelihood) and not likelihood.white:
            raise IncompatiblePrior(
                f"{self.name} needs one noise level for all entries of a row, and this likelihood has one for each: "
                "use a method that needs only a density, such as hmc"
            )
        if needs.linear and not (isinstance(likelihood, GaussianLikelihood) and likelihood.linear):
            raise IncompatiblePrior(
                f"{self.name} needs a measurement that is linear in what the prior is built on: a linear operator, and "
                f"no network between; this prior is a {type(posterior.prior).__name__}, perhaps under a decoder"
            )
        if needs.differentiable and not likelihood.differentiable:
            raise IncompatiblePrior(f"{self.name} needs an operator that can be differentiated")
        if needs.density and _constrained(likelihood):
            raise IncompatiblePrior(
                f"{self.name} needs noise: a noise level of 0 is a constraint without a density. Give the noise level, "
                "or use a closed-form or guided method"
            )


def _completed(state: Draws, residue: Residue, rows: Rows) -> Draws:
    """Draws of f(z) as draws of x = f(z) + e; the mean is known better than from the draws of e."""
    return replace(state, x=residue.complete(state.x, rows), centre=residue.complete_mean(state.mean()), spread=None)


def _constrained(likelihood: Likelihood) -> bool:
    """Whether some part of the evidence is an exact constraint."""
    factors = likelihood.factors if isinstance(likelihood, Product) else (likelihood,)
    return any(
        isinstance(factor, Fixed) or (isinstance(factor, GaussianLikelihood) and factor.constraint)
        for factor in factors
    )
