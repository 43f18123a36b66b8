"""Bayes, once: a prior and a likelihood become a posterior on the space where inference is easiest.

Every task is a tilt, p(x) L(x). Where x = f(z), p(x) L(x) is p(z) L(f(z)): `bayes` peels decoders and tilts off, so no
method of inference ever sees them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows
from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.product import Product
from oneprior.priors.base import NoisePrior, Prior
from oneprior.priors.pushforward import Pushforward, Tilted


@dataclass(frozen=True)
class Posterior:
    """p(z) L(z) on the base space, and the way back to x.

    Args:
        prior: the base law, p(z).
        likelihood: log L(z), one row per problem.
        decode: z -> x; the identity where nothing was peeled.
        event_shape: shape of one x.
        n: number of problems.
    """

    prior: Prior
    likelihood: Likelihood
    decode: Callable[[Tensor], Tensor]
    event_shape: torch.Size
    n: int

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
    while True:
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
        raise IncompatiblePrior("the likelihood serves any number of rows: say how many problems there are (n=)")

    def decode(z: Tensor) -> Tensor:
        for f in reversed(decoders):
            z = f(z)
        return z

    return Posterior(prior, likelihood, decode, event_shape or prior.event_shape, n)


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
    """

    x: Tensor
    method: str
    exact: bool
    network_calls: int = 0
    seconds: float = 0.0
    done: float = 1.0
    diagnostics: dict[str, Any] = field(default_factory=dict)

    def mean(self) -> Tensor:
        """Posterior mean, (n, *event_shape)."""
        return self.x.mean(0)

    def std(self) -> Tensor:
        """Posterior standard deviation, (n, *event_shape)."""
        return self.x.std(0) if self.x.shape[0] > 1 else torch.zeros_like(self.x[0])

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """The central interval between order statistics: with S draws it holds exactly level when
        k = (1 - level) / 2 * (S + 1) is whole (S = 19, 39, 99 for 90 %)."""
        s = self.x.shape[0]
        k = (1 - level) / 2 * (s + 1)
        if abs(k - round(k)) > 1e-6 or round(k) < 1:
            raise IncompatiblePrior(f"{s} draws have no exact {level:.0%} interval; take 19, 39 or 99 for 90 %")
        order = self.x.sort(0).values
        return order[round(k) - 1], order[s - round(k)]


@dataclass(frozen=True)
class Needs:
    """What a sampler needs of a posterior; checked before any work.

    Args:
        prior: the type the peeled prior must have.
        gaussian: whether the likelihood must be Gaussian.
        linear: whether its operator must be linear.
        differentiable: whether gradients must pass through the likelihood.
    """

    prior: type[Prior] = Prior
    gaussian: bool = False
    linear: bool = False
    differentiable: bool = False


class Sampler(ABC):
    """One method of inference; an iterator of states, the last of which is the result."""

    name: ClassVar[str]
    needs: ClassVar[Needs]

    @abstractmethod
    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        """Yields the work so far; `rows` are the n problems."""

    def __call__(self, posterior: Posterior, draws: int, rows: Rows) -> Draws:
        self.check(posterior)
        start, state = time.perf_counter(), None
        for state in self.iterate(posterior, draws, rows):
            pass
        assert state is not None
        from dataclasses import replace

        return replace(state, seconds=time.perf_counter() - start)

    def check(self, posterior: Posterior) -> None:
        """Raises `IncompatiblePrior` where the posterior lacks what the method needs."""
        needs, likelihood = self.needs, posterior.likelihood
        if not isinstance(posterior.prior, needs.prior):
            raise IncompatiblePrior(
                f"{self.name} needs a {needs.prior.__name__}, and this prior is a {type(posterior.prior).__name__}"
            )
        if needs.gaussian and not isinstance(likelihood, GaussianLikelihood):
            raise IncompatiblePrior(f"{self.name} needs Gaussian noise, and got a {type(likelihood).__name__}")
        if needs.linear and not (isinstance(likelihood, GaussianLikelihood) and likelihood.linear):
            raise IncompatiblePrior(f"{self.name} needs a linear operator")
        if needs.differentiable and not likelihood.differentiable:
            raise IncompatiblePrior(f"{self.name} needs an operator that can be differentiated")
