"""How far every method's draws are from the posterior, where that is known (`closed_forms`): no method is exempt.

Every problem is solved 32 times over, as 32 rows with streams of their own, so that every error is that of independent
repetitions, whatever a method does within one: chains, particles, or draws that share a search.

- bias: |mean of the draws - true mean| in posterior deviations, root mean square over the entries, with chance taken
  off (the sum over pairs of different repetitions, which has mean 0 for an exact method).
- ratio: standard deviation of the draws, repetitions pooled, over the true one; its mean and range over entries.
- lesser mode: the share of draws in the less likely of two modes, over the true share: 1 is right, 0 is blind.
- total variation: between the frequencies of the 256 grids of codes and their shares; some of it is chance, which is
  the line of enumeration.
- evidence: the method's log p(y) less the true one, root mean square over the cases.
- worth: how many independent draws a draw is worth for the mean: true of each repetition on its own, not of its bias.

A method that stops with `DivergedError` on a problem says so in the table, and the rest of its line is of the others.

Claims are tested: of every method that calls its draws exact, bias, ratio, lesser mode and evidence must lie within
four standard errors of what is true. The others are printed as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.closed_forms import Answer, Problem, problems
from benchmarks.harness import Figure, Options, record
from oneprior.core import DivergedError, IncompatiblePrior, InputError, Rows
from oneprior.inference import DAPS, MixtureCovariance, Posterior, Sampler, bayes
from oneprior.priors.mixture import GaussianMixturePrior
from oneprior.tasks.methods import METHODS

CLAIM = (
    "Bias of every method on posteriors that are known (Gaussians over three decades, two modes, a grid of codes), "
    "published settings beside ours. Deviations are ratios to the true ones."
)
REPETITIONS = 32
DRAWS, FEW = 128, 16
LONG = {
    "daps (langevin)", "resample", "dps", "red-diff", "elliptical slice", "brgm", "brgm variational", "hmc",
    "randomise then optimise",
}  # fmt: skip
"""Methods of thousands of calls as published, which get few draws then: their bias is larger than the error."""
PARTLY = {"elliptical-slice": ("gaussian, mask", "fold")}
"""Problems of a method as published whose burn-in alone takes half of the time of all the others."""
ELSEWHERE = ("blind", "blind-gaussian", "blind-daps")  # unknown instruments: tests/inference/test_blind.py


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Args:
        name: of the method.
        setting: "ours" or "published".
        sampler: it.
        draws: of each repetition.
        problems: the only ones that it is tried on; all by default.
    """

    name: str
    setting: str
    sampler: Sampler
    draws: int = DRAWS
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A number and its standard error."""

    value: float
    error: float

    @property
    def gap(self) -> float:
        """How many errors from 0."""
        return abs(self.value) / max(self.error, 1e-12)


@dataclass(frozen=True)
class Case:
    """What one method made of one measurement.

    Args:
        problem: its name.
        kind: "gaussian", "modes" or "codes".
        sigma: its noise level.
        square: squared bias of the mean, over variances, mean over entries.
        ratio: of deviations, mean over entries.
        range: of those ratios.
        lesser: share of the lesser mode less the true one, and the true one.
        distance: total variation.
        evidence: log p(y) less the true one.
        worth: independent draws that a draw is worth.
        calls: network calls a draw.
        exact: what the method claims.
    """

    problem: str
    kind: str
    sigma: float
    square: Found
    ratio: Found
    range: tuple[float, float]
    lesser: tuple[Found, float] | None
    distance: Found | None
    evidence: Found | None
    worth: float | None
    calls: float
    exact: bool


def entries() -> list[Entry]:
    """All methods by name, ours and as published."""
    found = []
    for name, method in METHODS.items():
        if name in ELSEWHERE:
            continue
        found.append(Entry(name, "ours", method.default, FEW if "brgm" in name else DRAWS))
        if method.published is not None:
            sampler = method.published()
            if sampler != method.default:
                few = FEW if sampler.name in LONG else DRAWS
                found.append(Entry(name, "published", sampler, few, PARTLY.get(name, ())))
    return found


def _guided(problem: Problem) -> Iterator[Entry]:
    """DAPS with the mixture as a guide, where there is one."""
    law = problem.forms[0]
    if isinstance(law, GaussianMixturePrior):
        yield Entry("daps, guided by the mixture", "ours", DAPS(covariance=MixtureCovariance(law)))


def run(options: Options) -> None:
    """Measure every method on every problem that it serves."""
    repetitions = 4 if options.quick else REPETITIONS
    lines: dict[tuple[str, str], list[Case]] = {}
    diverged: dict[tuple[str, str], list[str]] = {}
    spent: dict[tuple[str, str], float] = {}
    for problem in problems():
        for entry in [*entries(), *_guided(problem)]:
            if (options.quick and entry.setting == "published") or problem.name not in (
                entry.problems or (problem.name,)
            ):
                continue
            start = time.perf_counter()
            key = (entry.name, entry.setting)
            try:
                cases = measure(entry, problem, repetitions, 8 if options.quick else entry.draws)
            except DivergedError:
                cases = []
                diverged.setdefault(key, []).append(problem.name)
            if cases:
                lines.setdefault(key, []).extend(cases)
            spent[key] = spent.get(key, 0.0) + time.perf_counter() - start
    order = {key: k for k, key in enumerate([(e.name, e.setting) for e in entries()])}
    keys = sorted(lines, key=lambda key: order.get(key, len(order)))
    table = [
        {**_line(*key, lines[key]), "diverged": "; ".join(diverged.get(key, [])), "seconds": round(spent[key], 1)}
        for key in keys
    ]
    record(
        "posterior_bias",
        _figures(lines),
        options,
        table=table,
        claim=CLAIM,
        repetitions=repetitions,
        cases=[_case(*key, case) for key in keys for case in lines[key]],
    )


# Measuring ----------------------------------------------------------------------------------------------------------


def measure(entry: Entry, problem: Problem, repetitions: int, draws: int) -> list[Case]:
    """One case for each measurement of a problem; none where the method does not serve it."""
    cases = len(problem.answers)
    row = torch.arange(cases).repeat_interleave(repetitions)
    posterior = _served(entry.sampler, problem, row)
    if posterior is None:
        return []
    done = entry.sampler(posterior, draws, Rows(len(row), seed=7))
    x = done.x.double().flatten(2).unflatten(1, (cases, repetitions))  # (draws, cases, repetitions, d)
    evidence = done.diagnostics.get("log_evidence")
    found = []
    for k, answer in enumerate(problem.answers):
        log = None if evidence is None else evidence.double().reshape(cases, repetitions)[k]
        case = _measured(problem, k, answer, x[:, k], log)
        found.append(replace(case, calls=done.network_calls / (len(row) * draws), exact=done.exact))
    return found


def _served(sampler: Sampler, problem: Problem, row: Tensor) -> Posterior | None:
    """The problem in the first form that the method takes."""
    for form in problem.forms:
        posterior = bayes(form, problem.likelihood.take(row))
        try:
            sampler.check(posterior)
        except (IncompatiblePrior, InputError):
            continue
        return posterior
    return None


def _measured(problem: Problem, k: int, answer: Answer, x: Tensor, log_evidence: Tensor | None) -> Case:
    """Draws x (S, R, d) of one case against its answer."""
    S, R, d = x.shape
    z = (x - answer.mean) / answer.deviation
    means = z.mean(0)  # (R, d)
    square = (means.sum(0).square().sum() - means.square().sum()) / (R * (R - 1) * d)
    pairs = means @ means.T / d
    without = torch.stack([(pairs.sum() - pairs.trace() - 2 * (pairs[r].sum() - pairs[r, r])) for r in range(R)])
    jackknife = without / ((R - 1) * (R - 2))
    spread = torch.cov(means.T).reshape(
        d, d
    )  # the jackknife is too small where there is no bias: so the error there too
    chance = float((spread @ spread).trace() * 2 / (R * (R - 1))) ** 0.5 / d
    ratios = torch.stack([_pooled(z, [s for s in range(R) if s != r]) for r in range(R)])
    pooled = _pooled(z, list(range(R)))
    between, within = means.var(0), pooled.square()
    worth = (within / between / S).mean() if bool((between > 1e-12).all()) else None
    lesser = distance = evidence = None
    if problem.lesser:
        inside = problem.lesser[k](x.flatten(0, 1)).reshape(S, R).double().mean(0)
        assert answer.lesser is not None
        lesser = (Found(float(inside.mean()) - answer.lesser, float(inside.std()) / R**0.5), answer.lesser)
    if problem.events is not None and answer.share is not None:
        index = torch.cdist(x.flatten(0, 1), problem.events).argmin(1).reshape(S, R)
        counts = torch.stack([torch.bincount(index[:, r], minlength=len(problem.events)) for r in range(R)]).double()
        total = counts.sum(0)
        leave = torch.stack([_variation(total - c, answer.share) for c in counts])
        distance = Found(float(_variation(total, answer.share)), _error(leave))
    if log_evidence is not None:
        gap = log_evidence - answer.log_evidence
        evidence = Found(float(gap.mean()), float(gap.std()) / R**0.5 + 1e-4)  # single precision, at best
    return Case(
        problem.name,
        problem.kind,
        float(problem.likelihood.noise_level[k]),
        Found(float(square), max(_error(jackknife), chance)),
        Found(float(pooled.mean()), _error(ratios.mean(1))),
        (float(pooled.amin()), float(pooled.amax())),
        lesser,
        distance,
        evidence,
        None if worth is None else float(worth),
        calls=0.0,
        exact=False,
    )


def _pooled(z: Tensor, repetitions: list[int]) -> Tensor:
    """Standard deviations of draws (S, R, d) of some repetitions together, (d,)."""
    return z[:, repetitions].flatten(0, 1).std(0)


def _variation(counts: Tensor, share: Tensor) -> Tensor:
    return 0.5 * (counts / counts.sum() - share).abs().sum()


def _error(left: Tensor) -> float:
    """The jackknife's standard error from estimates that leave one repetition out."""
    R = len(left)
    return float(((left - left.mean()).square().sum() * (R - 1) / R).sqrt())


