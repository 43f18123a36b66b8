"""Specifications are tested too: good outputs are spoilt on purpose, and must be caught.

Each class of mutant has three declared strengths. A trial takes a set of good outputs, spoils it, and asks the suite:
the set is *killed* where some specification breaks. Spoilt single outputs (blurred, clipped, noisy) are also counted
one by one: an output is killed where it passed before and breaks a rule of single outputs now. Sets that were not
spoilt are the control; what is killed among them are false alarms. A specification that kills nothing is useless: it
would pass whatever it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from oneprior.core import InputError, Rows
from oneprior.evaluation.specifications.outputs import Outputs
from oneprior.evaluation.specifications.suite import Specification, Suite, clopper_pearson


@dataclass(frozen=True)
class Mutant:
    """A way to spoil good outputs.

    Args:
        name: of the class.
        strengths: three, from slight to strong.
        unit: what a strength is.
        make: (outputs, strength, rows of one row) -> spoilt outputs.
        single: whether every output of a set is spoilt, so that outputs are counted one by one as well.
        conditional: whether it spoils what was asked, and needs a condition.
    """

    name: str
    strengths: tuple[float, float, float]
    unit: str
    make: Callable[[Outputs, float, Rows], Outputs]
    single: bool = False
    conditional: bool = False


@dataclass(frozen=True)
class Kill:
    """How many mutants of one class and strength were caught.

    Args:
        mutant: name of the class; "none" for the control.
        strength: of the mutants.
        unit: what it is.
        sets: spoilt sets.
        killed: of these.
        interval: of the kill rate of sets, exact 95 %.
        outputs: spoilt single outputs that were good before; 0 where a set is spoilt as a whole.
        outputs_killed: of these.
        by: share of the spoilt sets that each specification caught.
    """

    mutant: str
    strength: float
    unit: str
    sets: int
    killed: int
    interval: tuple[float, float]
    outputs: int
    outputs_killed: int
    by: Mapping[str, float]

    @property
    def rate(self) -> float:
        """killed / sets."""
        return self.killed / self.sets

    @property
    def output_rate(self) -> float:
        """outputs_killed / outputs; nan where outputs are not counted."""
        return self.outputs_killed / self.outputs if self.outputs else float("nan")


def kill_rates_iter(
    suite: Suite,
    good: Outputs,
    rows: Rows,
    *,
    mutants: Sequence[Mutant] | None = None,
    sets: int = 50,
    size: int = 100,
) -> Iterator[tuple[float, Kill]]:
    """Spoil sets of good outputs and count what the suite catches.

    Args:
        suite: its rules of pairs are left out, since a spoilt generator cannot be asked again.
        good: good outputs, as held-out real events; more than `size`.
        rows: one row; it chooses the sets and what is spoilt in them.
        mutants: the classes; all that the outputs' conditions allow by default.
        sets: trials of each class and strength.
        size: outputs in a set.

    Yields:
        The finished share, and the control, then every class and strength.

    Raises:
        InputError: where there are fewer good outputs than one set needs.
    """
    if len(good) < size:
        raise InputError(f"sets of {size} were asked of {len(good)} good outputs; give more outputs or smaller sets")
    chosen = [m for m in (MUTANTS if mutants is None else mutants) if not m.conditional or good.condition]
    chosen = [m for m in chosen if m.make is not copied or good.judges.train is not None]
    kept = tuple(s for s in suite.specifications if s.scope != "pair")
    if not kept:
        raise InputError("the suite has only rules of pairs, which cannot be tried on spoilt outputs")
    good = replace(good, group=None)
    bad = _failing(kept, good)
    control = Mutant("none", (0.0, 0.0, 0.0), "", lambda outputs, strength, rows: outputs)
    bad = _failing(kept, good)
    yield 0.0, _trials(kept, good, bad, control, 0.0, rows, sets, size)
    work = [(mutant, strength) for mutant in chosen for strength in mutant.strengths]
    for k, (mutant, strength) in enumerate(work):
        yield (k + 1) / len(work), _trials(kept, good, bad, mutant, strength, rows.stream(mutant.name), sets, size)


def kill_rates(suite: Suite, good: Outputs, rows: Rows, **options: Any) -> tuple[Kill, ...]:
    """The control, then every class and strength; see `kill_rates_iter`."""
    return tuple(kill for _, kill in kill_rates_iter(suite, good, rows, **options))


def useless(suite: Suite, kills: Sequence[Kill]) -> tuple[str, ...]:
    """Names of the specifications that caught no class of mutant more often than they raised false alarms."""
    control = next((k.by for k in kills if k.mutant == "none"), {})
    names = [s.name for s in suite.specifications if s.scope != "pair"]
    best = {name: max((k.by.get(name, 0.0) for k in kills if k.mutant != "none"), default=0.0) for name in names}
    return tuple(name for name in names if best[name] <= control.get(name, 0.0))


def _trials(
    specifications: Sequence[Specification],
    good: Outputs,
    bad: Tensor,
    mutant: Mutant,
    strength: float,
    rows: Rows,
    sets: int,
    size: int,
) -> Kill:
    caught = {s.name: 0 for s in specifications}
    killed = outputs = outputs_killed = 0
    for trial in range(sets):
        stream = rows.stream(f"{strength}/{trial}")
        order = stream.bits(len(good))[0].argsort()[:size].cpu()
        one = good.take(order.to(good.x.device))
        spoilt = mutant.make(one, strength, stream.stream("spoil"))
        broken = _broken(specifications, spoilt)
        for name in broken:
            caught[name] += 1
        killed += bool(broken)
        if mutant.single:
            before = bad[order]
            outputs += int((~before).sum())
            outputs_killed += int((_failing(specifications, spoilt) & ~before).sum())
    by = {name: count / sets for name, count in caught.items()}
    interval = clopper_pearson(killed, sets)
    return Kill(mutant.name, strength, mutant.unit, sets, killed, interval, outputs, outputs_killed, by)


def _broken(specifications: Sequence[Specification], outputs: Outputs) -> list[str]:
    """The specifications that a set breaks, at 5 % among all of them."""
    level = 1 - 2 * 0.05 / len(specifications)
    names: list[str] = []
    for s in specifications:
        good = (s.rule.margin(outputs) >= 0).cpu()
        of_set = len(good) == 1
        if not bool(good) if of_set else clopper_pearson(int(good.sum()), len(good), level)[1] < s.required:
            names.append(s.name)
    return names


def _failing(specifications: Sequence[Specification], outputs: Outputs) -> Tensor:
    """Which outputs break a rule of single outputs, (n,) bool."""
    failing = torch.zeros(len(outputs), dtype=torch.bool)
    for s in specifications:
        if s.scope != "set":
            failing |= (s.rule.margin(outputs) < 0).cpu()
    return failing


# The classes ----------------------------------------------------------------------------------------------------------


def blurred(outputs: Outputs, strength: float, rows: Rows) -> Outputs:
    """A Gaussian blur whose deviation is `strength` entries along every axis of space."""
    x, reach = outputs.x, max(1, round(4 * strength))
    place = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    window = torch.exp(-0.5 * (place / strength) ** 2)
    window = window / window.sum()
    for axis in range(2, x.dim()):
        moved = x.movedim(axis, -1)
        flat = moved.reshape(-1, 1, moved.shape[-1])
        index = torch.arange(-reach, flat.shape[-1] + reach, device=x.device).clamp(0, flat.shape[-1] - 1)
        x = F.conv1d(flat[..., index], window.reshape(1, 1, -1)).reshape(moved.shape).movedim(-1, axis)
    return replace(outputs, x=x)


def clipped(outputs: Outputs, strength: float, rows: Rows) -> Outputs:
    """Values cut off at both ends: a share `strength` of each output's own range is lost, half of it at either end."""
    flat = outputs.x.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    cut = strength / 2 * (high - low)
    shape = (-1, *[1] * (outputs.x.dim() - 1))
    x = torch.maximum(torch.minimum(outputs.x, (high - cut).reshape(shape)), (low + cut).reshape(shape))
    return replace(outputs, x=x)


