"""Tables of what was measured, for the pages: from benchmarks/results/*.json and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks/results"
_CASES = {
    "right": "nothing is wrong",
    "foreign": "a slice given to the prior of films, a film to that of slices",
    "displaced by 1/4": "the body a quarter of the side from its place, on black",
    "displaced by 1/8": "an eighth of the side",
    "instrument off by 4": "mask, detector or kernel 4 pixels from where it was said to be",
    "instrument off by 2": "2 pixels",
    "instrument off by 1": "1 pixel",
    "blur x 1/2": "a Gaussian blur half as wide as was said",
    "blur x 2/3": "two thirds as wide",
    "blur x 3/2": "half as wide again",
    "blur x 2": "twice as wide",
    "blur x 3": "three times as wide",
    "motion for Gaussian": "a motion that was said to be a Gaussian",
    "Gaussian for motion": "a Gaussian that was said to be a motion",
    "motion x 1/2": "a motion half as long as was said",
    "motion x 2": "a motion twice as long",
    "motion turned by 45": "a motion turned by 45 degrees",
    "border repeated": "a blur of a picture that went on as its border does, said to be mirrored there",
}
_TASKS = {"sr4": "4x smaller", "half": "left half lost", "random": "70 % lost", "blur": "blur of 1.5 pixels"}
_SHOWN = {
    ("ppca", "best"): "`ppca`, exact",
    ("mixture", "best"): "`ppca --components 10`, exact",
    ("vae", "best"): "`vae`, `best`",
    ("ldm", "best"): "`ldm`, `best`",
    ("guided diffusion", "fast"): "`diffusion`, `fast`",
    ("guided diffusion", "best"): "`diffusion`, `best`",
    ("guided diffusion", "calibrated"): "`diffusion`, `calibrated`",
}


def _record(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def measured() -> str:
    """PSNR and coverage of some priors and aims on four instruments, from the committed benchmark."""
    found = _record("restoration")
    tasks, cells = list(found["tasks"]), {(row["prior"], row["aim"], row["task"]): row for row in found["table"]}
    lines = [
        "| PSNR of the mean, dB | "
        + " | ".join(_TASKS[task] for task in tasks)
        + " | 90 % intervals hold | in tenths |"
    ]
    lines.append("|---" * (len(tasks) + 3) + "|")
    for (prior, aim), name in _SHOWN.items():
        rows = [cells[prior, aim, task] for task in tasks]
        held = [100 * row["coverage"] for row in rows]
        tenths = [100 * float(end) for row in rows for end in row["deciles"].split(" .. ")]
        figures = [f"{row['PSNR of mean']:.1f}" for row in rows]
        figures += [f"{min(values):.0f} to {max(values):.0f} %" for values in (held, tenths)]
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def heads(found: dict[str, Any]) -> str:
    """PSNR of whole heads in 3-D."""
    lines = ["| | volumes | thick slices: mean | one draw | lost slab: mean | one draw |", "|---|---|---|---|---|---|"]
    cells = {(row["prior"], row["aim"], row["task"]): row for row in found["table"]}
    for prior, aim in dict.fromkeys((row["prior"], row["aim"]) for row in found["table"]):
        rows = [cells.get((prior, aim, task)) for task in found["tasks"]]
        figures = [f"{row[key]:.2f}" if row else "" for row in rows for key in ("PSNR of mean", "PSNR of a draw")]
        name = prior if aim == "-" else f"`{prior}`, exact" if prior == "ppca" else f"`{prior}`, `{aim}`"
        lines.append(f"| {name} | {max(row['volumes'] for row in rows if row)} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def alarm() -> str:
    """How often restorations of right and wrong measurements are doubted, from the committed benchmark."""
    found = _record("misfit_alarm")
    lines = ["| of 100 measurements are doubted | chest films | brain slices | before |", "|---|---|---|---|"]
    for case, name in _CASES.items():
        cells = []
        for domain in ("chest", "brain"):
            rows = [row for row in found["table"] if row["case"] == case and row["domain"] == domain]
            shares = [100 * row["doubted"] for row in rows]
            cells.append(f"{sum(shares) / len(shares):.0f} ({min(shares):.0f} to {max(shares):.0f})" if shares else "")
        before = [100 * row["before"] for row in found["table"] if row["case"] == case]
        lines.append(f"| {name} | {' | '.join(cells)} | {sum(before) / len(before):.0f} |")
    return "\n".join(lines)


_DOMAIN_TASKS = {
    "sr4": "4x smaller",
    "sr8": "8x smaller",
    "box": "box lost",
    "random": "70 % lost",
    "gaussian": "Gaussian blur",
    "motion": "motion blur",
    "mri4": "MRI, 1 of 4",
    "mri8": "MRI, 1 of 8",
    "ct": "CT, 12 views",
}
_ROWS = {
    ("simple", "best"): "bicubic, as it is, or least squares",
    ("total variation", "best"): "total variation",
    ("ppca", "best"): "`ppca`, exact",
    ("mixture", "best"): "`ppca --components 10`, exact",
    ("brgm", "-"): "BRGM as published, on the GAN",
    ("gan", "fast"): "the same `gan`, `fast`",
    ("gan", "best"): "the same `gan`, `best`",
    ("gan in z", "fast"): "the same `gan`, `fast`, in z",
    ("gan in w+", "fast"): "the same `gan`, `fast`, in w+",
    ("ldm", "fast"): "`ldm`, `fast`",
    ("diffusion", "fast"): "`diffusion`, `fast`",
    ("diffusion", "best"): "`diffusion`, `best`",
    ("diffusion", "calibrated"): "`diffusion`, `calibrated`",
}


_CLOSED = {
    ("PSNR of mean", prior): (("PSNR of the closed form", "its mean in closed form, without draws"),)
    for prior in ("ppca", "mixture")
}
"""A further line below a prior's, of another column."""