# Telling ------------------------------------------------------------------------------------------------------------


def _figures(lines: dict[tuple[str, str], list[Case]]) -> dict[str, Figure]:
    """The largest gap of every method that claims exactness, in standard errors."""
    gaps: dict[str, float] = {}
    count = 0
    for (name, setting), cases in lines.items():
        for case in cases:
            if not case.exact:
                continue
            found = {"bias": case.square, "ratio": Found(case.ratio.value - 1, case.ratio.error)}
            found |= {"lesser mode": case.lesser[0]} if case.lesser else {}
            found |= {"evidence": case.evidence} if case.evidence else {}
            for what, number in found.items():
                gaps[f"{name} ({setting}), {case.problem}, sigma {case.sigma:g}: {what}"] = number.gap
                count += 1
    worst = max(gaps, key=lambda key: gaps[key])
    note = f"standard errors, of {count} numbers of methods that call themselves exact; {worst}"
    return {"largest_gap_of_an_exact_method": Figure(gaps[worst], None, ("<=", 4.0), note)}


def _line(name: str, setting: str, cases: list[Case]) -> dict[str, Any]:
    """One line of the table: root mean squares and means over the cases of each kind."""
    gaussian = [c for c in cases if c.kind == "gaussian"]
    modes = [c for c in cases if c.kind == "modes"]
    codes = [c for c in cases if c.kind == "codes"]
    claims = {c.exact for c in cases}
    exact = "yes" if claims == {True} else "no" if claims == {False} else "on Gaussians"
    evidence = [c.evidence for c in cases if c.evidence is not None]
    worth = [c.worth for c in cases if c.worth is not None and math.isfinite(c.worth)]
    return {
        "method": name,
        "settings": setting,
        "claims exactness": exact,
        "bias, Gaussians": _bias(gaussian),
        "ratio, Gaussians": _ratio(gaussian),
        "range": _range(gaussian),
        "bias, two modes": _bias(modes),
        "lesser mode, of its share": _share(modes),
        "bias, codes": _bias(codes),
        "total variation": _plus([c.distance for c in codes if c.distance is not None]),
        "error of log evidence": _size(evidence),
        "worth of a draw": f"{sum(worth) / len(worth):.2g}" if worth else "",
        "calls a draw": round(sum(c.calls for c in cases) / len(cases), 1),
    }