def noisy(outputs: Outputs, strength: float, rows: Rows) -> Outputs:
    """White noise, of a deviation that is a share of the value range."""
    noise = rows.normal(*outputs.x.shape)[0].to(outputs.x)
    return replace(outputs, x=(outputs.x + 2 * strength * noise).clamp(-1, 1))


def duplicated(outputs: Outputs, strength: float, rows: Rows) -> Outputs:
    """A share of the outputs is replaced by copies of the others, with what was asked of them."""
    n = len(outputs)
    order = rows.bits(n)[0].argsort().to(outputs.x.device)
    count = min(max(1, round(strength * n)), n - 1)
    index = torch.arange(n, device=outputs.x.device)
    index[order[:count]] = order[count:].repeat(-(-count // (n - count)))[:count]
    return outputs.take(index)


def erased(outputs: Outputs, strength: float, rows: Rows) -> Outputs:
    """A box with a share `strength` of the space, its middle in the middle half, is set to the smallest value."""
    x = outputs.x
    n, space = len(x), x.shape[2:]
    side = strength ** (1 / len(space))
    middle = 0.25 + 0.5 * rows.uniform(n, len(space))[0].to(x.device)
    inside = torch.ones(n, 1, *space, dtype=torch.bool, device=x.device)
    for axis, length in enumerate(space):
        place = (torch.arange(length, device=x.device) + 0.5) / length
        near = (place - middle[:, axis, None]).abs() <= side / 2
        inside &= near.reshape(n, 1, *[length if k == axis else 1 for k in range(len(space))])
    ground = x.flatten(1).amin(1).reshape(-1, *[1] * (x.dim() - 1))
    return replace(outputs, x=torch.where(inside, ground, x))


def copied(outputs: Outputs, strength: float, rows: Rows) -> Outputs:
    """A share of the outputs is replaced by training events."""
    train = outputs.judges.train
    if train is None:
        return outputs
    count = max(1, round(strength * len(outputs)))
    order = rows.bits(len(outputs))[0].argsort().to(outputs.x.device)[:count]
    x = outputs.x.clone()
    x[order] = train[rows.integers(len(train), count)[0].to(train.device)].to(x)
    return replace(outputs, x=x)


def shuffled(outputs: Outputs, strength: float, rows: Rows) -> Outputs:
    """A share of the outputs exchange what was asked of them."""
    n = len(outputs)
    order = rows.bits(n)[0].argsort().to(outputs.x.device)[: max(2, round(strength * n))]
    condition = {}
    for name, value in outputs.condition.items():
        changed = value.clone()
        changed[order] = value[order.roll(1)]
        condition[name] = changed
    return replace(outputs, condition=condition)


def label_swapped(outputs: Outputs, strength: float, rows: Rows) -> Outputs:
    """A share of the outputs is said to have been asked for another class; an amount is reflected about the mean."""
    n = len(outputs)
    order = rows.bits(n)[0].argsort().to(outputs.x.device)[: max(1, round(strength * n))]
    condition = {}
    for name, value in outputs.condition.items():
        changed = value.clone()
        if value.is_floating_point():
            changed[order] = 2 * value.mean(0) - value[order]
        else:
            classes = int(value.max()) + 1
            step = 1 + rows.integers(max(classes - 1, 1), n)[0].to(value.device)[: len(order)]
            changed[order] = (value[order] + step) % classes
        condition[name] = changed
    return replace(outputs, condition=condition)


MUTANTS: tuple[Mutant, ...] = (
    Mutant("blurred", (0.5, 1.0, 2.0), "pixels of deviation", blurred, single=True),
    Mutant("clipped", (0.1, 0.3, 0.6), "share of the range lost", clipped, single=True),
    Mutant("noisy", (0.02, 0.05, 0.1), "share of the range", noisy, single=True),
    Mutant("erased", (0.05, 0.15, 0.3), "share of the space", erased, single=True),
    Mutant("duplicated", (0.05, 0.2, 0.5), "share of the set", duplicated),
    Mutant("copied", (0.05, 0.2, 0.5), "share of the set", copied),
    Mutant("label swapped", (0.1, 0.3, 1.0), "share of the set", label_swapped, conditional=True),
    Mutant("condition shuffled", (0.1, 0.3, 1.0), "share of the set", shuffled, conditional=True),
)
