"""A wish as evidence: L(x) = exp(reward(x) / temperature). Optimisation and planning are posteriors under it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from oneprior.core import InputError, ShapeError
from oneprior.likelihoods.base import Likelihood


class Reward(Likelihood):
    """log L(x) = fn(x) / temperature, unnormalised; it serves any number of rows.

    Args:
        fn: (n, *event_shape) -> (n,); the larger the better.
        temperature: > 0, in the units of the reward: a difference of one temperature is a factor e.
        differentiable: whether gradients pass through fn.
    """

    def __init__(self, fn: Callable[[Tensor], Tensor], temperature: float = 1.0, *, differentiable: bool = True):
        if not temperature > 0:
            raise InputError(f"the temperature of a reward is positive, got {temperature}")
        self.fn, self.temperature, self.differentiable = fn, temperature, differentiable

    @property
    def rows(self) -> None:
        return None

    def log_prob(self, x: Tensor) -> Tensor:
        value = self.fn(x)
        if value.shape != x.shape[:1]:
            raise ShapeError("reward", tuple(value.shape), (x.shape[0],), "Return one number for each row.")
        return value / self.temperature

    def pullback(self, f: Callable[[Tensor], Tensor]) -> Reward:
        fn = self.fn
        return Reward(lambda z: fn(f(z)), self.temperature, differentiable=self.differentiable)

    def take(self, index: Tensor) -> Reward:
        return self
