"""The example specifications on real data that their bounds were not set on, and on mutants of it.

Fashion-MNIST: bounds on half of the 10,000 test images, tried on the other half. Brain slices: 185 subjects are fewer
than 300, so each half of 160 of them is tried with bounds set on the other half (a subject counts as one trial, and
passes if all of its 12 slices do); the remaining 25 subjects stand for training data, of which nothing may be a copy.
"""

from __future__ import annotations

from typing import Any

import torch
import yaml

from benchmarks.harness import ROOT, Figure, Options, fashion, feature_network, record
from benchmarks.segmenter import segmenter
from benchmarks.sets import as_condition, brains
from oneprior.core import AffineMap, Rows
from oneprior.evaluation.specifications import (
    Finding,
    Judges,
    Kill,
    Outputs,
    clopper_pearson,
    fit_bounds,
    halves,
    kill_rates,
    useless,
    validate,
)

_GREY = AffineMap.from_range(0, 255)
_CLASSES = ("blurred", "clipped", "duplicated", "label swapped", "condition shuffled")
_REFERENCE = 25  # subjects that stand for training data


@torch.no_grad()
def run(options: Options) -> None:
    """Both examples."""
    sets, size = (2, 50) if options.quick else (30, 100)
    figures: dict[str, Figure] = {}
    table: list[dict[str, Any]] = []
    for name, parts, widen in (
        ("fashion-mnist", [_fashion(options)], 0.15),
        ("brain-slices", _brains(options), 0.6),
    ):
        content = yaml.safe_load((ROOT / "examples/specifications" / f"{name}.yaml").read_text())
        found: list[tuple[Finding, ...]] = []
        kills: tuple[Kill, ...] = ()
        for fit, test in parts:
            fitted = fit_bounds(content, fit, widen=widen)
            found.append(validate(fitted.suite, test))
            if not kills:
                kills = kill_rates(fitted.suite, test, Rows(1, seed=1), sets=sets, size=size)
                idle = useless(fitted.suite, kills)
        table += _passes(name, found)
        last = table[-1]
        short = name.split("-")[0]
        figures[f"{short}_lower_bound"] = Figure(
            last["lower 95 %"],
            None,
            (">=", 0.98),
            f"of the share of real items ({last['trials']} independent ones) that pass all of one output together",
        )
        figures[f"{short}_least_lower_bound"] = Figure(
            min(
                row["lower 95 %"]
                for row in table
                if row["set"] == name and row["lower 95 %"] is not None and row["trials"] > 1
            ),
            None,
            (">=", 0.98),
            "the least of the single specifications",
        )
        figures[f"{short}_independent_items"] = Figure(last["trials"], None, (">=", 300))
        middle = kills[2::3]
        asked = [k for k in middle if k.mutant in _CLASSES]
        figures[f"{short}_least_kill_rate"] = Figure(
            min(k.rate for k in asked), None, (">=", 0.95), f"sets of {size}, middle strength: {', '.join(_CLASSES)}"
        )
        more = {k.mutant: k.rate for k in middle if k.mutant not in _CLASSES}
        figures[f"{short}_least_kill_rate_of_more"] = Figure(min(more.values()), None, None, ", ".join(more))
        figures[f"{short}_false_alarms"] = Figure(kills[0].rate, None, None, "real sets that are flagged")
        figures[f"{short}_useless"] = Figure(len(idle), None, ("<=", 0), ", ".join(idle) or "no specification")
        table += [_kill(name, k) for k in kills]
    record(
        "specifications",
        figures,
        options,
        table=table,
        claim="Example specifications on held-out real data, and on mutants of it.",
        sets=sets,
        set_size=size,
        split_seed=11,
    )


def _passes(name: str, found: list[tuple[Finding, ...]]) -> list[dict[str, Any]]:
    """Pass rates over all halves that were tried."""
    rows = []
    for same in zip(*found, strict=True):
        trials, passed = sum(f.trials for f in same), sum(f.passed for f in same)
        of = same[0].specification.scope
        rows.append(
            {
                "set": name,
                "what": same[0].specification.name,
                "of": of,
                "trials": trials,
                "passed": passed,
                "lower 95 %": clopper_pearson(passed, trials, 0.9)[0],
                "caught": None,
                "outputs caught": None,
                "first by": "",
            }
        )
    return rows


def _kill(name: str, k: Kill) -> dict[str, Any]:
    best = max(k.by, key=lambda s: k.by[s]) if k.killed else ""
    return {
        "set": name,
        "what": f"mutant: {k.mutant}",
        "of": f"{k.strength:g} {k.unit}",
        "trials": k.sets,
        "passed": k.sets - k.killed,
        "lower 95 %": None,
        "caught": k.rate,
        "outputs caught": k.output_rate if k.outputs else None,
        "first by": best,
    }


def _fashion(options: Options) -> tuple[Outputs, Outputs]:
    data = fashion(options)
    network = feature_network(options, data)
    judges = Judges(classify=lambda x: torch.cat([network(part) for part in x.split(500)]), train=data.train[:20_000])
    real = Outputs(data.test, {"label": data.test_labels}, units=_GREY, judges=judges)
    if options.quick:
        real = real.take(torch.arange(600))
    return halves(real, Rows(1, seed=11))


def _brains(options: Options) -> list[tuple[Outputs, Outputs]]:
    data, network = brains(options), segmenter(options)
    order = Rows(1, seed=11, stream="reference").bits(int(data.subject.max()) + 1)[0].argsort()
    reference = torch.isin(data.subject, order[:_REFERENCE])
    judges = Judges(
        segment=lambda x: torch.cat([(network(part) > 0).long() for part in x.split(500)]), train=data.x[reference]
    )
    told = {"ventricle": as_condition(data.ventricle).float()}
    real = Outputs(data.x, told, units=_GREY, group=data.subject, judges=judges)
    first, second = halves(real.take((~reference).nonzero()[:, 0]), Rows(1, seed=11))
    return [(first, second), (second, first)]