def of_record(name: str, table: Callable[..., str], *asked: str) -> str:
    """A table from a committed benchmark; says so where there is none, or nothing of it was measured."""
    found = (RESULTS / f"{name}.json").exists() and table(_record(name), *asked)
    return found or f"Not measured yet: `python -m benchmarks {name}`."


def domain(found: dict[str, Any], which: str, column: str) -> str:
    """One quantity of every contender on every task of a domain.

    Args:
        found: the record.
        which: chest or brain.
        column: of the record's table.
    """
    tasks = list(found["tasks"][which])
    cells = {(r["prior"], r["aim"], r["task"]): r for r in found["table"] if r["domain"] == which}
    lines = ["| | " + " | ".join(_DOMAIN_TASKS[task] for task in tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for (prior, aim), name in _ROWS.items():
        rows = [cells.get((prior, aim, task)) or cells.get((prior, "-", task)) for task in tasks]
        for key, said in ((column, name), *_CLOSED.get((column, prior), ())):
            shown = ["" if row is None or row[key] is None else _short(row[key]) for row in rows]
            if any(shown):
                lines.append(f"| {said} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def brgm(found: dict[str, Any]) -> str:
    """BRGM's published program and ours on the same GAN: PSNR, perceptual distance, processor time."""
    cells = {(r["domain"], r["prior"], r["aim"], r["task"]): r for r in found["table"]}
    figures, lines = found["figures"], []
    for which, tasks in found["tasks"].items():
        for task in tasks:
            theirs, ours = cells.get((which, "brgm", "-", task)), cells.get((which, "gan", "best", task))
            if theirs is None or ours is None:
                continue
            share = figures[f"{which}_{task}_over_brgm_time"]["value"]
            shown = [theirs["PSNR of mean"], ours["PSNR of mean"]]
            shown += [theirs["perceptual"], ours["perceptual of mean"], ours["perceptual"]]
            place = {"chest": "films", "brain": "slices"}[which]
            lines.append(
                f"| {place}, {_DOMAIN_TASKS[task]} | " + " | ".join(map(_short, shown)) + f" | 1/{1 / share:.0f} |"
            )
    head = "| | PSNR: BRGM | mean of 19 | distance: BRGM | mean of 19 | one draw | CPU time |"
    return "\n".join([head, "|---" * 7 + "|", *lines]) if lines else ""


def scored(found: dict[str, Any]) -> str:
    """CRPS of `calibrated` beside ppca's and the controls', and how far it is below ppca's and DPS's."""
    cells = {(r["domain"], r["prior"], r["aim"], r["task"]): r for r in found["table"]}
    figures, lines = found["figures"], []
    for which, tasks in found["tasks"].items():
        for task in tasks:
            if (which, "diffusion", "calibrated", task) not in cells:
                continue
            rows = [
                cells[which, "diffusion", "calibrated", task],
                cells.get((which, "ppca", "-", task)),
                cells.get((which, "control: brgm variational", "-", task)),
                cells.get((which, "control: prior draws", "-", "all")),
            ]
            shown = ["" if row is None else f"{row['CRPS']:.3f}" for row in rows]
            for rival in ("ppca", "dps_published", "dps"):
                own = figures.get(f"{which}_{task}_crps_below_{rival}")
                shown.append("" if own is None else f"{100 * own['value']:.0f} ± {100 * own['standard_error']:.0f} %")
            place = {"chest": "films", "brain": "slices"}[which]
            lines.append(f"| {place}, {_DOMAIN_TASKS[task]} | " + " | ".join(shown) + " |")
    head = (
        "| CRPS | `calibrated` | `ppca`, exact | BRGM's variational draws | draws of the prior | below `ppca` | "
        "below DPS as published | below our `dps` |"
    )
    return "\n".join([head, "|---" * 8 + "|", *lines]) if lines else ""


def ranks(found: dict[str, Any]) -> str:
    """The guided methods with their published settings on the diffusion, beside what was printed of faces."""
    rows = [row for row in found["ranks"] if "calls" in row]
    tasks = [task for task in _DOMAIN_TASKS if any(task in row for row in rows)]
    if not rows:
        return ""
    head = [f"{_DOMAIN_TASKS[task]}" for task in tasks]
    lines = ["| | | " + " | ".join(head) + " | calls | s an image |", "|---" * (len(tasks) + 4) + "|"]
    for row in rows:
        shown = [_beside(row, task) for task in tasks]
        lines.append(
            f"| {row['domain']} | `{row['method']}` | {' | '.join(shown)} | {row['calls']:.0f} | {row['seconds']:.2g} |"
        )
    return "\n".join(lines)


def _beside(row: dict[str, Any], task: str) -> str:
    """Ours, and in brackets what was printed of FFHQ 256."""
    if task not in row:
        return ""
    printed = row.get(f"{task}, FFHQ")
    return f"{row[task]:.1f}" + (f" ({printed:.1f})" if printed else "")


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value).replace(" .. ", " to ")
    return f"{value:.1f}" if value >= 5 else f"{value:.3f}"


_CONTENDERS = {
    "the data": "the best of the data",
    "exact": "exact search, weighted retraining",
    "free": "the same, however unlikely to the token prior",
    "aimed": "the same, for the mean of the unseen group in place of the highest",
    "near": "exact search, within a few codes of the three best",
    "part": "exact search, with other codes around nose and mouth alone",
    "local": "local search, weighted retraining",
    "even": "exact search, retrained without weights",
    "alone": "exact search, never retrained",
    "genetic": "genetic search on the codes",
    "random": "draws of the token prior",
    "bayes": "vae and Gaussian process (TuRBO)",
}


def beyond(found: dict[str, Any], which: str) -> str:
    """What each contender has found beyond the range of the data."""
    rows = [row for row in found["table"] if row["task"] == which]
    head = "| | seeds | by the judge | its share above the cut | by the score | Frechet distance | CPU seconds |"
    lines = [head, "|---" * 7 + "|"]
    for row in rows:
        error = "" if row["error"] is None else f" ± {row['error']:.2g}"
        shown = [str(row["seeds"]), f"{row['judged']:.3g}{error}", f"{100 * row['beyond the threshold']:.0f} %"]
        shown += [f"{row['best score']:.3g}", f"{row['Frechet']:.2g}", f"{row['CPU seconds']:.0f}"]
        lines.append(f"| {_CONTENDERS[row['contender']]} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def proofs(found: dict[str, Any]) -> str:
    """How long proofs take on codes of films, and what the local search alone had found."""
    lines = ["| trees | depth | ensembles | proven | seconds, median | local search had it |", "|---" * 6 + "|"]
    table = found["table"]
    for trees, depth in dict.fromkeys((row["trees"], row["depth"]) for row in table):
        own = [row for row in table if (row["trees"], row["depth"]) == (trees, depth)]
        proven = sum(row["status"] == "optimal" for row in own)
        had = sum(row["local search"] >= row["value"] - 1e-9 for row in own)
        seconds = sorted(row["seconds"] for row in own)[len(own) // 2]
        lines.append(f"| {trees} | {depth} | {len(own)} | {proven} | {seconds:.1f} | {had} |")
    return "\n".join(lines)


def molecules(found: dict[str, Any]) -> str:
    """Penalised logP, beside what was published."""
    names = {"weighted": "weighted, k = 0.001", "even": "without weights", "alone": "never retrained"}
    lines = ["| | evaluations | seeds | best | 10th | 50th |", "|---" * 6 + "|"]
    known = max(row["best known"] for row in found["table"])
    lines.append(f"| the best of the data | | | {known:.2f} | | |")
    for row in found["table"]:
        shown = " | ".join(f"{row[f'no. {place}']:.2f}" for place in (1, 10, 50))
        lines.append(f"| {names[row['contender']]} | {found['n']['evaluations']} | {row['seeds']} | {shown} |")
    lines.append("| *JT-VAE, weighted (Tripp et al. 2020)* | 500 | 5 | 19.66 | 15.56 | 9.72 |")
    lines.append("| *JT-VAE, without weights* | 500 | 5 | 6.93 | 5.26 | 4.89 |")
    return "\n".join(lines)


TABLES = {
    "garments": partial(of_record, "beyond", beyond, "garments"),
    "ventricles": partial(of_record, "beyond", beyond, "ventricles"),
    "smile": partial(of_record, "beyond", beyond, "smile"),
    "proofs": partial(of_record, "exact_search", proofs),
    "penalised logP": partial(of_record, "molecules", molecules),
    "measured": measured,
    "alarm": alarm,
    "heads": partial(of_record, "volumes", heads),
    "films": partial(of_record, "domains", domain, "chest", "PSNR of mean"),
    "slices": partial(of_record, "domains", domain, "brain", "PSNR of mean"),
    "films perceived": partial(of_record, "domains", domain, "chest", "perceptual"),
    "slices perceived": partial(of_record, "domains", domain, "brain", "perceptual"),
    "films held": partial(of_record, "domains", domain, "chest", "deciles"),
    "slices held": partial(of_record, "domains", domain, "brain", "deciles"),
    "ranks": partial(of_record, "domains", ranks),
    "brgm": partial(of_record, "domains", brgm),
    "scored": partial(of_record, "domains", scored),
}
