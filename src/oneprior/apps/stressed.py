"""The page of a stress test, and what is written beside it: figures, and the failures that the model is surest of."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.apps import pictures, plots, report
from oneprior.apps.evaluated import foot, number
from oneprior.apps.record import plain
from oneprior.core import InputError, replacing
from oneprior.evaluation import amount_agreement, dice, label_accuracy
from oneprior.tasks.questions import Amounts, Classes, Masks
from oneprior.tasks.stress import Answers, Line, Rate, StressTest

_SHOWN, _WRITTEN, _CLASSES = 12, 48, 12


def figures(result: StressTest) -> dict[str, Any]:
    """What `result.json` keeps of a stress test."""
    real, made = result.answers
    question = result.question
    found: dict[str, Any] = {
        "model": result.model,
        "family": result.run.family,
        "run": result.run.name,
        "condition": question.spec.name,
        "kind": question.spec.kind,
        "tolerance": result.tolerance,
        "real": _rate(result.whole.real),
        "generated": _rate(result.whole.made),
        "by_condition": [_line(line, bool(result.judge)) for line in result.conditions],
        "by_distance": [_line(line, bool(result.judge)) for line in result.distances],
        "distance": {"features": result.features, "to": result.reference},
        "failures": [_failure(result, int(k)) for k in result.worst(_WRITTEN)],
        "seconds": round(result.seconds, 2),
    }
    if result.judge:
        found["judge"] = {
            "name": result.judge,
            "confirmed": _rate(result.whole.confirmed),
            "disputes_of_generated": _rate(result.disputed),
            "disputes_of_real": _rate(result.disputed_real),
        }
    if isinstance(question, Classes):
        found["confusion"] = {name: _confusion(a, question.spec.classes) for name, a in _both(real, made)}
    elif isinstance(question, Amounts):
        found["agreement"] = {name: vars(_agreement(a)) for name, a in _both(real, made) if _agreement(a)}
    elif isinstance(question, Masks):
        found["dice"] = {name: _dice(a, question)[0] for name, a in _both(real, made)}
    return plain(found)


def said(result: StressTest) -> str:
    """The last words on the screen."""
    whole = result.whole
    text = f"{result.model} fails on {_percent(whole.real)} of {whole.real.trials:,} real events"
    text += f" and on {_percent(whole.made)} of {whole.made.trials:,} generated ones"
    if result.judge:
        text += f"; {_percent(whole.confirmed)} of the {whole.confirmed.trials:,} that the judge confirms"
    return text


def write_failures(result: StressTest, folder: Path) -> list[Path]:
    """The failures that the model is surest of, in the user's own type, named by row; masks as .npy beside."""
    _, made = result.answers
    for stale in folder.glob("row_*"):
        stale.unlink()
    written: list[Path] = []
    for k in result.worst(_WRITTEN).tolist():
        name = f"row_{k:06d}"
        if isinstance(result.question, Masks):
            kept = {
                "asked": made.told[result.question.spec.name][k],
                "said": made.delivered[k],
            }  # as the run is told it
            written += [_array(folder / f"{name}_{word}.npy", value) for word, value in kept.items()]
        else:
            asked, answer = (_word(result, t[k]) for t in (made.requested, made.delivered))
            name += "".join(c if c.isalnum() or c in "-._" else "-" for c in f"_asked_{asked}_said_{answer}")
        written += result.run.save(made.x[k][None], folder, names=[name])
    return written


def write_page(result: StressTest, path: Path, words: str, flags: Sequence[str] = ()) -> Path:
    """report.html.

    Args:
        result: the last state.
        path: of the page.
        words: the command as it was typed.
        flags: those of it that `oneprior sample` needs to draw the same.
    """
    name = result.question.spec.name
    real, made = result.answers
    sections: list[report.Section] = [
        *_cards(result),
        report.Text(_caution(result)),
        report.Heading(f"By {name}"),
        *_rates(result, result.conditions, f"size of {name}" if isinstance(result.question, Masks) else name),
        *_looks(result),
        report.Heading("By distance from the data"),
        *_rates(result, result.distances, "distance"),
        *_answers(result),
        *_failures(result, path.parent, flags),
        report.Heading("Again"),
        report.Command(words, "This page, word for word:"),
    ]
    lead = (
        f"`{result.model}` was asked for `{name}` of {len(made):,} events that `{result.run.name}` "
        f"({result.run.family}) generated, and of {len(real):,} real ones."
    )
    return report.Report("Stress test", sections, lead, foot(result.seed, result.seconds)).write(path)


