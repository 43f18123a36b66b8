"""The page of a specification: its bounds, what real events say of it, and what it catches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oneprior.apps import pictures, report
from oneprior.apps.evaluated import foot, kill_sections, number, specification_sections
from oneprior.apps.record import plain
from oneprior.evaluation.specifications import TOGETHER
from oneprior.tasks.specification import Specified


def figures(result: Specified) -> dict[str, Any]:
    """What `result.json` keeps."""
    return plain(
        {
            "suite": result.fitted.suite.name,
            "fitted_on": result.fitted.events,
            "tried_on": max((f.trials for f in result.findings), default=0),
            "findings": [f.to_dict() for f in result.findings],
            "kills": [{**vars(k), "rate": k.rate, "output_rate": k.output_rate} for k in result.kills],
            "useless": result.useless,
        }
    )


def write_page(result: Specified, path: Path, words: str, seed: int) -> Path:
    """report.html."""
    rows = []
    for s in result.fitted.suite.specifications:
        for bound in s.rule.bounds():
            low, high = (None if v is None else number(v) for v in (bound.at_least, bound.at_most))
            rows.append([s.name, f"`{bound.words}`", low, high, f"{s.required:.1%}"])
    last = next((f for f in result.findings if f.specification.name == TOGETHER), None)
    cards = []
    if last is not None:
        cards = [
            (f"{last.passed} of {last.trials}", "real events it had not seen pass everything asked of one output"),
            (f"{last.lower:.1%}", "of real events pass, at the least (one-sided, 95 %)"),
        ]
    middle = [result.kills[k] for k in range(2, len(result.kills), 3)]
    if middle:
        cards.append(
            (
                f"{sum(k.rate >= 0.95 for k in middle)} of {len(middle)}",
                "classes of mutant are caught at middle strength",
            )
        )
    sections: list[report.Section] = [
        report.Cards(cards),
        report.Strips([("real events", pictures.grid(result.shown.x[:16], columns=16, pixels=48))]),
        report.Heading("Bounds"),
        report.Table(
            ("specification", "measure", "at least", "at most", "required"),
            rows,
            f"`auto` bounds were set on {result.fitted.events:,} real events (subjects); below, others try them.",
            words=2,
        ),
        *specification_sections(result.findings, (), result.shown, "of the data"),
        *kill_sections(result.kills),
    ]
    if result.useless:
        names = ", ".join(result.useless)
        sections.append(
            report.Text(
                f"**Useless against these mutants: {names}.** They catch none of them; keep them only for a reason."
            )
        )
    sections += [report.Heading("Again"), report.Command(words, "This page, word for word:")]
    return report.Report(f"Specified: {result.fitted.suite.name}", sections, "", foot(seed, result.seconds)).write(path)
