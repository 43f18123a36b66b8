"""Bounds set on real data, and a specification tried on real data that it has not seen.

A bound that says `auto` is put beyond all but a small tail of one half of the real events, and widened by a share of
the distance from the median: with few events the extreme ones are not yet the most extreme. The other half must then
pass, or the specification is wrong: it would reject the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.evaluation.specifications.language import suite_from
from oneprior.evaluation.specifications.outputs import Outputs
from oneprior.evaluation.specifications.rules import AllOf, Bound
from oneprior.evaluation.specifications.suite import Finding, Specification, Suite, check


@dataclass(frozen=True)
class Fitted:
    """A suite whose bounds are numbers.

    Args:
        suite: ready to check with.
        content: what to write as YAML.
        events: real events (groups) that the bounds were set on.
    """

    suite: Suite
    content: dict[str, Any]
    events: int


def halves(outputs: Outputs, rows: Rows) -> tuple[Outputs, Outputs]:
    """Two halves of real events; a group stays on one side.

    Args:
        outputs: the real events.
        rows: one row, which shuffles.
    """
    group = torch.arange(len(outputs)) if outputs.group is None else outputs.group.cpu()
    names, place = group.unique(return_inverse=True)
    if len(names) < 2:
        raise InputError("real events of one group cannot be parted; at least two subjects are needed")
    order = rows.bits(len(names))[0].argsort().cpu()
    first = torch.zeros(len(names), dtype=torch.bool)
    first[order[: (len(names) + 1) // 2]] = True
    inside = first[place]
    return outputs.take(inside.nonzero()[:, 0]), outputs.take((~inside).nonzero()[:, 0])


def fit_bounds(content: Mapping[str, Any], real: Outputs, *, tail: float = 0.002, widen: float = 0.15) -> Fitted:
    """Put numbers in place of `auto`.

    Args:
        content: what a YAML file holds.
        real: real events.
        tail: share of real events that may lie beyond each bound before it is widened.
        widen: by which share of its distance from the median a bound is moved out.

    Raises:
        InputError: for a measure that has no value on real events.
    """
    written = deepcopy(dict(content))
    suite = suite_from(content)
    for entry, specification in zip(written["checks"], suite.specifications, strict=True):
        for rule, place in zip(specification.rule.bounds(), _places(entry), strict=True):
            if rule.auto:
                place |= _numbers(rule, real, tail, widen) | ({"scale": rule.scale} if "scale" in place else {})
    events = len(real) if real.group is None else len(real.group.unique())
    written["fitted"] = {"real_events": events, "tail": tail, "widen": widen}
    return Fitted(suite_from(written), written, events)


TOGETHER = "all of one output together"


def whole(suite: Suite) -> Specification | None:
    """All specifications of single outputs as one, whose pass rate is that of real events under the whole suite."""
    single = [s for s in suite.specifications if s.scope in ("sample", "conditional")]
    if not single:
        return None
    return Specification(TOGETHER, AllOf(tuple(s.rule for s in single)), min(s.required for s in single))


def validate(suite: Suite, real: Outputs) -> tuple[Finding, ...]:
    """Check real events that the bounds were not set on, each specification and all of them together."""
    together = whole(suite)
    found = tuple(check(s, real) for s in suite.specifications if s.scope != "pair")
    return found if together is None else (*found, check(together, real))


def _numbers(rule: Bound, real: Outputs, tail: float, widen: float) -> dict[str, float]:
    value = rule.value(real)
    if bool(value.isnan().any()):
        raise InputError(f"{rule.words} has no value (nan) on {int(value.isnan().sum())} real events")
    median = float(value.median())
    found: dict[str, float] = {}
    scale = float((value.quantile(0.95) - value.quantile(0.05)).abs()) if len(value) > 1 else 0.0
    for end, share in (("at_least", tail), ("at_most", 1 - tail)):
        if end in rule.auto:
            edge = float(_quantile(value, share))
            found[end] = round_to(edge + widen * (edge - median), up=end == "at_most")
    return found | ({"scale": round_to(scale, up=True)} if scale > 0 else {})


def _quantile(value: Tensor, share: float) -> Tensor:
    """An order statistic, so that no more than the share lies beyond."""
    ordered = value.sort().values
    place = int(share * (len(ordered) - 1)) if share < 0.5 else -int(-share * (len(ordered) - 1) // 1)
    return ordered[place]


def round_to(value: float, *, up: bool, digits: int = 4) -> float:
    """Some digits, rounded outwards, so that a written bound is no tighter than the one that was set."""
    if value == 0 or not math.isfinite(value):
        return value
    step = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
    return float(f"{(math.ceil(value / step) if up else math.floor(value / step)) * step:.{digits + 3}g}")


def _places(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of the bounds of a rule, in the order of `Rule.bounds`."""
    for word in ("all", "any"):
        if word in entry:
            return [place for part in entry[word] for place in _places(part)]
    if "if" in entry:
        return [*_places(entry["if"]), *_places(entry["then"])]
    return [entry]