def _bias(cases: list[Case]) -> str:
    """Root of the mean square bias, and what one standard error more would make of it."""
    if not cases:
        return ""
    square = sum(c.square.value for c in cases) / len(cases)
    error = sum(c.square.error**2 for c in cases) ** 0.5 / len(cases)
    bias = max(square, 0.0) ** 0.5
    return _told(Found(bias, (max(square, 0.0) + error) ** 0.5 - bias))


def _ratio(cases: list[Case]) -> str:
    return _plus([c.ratio for c in cases])


def _range(cases: list[Case]) -> str:
    return f"{min(c.range[0] for c in cases):.2f} .. {max(c.range[1] for c in cases):.2f}" if cases else ""


def _share(cases: list[Case]) -> str:
    """Found over true share of the lesser mode, mean over the cases."""
    return _plus([Found(1 + f.value / true, f.error / true) for f, true in (c.lesser for c in cases if c.lesser)])


def _plus(found: list[Found]) -> str:
    """The mean of some numbers with its error."""
    if not found:
        return ""
    return _told(Found(sum(f.value for f in found) / len(found), sum(f.error**2 for f in found) ** 0.5 / len(found)))


def _size(found: list[Found]) -> str:
    """The root mean square of some numbers with its error."""
    size = (sum(f.value**2 for f in found) / max(1, len(found))) ** 0.5
    return _told(Found(size, sum(f.error**2 for f in found) ** 0.5 / len(found))) if found else ""


def _told(found: Found) -> str:
    """A number to the digits that its error leaves, of which one."""
    digits = max(0, min(3, 1 - math.floor(math.log10(max(found.error, 1e-3)))))
    return f"{found.value:.{digits}f} ± {found.error:.{digits}f}"


def _case(name: str, setting: str, case: Case) -> dict[str, Any]:
    """One case as plain numbers, for the record."""
    plain: dict[str, Any] = {"method": name, "settings": setting, "problem": case.problem, "sigma": case.sigma}
    numbers = {"squared bias": case.square, "ratio": case.ratio, "evidence": case.evidence, "variation": case.distance}
    numbers["lesser mode"] = case.lesser[0] if case.lesser else None
    plain |= {key: None if f is None else [f.value, f.error] for key, f in numbers.items()}
    return {**plain, "true lesser": case.lesser and case.lesser[1], "worth": case.worth, "exact": case.exact}
