"""The page of an evaluation, and what is written beside it: figures, JUnit, counter-examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import oneprior
from oneprior.apps import pictures, plots, report
from oneprior.apps.record import plain
from oneprior.evaluation.specifications import Finding, Kill, Outputs
from oneprior.tasks.evaluation import Evaluation, Row

_SHOWN = 16


def figures(result: Evaluation) -> dict[str, Any]:
    """What `result.json` keeps of an evaluation."""
    return plain(
        {
            "family": result.run.family,
            "run": result.run.name,
            "features": result.features.name if result.features else "",
            "comparable_with_published": bool(result.features and result.features.comparable),
            "samples": len(result.samples),
            "real": len(result.real),
            "rows": [vars(row) for row in result.rows],
            "copying_found": result.copies.found if result.copies else None,
            "specifications": [finding.to_dict() for finding in result.findings],
            "specifications_on_real": [finding.to_dict() for finding in result.findings_real],
            "notes": result.notes,
            "seconds": round(result.seconds, 2),
        }
    )


def write_page(result: Evaluation, path: Path, words: str, kills: Sequence[Kill] = ()) -> Path:
    """report.html of one run."""
    sections = [
        *_cards(result),
        *_looks(result),
        report.Heading("In figures"),
        table(result),
        report.Text(warning(result)),
        *_labels(result),
        *_copies(result),
        *specification_sections(result.findings, result.findings_real, result.samples),
        *kill_sections(kills),
    ]
    if result.notes:
        sections += [report.Heading("Left out"), *(report.Text(note) for note in result.notes)]
    sections += [report.Heading("Again"), report.Command(words, "This page, word for word:")]
    of = f"{len(result.samples):,} samples of `{result.run.name}` ({result.run.family})"
    lead = f"{of} against {len(result.real):,} real events."
    return report.Report("Evaluated", sections, lead, foot(result.seed, result.seconds)).write(path)


def foot(seed: int, seconds: float) -> str:
    """The small print of a page."""
    threads = torch.get_num_threads()
    return (
        f"OnePrior {oneprior.__version__}, torch {torch.__version__}, {threads} thread{'s' * (threads > 1)}, "
        f"seed {seed}, {seconds:.0f} s. This page stands alone: it fetches nothing."
    )


def table(result: Evaluation) -> report.Table:
    """The rows, with the column of real training events beside."""
    lines, notes = [], []
    for row in result.rows:
        mark = ""
        if row.note:
            notes.append(row.note)
            mark = f" ({len(notes)})"
        lines.append(
            [
                (row.name.split(" (")[0] if "distance (" in row.name else row.name) + mark,
                number(row.value),
                _error(row.error),
                number(row.real),
                _arrow(row),
            ]
        )
    caption = " ".join(f"({k + 1}) {note}." for k, note in enumerate(notes))
    head = ("", "samples", "± one standard error", "real events instead", "better")
    return report.Table(head, lines, caption)


def warning(result: Evaluation) -> str:
    """What the distances may be compared with."""
    features = result.features
    assert features is not None
    if features.comparable:
        return (
            f"Features: **{features.name}**, a published network whose file is known: with as many samples and the "
            "same preparation these numbers may stand beside those of papers."
        )
    return (
        f"Features: **{features.name}**, {features.dimension} numbers an event. Distances under these features compare "
        f"with one another, for {len(result.samples):,} samples and {len(result.real):,} real events, and **with no "
        "published value**; they are no FID."
    )


def specification_sections(
    findings: Sequence[Finding], real: Sequence[Finding], outputs: Outputs, origin: str = "of the seed make them again"
) -> list[report.Section]:
    """The table of specifications, and the worst counter-examples of each that fails."""
    if not findings:
        return []
    truth = {finding.specification.name: finding for finding in real}
    lines = []
    for f in findings:
        other = truth.get(f.specification.name)
        lines.append(
            [
                f.specification.name,
                f.specification.scope,
                f"{f.passed} of {f.trials}",
                _interval(f),
                f"{f.specification.required:.1%}",
                f"**{f.state}**",
                None if other is None else f"{other.passed} of {other.trials}",
            ]
        )
    wrong = [f.specification.name for f in real if f.state == "broken"]
    caption = (
        "Pass rates with exact 95 % intervals (Clopper, Pearson). Met: even the lower end (one-sided, 95 %) "
        "reaches what "
        "is required; broken: even the upper end does not; undecided: more samples are needed. A number for the whole "
        "set is one trial."
    )
    if wrong:
        caption += f" **Real events break {', '.join(wrong)}: there the specification is wrong, not the samples.**"
    head = ("specification", "of", "pass", "95 % interval", "required", "state", "real events pass")
    sections: list[report.Section] = [report.Heading("Specifications"), report.Table(head, lines, caption, words=2)]
    for f in findings:
        if f.worst:
            at = torch.tensor([example.position for example in f.worst])
            shown = pictures.grid(outputs.x[at], columns=len(at), pixels=72)
            first = f.worst[0]
            values = ", ".join(f"{name} {value:.4g}" for name, value in first.values.items())
            rows = ", ".join(str(example.row) for example in f.worst)
            caption = f"{len(f.failed)} fail; the worst: {values}. Rows {rows} {origin}."
            sections += [report.Heading(f"Against: {f.specification.name}", 3), report.Picture(shown, caption)]
    return sections


def kill_sections(kills: Sequence[Kill]) -> list[report.Section]:
    """How many mutants the specifications caught."""
    if not kills:
        return []
    lines, rules = [], set()
    for k, kill in enumerate(kills):
        if k and kills[k - 1].mutant != kill.mutant:
            rules.add(k)
        by = sorted(((share, name) for name, share in kill.by.items() if share > 0.05), reverse=True)
        lines.append(
            [
                "not spoilt (false alarms)" if kill.mutant == "none" else kill.mutant,
                "" if kill.mutant == "none" else f"{kill.strength:g} {kill.unit}",
                f"{kill.killed} of {kill.sets}",
                None if not kill.outputs else f"{kill.output_rate:.1%}",
                by[0][1] if by else None,
            ]
        )
    caption = (
        "Good outputs were spoilt on purpose. A set is killed where some specification breaks on it; single outputs "
        "are counted where every one was spoilt and had passed before."
    )
    head = ("mutant", "strength", "sets killed", "outputs killed", "first by")
    return [
        report.Heading("Are the specifications any good?"),
        report.Table(head, lines, caption, rules=frozenset(rules), words=2),
    ]


def write_counterexamples(findings: Sequence[Finding], result: Evaluation, folder: Path) -> list[Path]:
    """The worst outputs of each specification that fails, in the user's own type, named by row."""
    written: list[Path] = []
    for finding in findings:
        for example in finding.worst:
            name = "".join(c if c.isalnum() else "-" for c in finding.specification.name)
            x = result.samples.x[example.position][None]
            written += result.run.save(x, folder / name, names=[f"row_{example.row:06d}"])
    return written


