"""The page of a calibration: the verdict, coverage, ranks, and some of the restorations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from oneprior.apps import plots, report
from oneprior.apps.evaluated import foot, number
from oneprior.apps.panels import strips
from oneprior.apps.pictures import Picture
from oneprior.apps.record import plain
from oneprior.evaluation import Calibration
from oneprior.tasks.calibration import Study


def figures(study: Study) -> dict[str, Any]:
    """What `result.json` keeps."""
    c = study.calibration
    assert c is not None
    return plain(
        {
            "verdict": c.verdict.sentence,
            "flagged": c.verdict.flagged,
            "conclusive": c.verdict.conclusive,
            "images": c.images,
            "draws": c.draws,
            "method": study.restoration.method,
            "exact": study.restoration.exact,
            "coverage": [vars(v) for v in c.coverage],
            "by_deviation": [
                {"deviation": b.deviation, "error": b.error, "coverage": b.coverage.value} for b in c.by_deviation
            ],
            "crps": vars(c.crps),
            "energy": vars(c.energy),
            "scores": study.scores,
            "findings": [vars(f) for f in c.verdict.findings],
            "chains": chains(study),
            "network_calls": study.restoration.network_calls,
            "seconds": round(study.restoration.seconds, 2),
        }
    )


def chains(study: Study) -> dict[str, float]:
    """How well the chains behind the draws have mixed; empty where there are none."""
    found = {}
    for name in ("r_hat", "effective_sample_size"):
        value = study.restoration.diagnostics.get(name)
        if isinstance(value, Tensor):
            found[name] = float(value.double().nanmedian())
    return found


def _mixed(study: Study) -> list[report.Section]:
    """A warning where draws are not independent: ranks and intervals take them to be."""
    found, draws = chains(study), len(study.restoration.draws)
    if not found:
        return []
    said = f"R-hat {found['r_hat']:.2f} and {found['effective_sample_size']:.0f} effective draws of {draws} (medians)."
    if found["r_hat"] > 1.1 or found["effective_sample_size"] < 0.8 * draws:
        said += (
            " **The draws are not independent, as the ranks take them to be: what is flagged may be the chain and not "
            "the posterior.** Draw fewer from longer chains."
        )
    return [report.Text(said)]


def write_page(study: Study, path: Path, prior: str, words: str, seed: int) -> Path:
    """report.html."""
    c, restoration = study.calibration, study.restoration
    assert c is not None
    widest = c.coverage[-1]
    operator = restoration.measurement.operator.title
    cards = [
        (f"{widest.value:.1%}", f"of entries inside their {widest.level:.0%} interval (± {widest.standard_error:.1%})"),
        ("miscalibrated" if c.verdict.flagged else "no flag", "the joint verdict over all tests, at 5 %"),
        (number(c.crps.value) or "–", f"CRPS (± {c.crps.standard_error:.2g}); smaller is better"),
        (f"{study.scores['PSNR of the mean'][0]:.2f} dB", "PSNR of the posterior mean, on [-1, 1]"),
    ]
    counted = (
        "all entries" if study.region is None else f"{study.region.double().mean():.0%} of the entries, which vary"
    )
    lead = (
        f"{c.images} real events, measured by `{operator}`, {c.draws} draws of each from {prior} by "
        f"{restoration.method}{'' if restoration.exact else ', an approximation'}; {counted} are counted."
    )
    sections = [
        report.Cards(cards),
        report.Text(f"**{c.verdict.sentence}**"),
        *_mixed(study),
        report.Strips(strips(restoration), "Some of them. The deviation is the posterior's, entry by entry."),
        *_coverage(c),
        *_ranks(c),
        report.Heading("Scores"),
        report.Table(
            ("", "mean", "± one standard error"),
            [[name, number(value), number(error)] for name, (value, error) in study.scores.items()]
            + [["CRPS", number(c.crps.value), number(c.crps.standard_error)]]
            + [["energy score", number(c.energy.value), number(c.energy.standard_error)]],
            "PSNR of a mean and of a draw are never to be compared: for exact draws the mean has 3 dB more.",
        ),
        report.Heading("Again"),
        report.Command(words, "This page, word for word:"),
    ]
    return report.Report("Calibrated?", sections, lead, foot(seed, restoration.seconds)).write(path)


def _coverage(c: Calibration) -> list[report.Section]:
    rows = [[f"{v.level:.0%}", f"{v.value:.1%}", f"{v.standard_error:.1%}", number(v.width)] for v in c.coverage]
    tenths = [b.coverage.value for b in c.by_deviation]
    sections: list[report.Section] = [
        report.Heading("Does the truth lie inside?"),
        report.Table(
            ("interval promises", "holds", "± one standard error", "mean width"),
            rows,
            "Between order statistics of the draws; the error is over events, since the entries of one err together.",
        ),
    ]
    if len(tenths) > 1:
        level = c.by_deviation[0].coverage.level
        place = [k + 1.0 for k in range(len(tenths))]
        shown = [
            report.Picture(
                plots.curves([("", place, tenths)], "tenth of predicted deviation", f"{level:.0%} holds", level=level),
                "Right on average is not enough: coverage among the entries of each tenth of predicted deviation.",
            ),
            report.Picture(
                plots.curves(
                    [("", *_sorted([(b.deviation, b.error) for b in c.by_deviation]))],
                    "predicted deviation",
                    "true error",
                    diagonal=True,
                ),
                "Root mean square, of the same tenths. On the dashed line the stated deviation is the true one.",
            ),
        ]
        sections.append(report.Gallery(shown))
    return sections


def _sorted(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    pairs = sorted(pairs)
    return [a for a, _ in pairs], [b for _, b in pairs]


def _ranks(c: Calibration) -> list[report.Section]:
    shown: list[Picture] = [
        plots.histogram(h.counts, h.low, h.high, name) for name, h in list(c.histograms.items())[:8]
    ]
    levels, t = c.tarp.levels.tolist(), c.tarp
    tarp = plots.curves(
        [("", levels, t.coverage.tolist())],
        "credibility",
        "expected coverage",
        band=(levels, t.low.tolist(), t.high.tolist()),
        diagonal=True,
    )
    findings = [[f.functional, f.question, f.says, number(f.p), number(f.corrected)] for f in c.verdict.findings[:12]]
    return [
        report.Heading("Ranks of the truth"),
        report.Text(
            "Under an exact posterior the rank of the truth among its draws is uniform (simulation-based calibration): "
            "a hump means too wide, a bowl too narrow, a slope a bias. The grey band holds all bars at once, 95 times "
            "of 100. Each event is one trial."
        ),
        report.Gallery([report.Picture(p) for p in shown]),
        report.Picture(tarp, "TARP: how often balls around random reference points hold the truth."),
        report.Table(
            ("function of the event", "question", "it says", "p", "p, corrected"),
            findings,
            "The tests with the smallest corrected p-values (Holm, over all functions and questions together).",
            words=3,
        ),
    ]
