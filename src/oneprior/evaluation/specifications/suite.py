"""Specifications: rules with a name and a pass rate that is required, checked on outputs, with exact intervals.

A pass rate k / n is uncertain. Its interval is that of Clopper and Pearson 1934, exact for any n and k: the rates under
which k or more (or fewer) passes have a chance above 2.5 %. A specification is

- *met* where even the lower end (one-sided, 95 %) reaches the required rate,
- *broken* where even the upper end (one-sided, 95 %) falls short of it,
- *undecided* in between: more outputs are needed, and the result says how many.

Outputs of one group (the slices of one subject) err together and count as one trial, which passes if all of them do. A
rule that gives one number for the whole set is one trial, and is met or broken; one that looks at each output among the
others (is it a copy of another?) has a trial an output, as if they were independent, which they nearly are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.evaluation.specifications.outputs import Outputs
from oneprior.evaluation.specifications.rules import Rule, Scope

State = Literal["met", "broken", "undecided"]
_LEVEL = 0.95


@dataclass(frozen=True)
class Specification:
    """What outputs must satisfy.

    Args:
        name: in words.
        rule: what must hold.
        required: the pass rate that is promised, in (0, 1).
    """

    name: str
    rule: Rule
    required: float = 0.98

    def __post_init__(self) -> None:
        if not 0 < self.required < 1:
            raise InputError(
                f"{self.name}: the required pass rate lies between 0 and 1, got {self.required:g}; no number of trials "
                "shows a rate of 1, 300 without a failure show 0.99"
            )

    @property
    def scope(self) -> Scope:
        """Of what the rule speaks."""
        return self.rule.scope


@dataclass(frozen=True)
class CounterExample:
    """An output that breaks a rule.

    Args:
        position: its place among the outputs.
        row: its row number: with the seed it is made again.
        margin: below 0; how far beyond the bound, in units of the rule's scale.
        values: of the rule's measures, by their words.
        asked: its condition.
    """

    position: int
    row: int
    margin: float
    values: Mapping[str, float]
    asked: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One specification, checked.

    Args:
        specification: which.
        trials: how many independent ones.
        passed: how many of them passed.
        interval: of the pass rate, two-sided 95 %, exact.
        lower: one-sided 95 % lower bound of the pass rate.
        upper: one-sided 95 % upper bound.
        state: met, broken or undecided; see the module.
        failed: places of the outputs that fail, the worst first, (k,) int64.
        worst: the worst counter-examples.
    """

    specification: Specification
    trials: int
    passed: int
    interval: tuple[float, float]
    lower: float
    upper: float
    state: State
    failed: Tensor
    worst: tuple[CounterExample, ...]

    @property
    def rate(self) -> float:
        """passed / trials."""
        return self.passed / self.trials

    @property
    def advice(self) -> str:
        """What to do about an undecided one, or nothing."""
        if self.state != "undecided":
            return ""
        needed = trials_needed(self.specification.required)
        return (
            f"{self.trials} trials cannot tell whether {self.specification.required:.4g} is reached; at least {needed} "
            "without a failure are needed"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.specification.name,
            "scope": self.specification.scope,
            "required": self.specification.required,
            "state": self.state,
            "passed": self.passed,
            "trials": self.trials,
            "rate": self.rate,
            "interval": list(self.interval),
            "lower": self.lower,
            "bounds": [
                {"measure": b.words, "at_least": b.at_least, "at_most": b.at_most}
                for b in self.specification.rule.bounds()
            ],
            "counterexamples": [vars(example) for example in self.worst],
        }


@dataclass(frozen=True)
class Suite:
    """Specifications that belong together.

    Args:
        name: of the suite.
        specifications: in the order of the file.
    """

    name: str
    specifications: tuple[Specification, ...]

    def __post_init__(self) -> None:
        names = [s.name for s in self.specifications]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InputError(f"two specifications are called {sorted(twice)[0]!r}; give each its own name")
        if not names:
            raise InputError(f"the suite {self.name!r} holds no specification")

    def check(self, outputs: Outputs, examples: int = 8) -> tuple[Finding, ...]:
        """Check outputs against every specification.

        Args:
            outputs: at least one.
            examples: counter-examples to keep of each.
        """
        return tuple(check(s, outputs, examples) for s in self.specifications)

    def margins(self, outputs: Outputs, scopes: tuple[Scope, ...] = ("sample", "conditional")) -> Tensor:
        """Margins of the specifications of single outputs, (specifications, n) float64."""
        chosen = [s for s in self.specifications if s.scope in scopes]
        if not chosen:
            return torch.full((1, len(outputs)), torch.inf, dtype=torch.float64)
        return torch.stack([s.rule.margin(outputs) for s in chosen])


def check(specification: Specification, outputs: Outputs, examples: int = 8) -> Finding:
    """Check one specification.

    Raises:
        InputError: for no outputs, or a judge that is missing.
    """
    if not len(outputs):
        raise InputError(f"{specification.name}: there are no outputs to check")
    margin = specification.rule.margin(outputs).cpu()
    of_set = len(margin) == 1 and len(outputs) > 1
    trial = margin if of_set or outputs.group is None else _worst_of_group(margin, outputs.group.cpu())
    n, k = len(trial), int((trial >= 0).sum())
    low, high = clopper_pearson(k, n)
    lower, upper = clopper_pearson(k, n, 2 * _LEVEL - 1)
    state: State = (
        "met" if lower >= specification.required else "broken" if upper < specification.required else "undecided"
    )
    if of_set or n == 1:
        state = "met" if k else "broken"
    order = margin.argsort()
    failed = order[margin[order] < 0]
    worst = (
        tuple(_example(specification.rule, outputs, int(i), margin) for i in failed[:examples]) if not of_set else ()
    )
    return Finding(specification, n, k, (low, high), lower, upper, state, failed, worst)


def clopper_pearson(passed: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a rate; each end has a chance of (1 - level) / 2.

    Source: Clopper and Pearson 1934.
    """
    from scipy.stats import beta

    if not 0 <= passed <= trials or trials < 1:
        raise InputError(f"a rate needs 0 <= passed <= trials and a trial, got {passed} of {trials}")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, passed, trials - passed + 1)) if passed else 0.0
    high = float(beta.isf(tail, passed + 1, trials - passed)) if passed < trials else 1.0
    return low, high


def trials_needed(required: float, level: float = _LEVEL) -> int:
    """How many trials without a failure show a pass rate: the least n with required^n <= 1 - level."""
    return math.ceil(math.log(1 - level) / math.log(required))


def _worst_of_group(margin: Tensor, group: Tensor) -> Tensor:
    names, place = group.unique(return_inverse=True)
    return margin.new_full((len(names),), torch.inf).scatter_reduce(0, place, margin, "amin")


def _example(rule: Rule, outputs: Outputs, position: int, margin: Tensor) -> CounterExample:
    one = outputs.take(torch.tensor([position]))
    values = {}
    for bound in rule.bounds():
        found = bound.value(outputs)
        values[bound.words] = float(found[position if len(found) > 1 else 0])
    asked = {name: value[0].tolist() for name, value in one.condition.items()}
    return CounterExample(position, int(one.rows[0]), float(margin[position]), values, asked)