def _cards(result: StressTest) -> list[report.Section]:
    whole = result.whole
    cards = [
        (_percent(whole.real), f"of {whole.real.trials:,} real events fail ({_interval(whole.real)})"),
        (_percent(whole.made), f"of {whole.made.trials:,} generated events fail ({_interval(whole.made)})"),
    ]
    if result.judge:
        of = f"of the {whole.confirmed.trials:,} that the judge confirms fail ({_interval(whole.confirmed)})"
        cards.append((_percent(whole.confirmed), of))
    worst = max(result.conditions, key=lambda line: line.confirmed.interval[0] if line.confirmed.trials else -1.0)
    if worst.confirmed.failed:
        cards.append((_percent(worst.confirmed), f"at {result.question.spec.name} {worst.name}, where it fails most"))
    return [report.Cards(cards)]


def _caution(result: StressTest) -> str:
    text = ""
    if not isinstance(result.question, Classes):
        what = "1 - Dice" if isinstance(result.question, Masks) else "the error"
        text = f"An answer fails where {what} is more than {result.tolerance:.3g}. "
    if not result.judge:
        return text + (
            "A generated event may not show what was asked of it, and then a right answer counts as a failure: the "
            "rate on generated events is an upper figure. For classes, `--judge FILE` (a network of "
            "`oneprior features` that is not the model under test) says how many."
        )
    return text + (
        f"A generated event may not show what was asked of it. The judge `{result.judge}` disputes "
        f"**{_percent(result.disputed)}** of the generated events ({_interval(result.disputed)}) and "
        f"{_percent(result.disputed_real)} of the real ones, where it is wrong itself if their labels are right. "
        "Events that are hard for both are among the disputed: the rate of failure lies, as a rule, between the one on "
        "confirmed events and the one on all."
    )


def _rates(result: StressTest, lines: Sequence[Line], what: str) -> list[report.Section]:
    judged = bool(result.judge)
    head = [what, "real: failed", "%", "generated: failed", "%"] + (["confirmed: failed", "%"] if judged else [])
    rows = []
    for line in lines:
        row: list[str | None] = [line.name]
        for rate in (line.real, line.made, *([line.confirmed] if judged else [])):
            low, high = (100 * end for end in rate.interval)
            share = f"{100 * rate.value:.1f} ({low:.1f} – {high:.1f})"
            row += [f"{rate.failed:,} of {rate.trials:,}", share] if rate.trials else [None, None]
        rows.append(row)
    caption = "Share of events on which the model fails, with exact 95 % intervals (Clopper and Pearson)."
    if lines == result.distances:
        caption += (
            f" Distances are to the nearest {result.reference} event, in {result.features}; the bins part the "
            "generated events evenly."
        )
    return [
        report.Picture(_plot(lines, judged)),
        report.Table(head, rows, caption),
    ]


