"""The page of a comparison: the same measures of several runs, side by side, on the same real events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oneprior.apps import pictures, plots, report
from oneprior.apps.evaluated import figures, foot, number, warning
from oneprior.tasks.evaluation import Evaluation, Row


def all_figures(results: Sequence[Evaluation], names: Sequence[str]) -> dict[str, Any]:
    """What `result.json` keeps: the figures of each run by its name."""
    return {name: figures(result) for name, result in zip(names, results, strict=True)}


def write_page(results: Sequence[Evaluation], names: Sequence[str], path: Path, words: str) -> Path:
    """report.html."""
    clip = results[0].run.geometry.format == "clip"
    strips = [
        (name, pictures.grid(result.samples.x[:32], columns=16, pixels=48, clip=clip))
        for name, result in zip(names, results, strict=True)
    ]
    strips.append(("real", pictures.grid(results[0].real.x[:32], columns=16, pixels=48, clip=clip)))
    measures = list(dict.fromkeys(row.name for result in results for row in result.rows))
    found = [{row.name: row for row in result.rows} for result in results]
    lines: list[list[str | None]] = []
    best: set[tuple[int, int]] = set()
    for k, measure in enumerate(measures):
        rows = [named.get(measure) for named in found]
        some = next(row for row in rows if row is not None)
        cells = [None if row is None else _with_error(row.value, row.error) for row in rows]
        real = next((row.real for row in rows if row is not None and not math.isnan(row.real)), math.nan)
        lines.append(
            [measure.split(" (")[0] if "distance (" in measure else measure, *cells, number(real), some.better or None]
        )
        best |= {(k, 1 + j) for j in _winners(rows, some.better)}
    caption = (
        "± one standard error where there is one. The last column but one: real training events in place of samples. "
        "Bold: the best, where the next does not lie within two standard errors. Different kinds of likelihood do not "
        "compare: a bound on the likelihood gives more bits, and codes are not pixels."
    )
    first = measures[0] if measures else ""
    dots = [(name, named[first].value, 0.0) for name, named in zip(names, found, strict=True) if first in named]
    sections: list[report.Section] = [
        report.Strips(strips, "The first samples of each, not chosen, of the same rows."),
        report.Heading("In figures"),
        report.Table(("", *names, "real events", "better"), lines, caption, best=frozenset(best)),
        report.Text(warning(results[0])),
    ]
    if dots:
        sections.append(report.Picture(plots.points(dots, first)))
    sections += _specifications(results, names)
    notes = [f"{name}: {note}" for name, result in zip(names, results, strict=True) for note in result.notes]
    if notes:
        sections += [report.Heading("Left out"), *(report.Text(note) for note in notes)]
    sections += [report.Heading("Again"), report.Command(words, "This page, word for word:")]
    of = f"{len(results)} priors, {len(results[0].samples):,} samples of each"
    lead = f"{of} against {len(results[0].real):,} real events."
    seconds = sum(result.seconds for result in results)
    return report.Report("Compared", sections, lead, foot(results[0].seed, seconds)).write(path)


def _winners(rows: Sequence[Row | None], better: str) -> list[int]:
    """The best, unless the next lies within two standard errors of their difference."""
    known = sorted(
        ((row.value if better == "lower" else -row.value), j) for j, row in enumerate(rows) if row is not None
    )
    if not better or len(known) < 2:
        return []
    (first, j), (second, k) = known[:2]
    errors = [r.error for r in (rows[j], rows[k]) if r is not None and not math.isnan(r.error)]
    return [j] if second - first > 2 * math.hypot(*errors) else []


def _specifications(results: Sequence[Evaluation], names: Sequence[str]) -> list[report.Section]:
    if not results[0].findings:
        return []
    lines = []
    for k, finding in enumerate(results[0].findings):
        cells = [f"{r.findings[k].rate:.1%} {r.findings[k].state}" for r in results]
        real = next((f for f in results[0].findings_real if f.specification.name == finding.specification.name), None)
        last = None if real is None else f"{real.rate:.1%}"
        lines.append([finding.specification.name, finding.specification.scope, *cells, last])
    caption = "Share of samples that pass, and the verdict. Equal distances may hide what a specification sees."
    return [
        report.Heading("Specifications"),
        report.Table(("specification", "of", *names, "real events"), lines, caption, words=2),
    ]


def _with_error(value: float, error: float) -> str | None:
    shown = number(value)
    return shown if shown is None or math.isnan(error) else f"{shown} ± {error:.1g}"
