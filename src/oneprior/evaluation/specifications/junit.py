"""Findings as JUnit XML, so that a specification gates a release in CI.

Every specification is a test case. A broken one fails, and so does an undecided one: a gate opens on evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from oneprior.core import replacing
from oneprior.evaluation.specifications.suite import Finding


def write_junit(findings: Sequence[Finding], path: Path | str, suite: str, seconds: float = 0.0) -> Path:
    """Write the file; returns its path."""
    failures = sum(f.state != "met" for f in findings)
    root = ElementTree.Element("testsuites")
    group = ElementTree.SubElement(
        root,
        "testsuite",
        name=suite,
        tests=str(len(findings)),
        failures=str(failures),
        errors="0",
        skipped="0",
        time=f"{seconds:.3f}",
    )
    for f in findings:
        case = ElementTree.SubElement(
            group, "testcase", classname=f"{suite}.{f.specification.scope}", name=f.specification.name
        )
        low, high = f.interval
        said = (
            f"{f.passed} of {f.trials} pass ({f.rate:.2%}, 95 % interval {low:.2%} to {high:.2%}); "
            f"{f.specification.required:.2%} is required"
        )
        if f.state == "met":
            ElementTree.SubElement(case, "system-out").text = said
            continue
        failure = ElementTree.SubElement(case, "failure", type=f.state, message=said)
        lines = [f.advice] if f.advice else []
        lines += [f"row {e.row}: margin {e.margin:.3g}, {_words(e.values)}" for e in f.worst]
        failure.text = "\n".join(lines)
    ElementTree.indent(root)
    with replacing(path) as draft:
        ElementTree.ElementTree(root).write(draft, encoding="utf-8", xml_declaration=True)
    return Path(path)


def _words(values: dict[str, float] | object) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in dict(values).items())  # type: ignore[call-overload]