def _plot(lines: Sequence[Line], judged: bool) -> pictures.Picture:
    """Failure rates with their intervals, a line for each group."""
    lines = sorted(lines, key=lambda line: -line.made.value)[:24] if len(lines) > 24 else lines
    figure, axes = plots.sheet(6.8, 0.9 + 0.42 * len(lines), "")
    series = [("real", plots.GREY, [line.real for line in lines]), ("generated", plots.BLUE, [ln.made for ln in lines])]
    if judged:
        series.append(("generated, confirmed", plots.ORANGE, [line.confirmed for line in lines]))
    for s, (label, colour, rates) in enumerate(series):
        there = [(k, rate) for k, rate in enumerate(rates) if rate.trials]
        up = [-k + 0.22 * (len(series) / 2 - 0.5 - s) for k, _ in there]
        values = [100 * rate.value for _, rate in there]
        ends = [[100 * end for end in rate.interval] for _, rate in there]
        reach = [
            [v - e[0] for v, e in zip(values, ends, strict=True)],
            [e[1] - v for v, e in zip(values, ends, strict=True)],
        ]
        axes.errorbar(values, up, xerr=reach, fmt="o", color=colour, markersize=4, linewidth=1.3, label=label)
    axes.set_yticks([-k for k in range(len(lines))], [line.name for line in lines])
    axes.set_ylim(-len(lines) + 0.4, 0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("failures, %", color=plots.GREY)
    axes.legend(frameon=False, labelcolor=plots.GREY, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return plots.encoded(figure)


def _looks(result: StressTest) -> list[report.Section]:
    _, made = result.answers
    place = result.question.group(made.requested)
    rows = []
    for k, name in enumerate(result.question.names[:_CLASSES]):
        shown = made.x[place == k][:16]
        if len(shown):
            rows.append((name, _grid(result, shown, columns=16, pixels=40)))
    return [report.Strips(rows, "The first generated events of each, not chosen.")]


def _answers(result: StressTest) -> list[report.Section]:
    """What was said instead: confusions, slope and error, or Dice by class."""
    real, made = result.answers
    question = result.question
    if isinstance(question, Classes):
        counts = label_accuracy(made.requested[made.confirmed], made.delivered[made.confirmed], question.spec.classes)
        return [
            report.Heading("What it says instead"),
            _confusions(counts.confusion, question.names, bool(result.judge)),
        ]
    if isinstance(question, Amounts):
        rows: list[list[str | None]] = []
        for name, answers in _both(real, made):
            a = _agreement(answers)
            if a is not None:
                cells = [number(v) for v in (a.bias, a.error, a.correlation)]
                rows.append([name, str(a.n), f"{a.slope:.3f} ± {a.slope_error:.2g}", *cells])
        head = ("", "events", "slope", "bias", "root mean square error", "correlation")
        caption = (
            "delivered = intercept + slope x requested; 1 is right, below 1 the answers shrink towards the middle."
        )
        return [report.Heading("Requested and delivered"), report.Table(head, rows, caption)]
    assert isinstance(question, Masks)
    columns = [_dice(a, question) for _, a in _both(real, made)]
    rows = []
    for k in range(question.classes - 1):
        cells = [f"{mean[k]:.3f} ± {error[k]:.2g}" if not math.isnan(mean[k]) else None for mean, error in columns]
        rows.append([f"class {k + 1}", *cells])
    caption = "Dice of the answer with the mask, mean over events that have the class, ± one standard error."
    return [report.Heading("Dice by class"), report.Table(("", "real", "generated"), rows, caption)]


def _confusions(counts: Tensor, names: Sequence[str], judged: bool) -> report.Table:
    of = "Generated events that the judge confirms" if judged else "Generated events"
    if len(names) <= _CLASSES:
        rows = [[name, *(str(c) if c else None for c in row)] for name, row in zip(names, counts.tolist(), strict=True)]
        diagonal = frozenset((k, k + 1) for k in range(len(names)))
        return report.Table(["asked", *names], rows, f"{of}: asked for by row, said by column.", diagonal)
    off = counts - torch.diag(counts.diagonal())
    top = [k for k in off.flatten().argsort(descending=True, stable=True).tolist()[:15] if off.flatten()[k]]
    rows = [[names[k // len(names)], names[k % len(names)], str(int(off.flatten()[k]))] for k in top]
    return report.Table(("asked", "said", "times"), rows, f"{of}: the most frequent confusions.", words=2)


def _failures(result: StressTest, folder: Path, flags: Sequence[str]) -> list[report.Section]:
    _, made = result.answers
    worst = result.worst(_SHOWN)
    heading = report.Heading("The failures it is surest of" if _sure(made) else "The largest errors")
    if not len(worst):
        return [heading, report.Text("None.")]
    if isinstance(result.question, Masks):
        strips = [("generated", _grid(result, made.x[worst], columns=_SHOWN, pixels=64))]
        high = max(result.question.classes - 1, 1)
        for label, masks in (("asked for", made.requested), ("said", made.delivered)):
            shown = masks[worst][:, None].float()
            strips.append((label, pictures.grid(shown, columns=_SHOWN, pixels=64, low=0, high=high)))
        dices = ", ".join(f"{1 - float(made.error[k]):.2f}" for k in worst)
        rows = ", ".join(str(int(k)) for k in worst)
        shown_failures: report.Section = report.Strips(
            strips, f"Dice {dices}. Rows {rows} of the seed make them again."
        )
    else:
        shown_failures = report.Gallery([_failing(result, int(k)) for k in worst])
    again = report.Command(_again(result, int(worst[0]), folder, flags), "The first of them again:")
    return [heading, shown_failures, again]


def _failing(result: StressTest, k: int) -> report.Picture:
    _, made = result.answers
    asked, answer = (_word(result, t[k]) for t in (made.requested, made.delivered))
    sure = f" ({100 * float(made.sure[k]):.0f} %)" if _sure(made) else ""
    picture = _grid(result, made.x[k][None], columns=1, pixels=96)
    return report.Picture(picture, f"asked **{asked}**, said **{answer}**{sure}; row {k}")


def _again(result: StressTest, k: int, folder: Path, flags: Sequence[str]) -> str:
    """What draws one row again."""
    _, made = result.answers
    words = ["oneprior", "sample", result.run.name, "--n", "1", "--first", str(k), "--seed", str(result.seed)]
    for spec in result.run.conditions:
        if spec.name not in made.told:
            continue
        value = made.told[spec.name][k]
        if spec.kind == "class":
            name = spec.names[int(value)] if spec.names else ""
            text = name if name and "," not in name else str(int(value))
        elif spec.kind == "vector":
            text = ",".join(f"{v:.9g}" for v in value.tolist())
        else:
            text = str(folder / f"failures/row_{k:06d}_asked.npy")
        words += ["--condition", f"{spec.name}={text}"]
    return shlex.join([*words, *flags, "--out", f"row_{k}"])


def _failure(result: StressTest, k: int) -> dict[str, Any]:
    _, made = result.answers
    found: dict[str, Any] = {"row": k, "error": float(made.error[k]), "distance": float(made.distance[k])}
    if not isinstance(result.question, Masks):
        found |= {"asked": _word(result, made.requested[k]), "said": _word(result, made.delivered[k])}
    return found | ({"sure": float(made.sure[k])} if _sure(made) else {})


def _word(result: StressTest, value: Tensor) -> str:
    """A class by its name, or an amount."""
    return result.question.names[int(value)] if isinstance(result.question, Classes) else f"{float(value):.4g}"


def _grid(result: StressTest, x: Tensor, **options: Any) -> pictures.Picture:
    return pictures.grid(x, clip=result.run.geometry.format == "clip", **options)


def _both(real: Answers, made: Answers) -> tuple[tuple[str, Answers], tuple[str, Answers]]:
    return ("real", real), ("generated", made)


def _confusion(answers: Answers, classes: int) -> list[list[int]]:
    return label_accuracy(answers.requested, answers.delivered, classes).confusion.tolist()


def _agreement(answers: Answers) -> Any:
    """Slope and error of an amount; None for fewer than three events, or where one amount was requested."""
    try:
        return amount_agreement(answers.requested, answers.delivered)
    except InputError:
        return None


def _dice(answers: Answers, question: Masks) -> tuple[list[float], list[float]]:
    """Mean and standard error of each class but the background."""
    found = dice(answers.requested, answers.delivered, question.classes)
    count = (~found.isnan()).sum(0)
    mean = found.nanmean(0)
    error = ((found - mean).square().nansum(0) / (count - 1).clamp_min(1) / count.clamp_min(1)).sqrt()
    return mean.tolist(), error.tolist()


def _sure(made: Answers) -> bool:
    return bool(made.sure.isfinite().all())


def _array(path: Path, value: Tensor) -> Path:
    with replacing(path) as draft, open(draft, "wb") as file:
        np.save(file, value.numpy(), allow_pickle=False)
    return path


def _rate(rate: Rate) -> dict[str, Any]:
    return {"failed": rate.failed, "trials": rate.trials, "rate": rate.value, "interval": rate.interval}


def _line(line: Line, judged: bool) -> dict[str, Any]:
    found = {"name": line.name, "real": _rate(line.real), "generated": _rate(line.made)}
    return found | ({"confirmed": _rate(line.confirmed)} if judged else {})


def _percent(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} %" if rate.trials else "–"


def _interval(rate: Rate) -> str:
    low, high = rate.interval
    return f"{100 * low:.1f} – {100 * high:.1f} %"
