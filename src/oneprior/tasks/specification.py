"""Write a specification for one's own data: set its bounds on one half, try it on the other, and on mutants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from oneprior.core import Rows
from oneprior.evaluation.specifications import (
    Finding,
    Fitted,
    Kill,
    Outputs,
    fit_bounds,
    halves,
    kill_rates_iter,
    read_content,
    useless,
    validate,
)


@dataclass(frozen=True)
class Specified:
    """A specification and what it is worth.

    Args:
        fitted: with numbers for bounds.
        findings: real events that the bounds were not set on; the last one is of all rules of one output together.
        kills: of mutants made from these.
        useless: names of specifications that caught no mutant.
        shown: the real events it was tried on.
        doing: what is being done.
        seconds: wall time.
        done: the finished share.
    """

    fitted: Fitted
    findings: tuple[Finding, ...]
    kills: tuple[Kill, ...]
    useless: tuple[str, ...]
    shown: Outputs
    doing: str = ""
    seconds: float = 0.0
    done: float = 0.0


def specify_iter(
    spec: Path | str,
    real: Outputs,
    *,
    tail: float = 0.002,
    widen: float = 0.15,
    sets: int = 30,
    size: int = 100,
    seed: int = 0,
) -> Iterator[Specified]:
    """Fit, validate, and spoil.

    Args:
        spec: the YAML file.
        real: real events with their conditions, groups and judges.
        tail: see `fit_bounds`.
        widen: see `fit_bounds`.
        sets: spoilt sets of each class of mutant and strength.
        size: outputs in each.
        seed: of the halves and the mutants.

    Yields:
        The state; the last one is whole.
    """
    start = time.perf_counter()
    content, rows = read_content(spec), Rows(1, seed=seed, stream="specify")
    with torch.no_grad():
        first, second = halves(real, rows)
        fitted = fit_bounds(content, first, tail=tail, widen=widen)
        state = Specified(fitted, (), (), (), second, "bounds are set", 0.05)
        yield state
        state = replace(state, findings=validate(fitted.suite, second), doing="real events", done=0.15)
        yield state
        kills = kill_rates_iter(fitted.suite, second, rows, sets=sets, size=min(size, max(2, len(second) // 2)))
        for share, kill in kills if sets else ():
            doing, done = f"{kill.mutant} {kill.strength:g}", 0.15 + 0.85 * share
            seconds = time.perf_counter() - start
            state = replace(state, kills=(*state.kills, kill), doing=doing, done=done, seconds=seconds)
            yield state
        yield replace(state, useless=useless(fitted.suite, state.kills) if state.kills else (), done=1.0)