def number(value: float) -> str | None:
    """A figure as a table shows it."""
    return None if math.isnan(value) else f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3e}"


def _error(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:.2g}"


def _arrow(row: Row) -> str | None:
    return row.better or None


def _interval(finding: Finding) -> str | None:
    if finding.trials == 1:
        return None
    low, high = finding.interval
    return f"{low:.1%} – {high:.1%}"


def _cards(result: Evaluation) -> list[report.Section]:
    cards = []
    for row in result.rows[:1]:
        cards.append(
            (number(row.value) or "–", f"{row.name.split(' (')[0]}; real events instead: {number(row.real) or '–'}")
        )
    named = {row.name: row for row in result.rows}
    for name, words in (("precision", "of samples lie where data lie"), ("recall", "of data lie where samples lie")):
        if name in named:
            cards.append((f"{named[name].value:.0%}", words))
    if result.labels:
        cards.append((f"{result.labels.value:.0%}", "of samples show the class that was asked for"))
    if result.findings:
        met = sum(f.state == "met" for f in result.findings)
        cards.append((f"{met} of {len(result.findings)}", "specifications are met"))
    if result.copies:
        cards.append(("yes" if result.copies.found else "no", "copies of training events found"))
    return [report.Cards(cards)] if cards else []


def _looks(result: Evaluation) -> list[report.Section]:
    clip = result.run.geometry.format == "clip"

    def strip(x: Tensor) -> pictures.Picture:
        return pictures.grid(x[: 2 * _SHOWN], columns=_SHOWN, pixels=48, clip=clip)

    rows = [("samples", strip(result.samples.x)), ("real", strip(result.real.x))]
    asked = "; samples were asked for what the real events below them have" if result.samples.condition else ""
    return [report.Strips(rows, f"The first of each, not chosen{asked}.")]


def _labels(result: Evaluation) -> list[report.Section]:
    if result.labels is None:
        return []
    names = next((spec.names for spec in result.run.conditions if spec.name == "label"), ())
    share = result.labels.by_class
    rows = [
        (names[k] if k < len(names) else str(k), float(share[k]), _binomial(result, k))
        for k in range(len(share))
        if not share[k].isnan()
    ]
    return [
        report.Heading("Delivered as asked"),
        report.Picture(plots.points(rows, "share of samples that show the class they were asked for")),
    ]


def _binomial(result: Evaluation, k: int) -> float:
    """Standard error of the share of a class."""
    assert result.labels is not None
    share, n = float(result.labels.by_class[k]), int(result.labels.confusion[k].sum())
    return math.sqrt(share * (1 - share) / max(n, 1))


def _copies(result: Evaluation) -> list[report.Section]:
    copies, train = result.copies, result.train
    if copies is None or train is None:
        return []
    worst = copies.suspects[:_SHOWN]
    rows = [
        ("sample", pictures.grid(result.samples.x[worst], columns=_SHOWN, pixels=48)),
        ("nearest training event", pictures.grid(train[copies.source[worst]], columns=_SHOWN, pixels=48)),
    ]
    said = "**Copying is shown.**" if copies.found else "No copying is shown."
    caption = (
        f"The samples that lie most clearly beside one training event. {said} {copies.copies:.1%} of samples have a "
        f"smaller ratio of their two nearest distances than 99 % of test events ({copies.expected:.1%} is right; "
        f"p = {copies.copies_p:.2g}). {copies.closer:.0%} of pairs have the sample nearer to the training set "
        "than the test "
        "event: above one half, it may be copies, or too little variety."
    )
    return [report.Heading("Copies?"), report.Strips(rows, caption)]
