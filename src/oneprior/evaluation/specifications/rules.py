"""Rules: a measure of outputs between bounds, and rules combined with all, any and implies.

A rule gives each trial a *margin*: how far the trial is from breaking it, in units of the rule's scale; below zero it
is broken. all is the smallest margin, any the largest, and "if a then b" the larger of b's margin and a's turned
round. So the worst counter-examples have an order, and a rule whose measure is differentiable has a gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError
from oneprior.evaluation.specifications.outputs import Outputs

Scope = Literal["sample", "pair", "conditional", "set"]
_ORDER: tuple[Scope, ...] = ("sample", "pair", "conditional", "set")


class Rule(ABC):
    """What must hold."""

    scope: Scope

    @abstractmethod
    def margin(self, outputs: Outputs) -> Tensor:
        """How far each trial is from breaking the rule, (trials,) float64; one trial an output, or one for a set."""

    @abstractmethod
    def bounds(self) -> Iterator[Bound]:
        """The bounds it is made of."""


@dataclass(frozen=True)
class Bound(Rule):
    """at_least <= measure(outputs) <= at_most.

    Args:
        measure: outputs -> one number a trial; nan breaks the bound.
        scope: of what it speaks: each sample, a pair of samples of one seed, what was asked, or the whole set.
        at_least: lower bound, or None.
        at_most: upper bound, or None.
        scale: a difference in the measure that counts as one.
        words: the measure in words.
        differentiable: whether gradients pass through the measure.
        auto: which bounds are still to be set on real data, out of "at_least" and "at_most".
    """

    measure: Callable[[Outputs], Tensor]
    scope: Scope = "sample"
    at_least: float | None = None
    at_most: float | None = None
    scale: float = 1.0
    words: str = ""
    differentiable: bool = False
    auto: tuple[Literal["at_least", "at_most"], ...] = ()

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None and not self.auto:
            raise InputError(f"{self.words or 'a bound'} needs at_least or at_most; without them it forbids nothing")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise InputError(f"{self.words}: at_least {self.at_least:g} lies above at_most {self.at_most:g}")
        if not self.scale > 0:
            raise InputError(f"{self.words}: the scale must be positive, got {self.scale}")

    def value(self, outputs: Outputs) -> Tensor:
        """The measure, (trials,) float64."""
        if self in outputs.measured:
            return outputs.measured[self]
        found = torch.as_tensor(self.measure(outputs)).double().reshape(-1)
        if len(found) not in (1, len(outputs)):
            raise ShapeError(f"measure {self.words}", tuple(found.shape), (len(outputs),), "One number an output.")
        outputs.measured[self] = found
        return found

    def margin(self, outputs: Outputs) -> Tensor:
        if self.auto:
            raise InputError(
                f"{self.words}: {' and '.join(self.auto)} is still auto: set it on real data by `oneprior specify`"
            )
        value = self.value(outputs)
        room = torch.full_like(value, torch.inf)
        if self.at_least is not None:
            room = torch.minimum(room, value - self.at_least)
        if self.at_most is not None:
            room = torch.minimum(room, self.at_most - value)
        return torch.where(value.isnan(), -torch.inf, room / self.scale)

    def bounds(self) -> Iterator[Bound]:
        yield self


@dataclass(frozen=True)
class AllOf(Rule):
    """Every part holds."""

    parts: tuple[Rule, ...]

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        return _widest(self.parts)

    def margin(self, outputs: Outputs) -> Tensor:
        return torch.stack(_aligned([part.margin(outputs) for part in self.parts])).amin(0)

    def bounds(self) -> Iterator[Bound]:
        for part in self.parts:
            yield from part.bounds()


@dataclass(frozen=True)
class AnyOf(Rule):
    """At least one part holds."""

    parts: tuple[Rule, ...]

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        return _widest(self.parts)

    def margin(self, outputs: Outputs) -> Tensor:
        return torch.stack(_aligned([part.margin(outputs) for part in self.parts])).amax(0)

    def bounds(self) -> Iterator[Bound]:
        for part in self.parts:
            yield from part.bounds()


@dataclass(frozen=True)
class Implies(Rule):
    """Where the first holds, the second must; where it does not, nothing is asked."""

    first: Rule
    second: Rule

    @property
    def scope(self) -> Scope:  # type: ignore[override]
        return _widest((self.first, self.second))

    def margin(self, outputs: Outputs) -> Tensor:
        asked, holds = _aligned([self.first.margin(outputs), self.second.margin(outputs)])
        turned = torch.where(asked.isneginf(), asked, -asked)  # a first that has no value says nothing for the second
        return torch.where(asked < 0, torch.maximum(turned, holds), holds)

    def bounds(self) -> Iterator[Bound]:
        yield from self.first.bounds()
        yield from self.second.bounds()


def _widest(parts: tuple[Rule, ...]) -> Scope:
    if not parts:
        raise InputError("all and any need at least one part")
    return _ORDER[max(_ORDER.index(part.scope) for part in parts)]


def _aligned(margins: list[Tensor]) -> list[Tensor]:
    """One number for a set stands for each of its outputs."""
    most = max(len(m) for m in margins)
    return [m.expand(most) if len(m) == 1 else m for m in margins]
