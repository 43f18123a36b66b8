"""One record of all cells of the domains: the tables, and every figure of the issue with its target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks import kept
from benchmarks.domain_sets import NAMES
from benchmarks.domains import AIMS, CLASSICAL, DEEP, EXACT, GUIDED, TASKS
from benchmarks.harness import Figure, Options, record
from benchmarks.scores import paired, row_of

Cell = Mapping[str, Any]
PUBLISHED = {
    "daps": {"sr4": 29.07, "box": 24.07, "random": 31.12, "gaussian": 29.19, "motion": 29.66},
    "dps": {"sr4": 25.86, "box": 22.51, "random": 25.46, "gaussian": 25.87, "motion": 24.52},
    "ddnm": {"sr4": 28.03, "box": 24.47, "random": 29.91, "gaussian": 28.20},
    "diffpir": {"sr4": 26.64, "gaussian": 27.36, "motion": 26.57},
}
"""PSNR on FFHQ 256, sigma = .05, as printed by Zhang et al. 2024 (DAPS), table 1: of one draw."""
_ORDER = (*CLASSICAL, *EXACT, *DEEP, "gan in z", "gan in w+", "brgm")


class Cells:
    """What was measured of one domain, by (name, aim, task)."""

    def __init__(self, which: str, found: Sequence[Cell]) -> None:
        self.which = which
        self.found = {(c["name"], c["aim"], c["task"]): _equal(c) for c in found if c["domain"] == which}

    def get(self, name: str, task: str, aim: str = "") -> Cell | None:
        """A cell, at "best" where no other aim is named."""
        for known in (aim,) if aim else ("best", "-"):
            if (name, known, task) in self.found:
                return self.found[name, known, task]
        return None

    def best(self) -> str:
        """The deep prior of the highest PSNR over all tasks that it has finished, at the aim "best"."""

        def total(name: str) -> float:
            own = [self.get(name, task, "best") for task in TASKS[self.which]]
            if any(cell is None for cell in own):
                return -1e9
            return sum(sum(cell[MEAN]) / len(cell[MEAN]) for cell in own if cell)

        return max(DEEP, key=total)


def gather(options: Options) -> None:
    """Write benchmarks/results/domains.json."""
    found = list(kept.every("domains", options))
    figures: dict[str, Figure] = {}
    table: list[dict[str, Any]] = []
    best = {}
    for which in NAMES:
        own = Cells(which, found)
        best[which] = own.best()
        for task in TASKS[which]:
            for part in (
                _against_brgm(own, task),
                _against_classical(own, task, best[which]),
                _fast(own, task),
                _calibrated(own, task),
            ):
                figures |= {f"{which}_{task}_{key}": figure for key, figure in part.items()}
        table += [_row(cell) for cell in sorted(own.found.values(), key=_place)]
    record(
        "domains",
        figures,
        options,
        table=table,
        claim="Held-out films and brain slices restored by one prior each, under one set of defaults.",
        best=best,
        ranks=[row for which in NAMES for row in _ranks(Cells(which, found))],
        tasks=TASKS,
        n={which: max((len(c["index"]) for c in found if c["domain"] == which), default=0) for which in NAMES},
        seeds={"noise": 11, "draws": 5},
        measured=kept.origins(found),
        size="half of the issue's (films 32 x 32, slices 48 x 40), for lack of an accelerator",
        features="VICReg on the training events, which no method optimises; BRGM's perceptual term is a classifier's, "
        "not LPIPS, whose weights are not at hand",
    )


MEAN = "psnr_mean_of_19"
"""What is compared: the mean of 19 draws has a twentieth more error than the posterior's, whoever draws them."""


def _equal(cell: Cell) -> Cell:
    """A cell with its PSNR of the mean of 19 draws; with one answer, or 19 draws in all, it is the mean's."""
    return cell if MEAN in cell or cell["draws"] > 19 else {**cell, MEAN: cell["psnr_mean"]}


def _common(a: Cell, b: Cell, key: str) -> tuple[float, float]:
    """Mean and error of a - b over the events that both restored."""
    left, right = (dict(zip(cell["index"], cell[key], strict=True)) for cell in (a, b))
    both = sorted(set(left) & set(right))
    return paired([left[k] for k in both], [right[k] for k in both])


def _gain(a: Cell, b: Cell, key: str, what: str, sign: float = 1.0) -> Figure:
    gain, error = _common(a, b, key)
    note = f"{what}: {sign * gain:.3g} ± {error:.2g}; in standard errors"
    return Figure(sign * gain / max(error, 1e-12), None, (">=", 2.0), note)


def _against_brgm(own: Cells, task: str) -> dict[str, Figure]:
    """The same GAN by our method and by BRGM's published program."""
    ours, theirs = own.get("gan", task, "best"), own.get("brgm", task)
    if ours is None or theirs is None:
        return {}
    theirs = {**theirs, "perceptual_mean": theirs["perceptual_draw"]}  # one answer is its own mean
    share = ours["cpu"] / len(ours["index"]) / (theirs["cpu"] / len(theirs["index"]))
    perceptual = "perceptual distance of brgm over that of "
    return {
        "over_brgm_psnr": _gain(ours, theirs, MEAN, "dB of the GAN's posterior mean over brgm"),
        "over_brgm_perceptual": _gain(ours, theirs, "perceptual_draw", perceptual + "one draw", -1.0),
        "over_brgm_perceptual_mean": _gain(ours, theirs, "perceptual_mean", perceptual + "the mean", -1.0),
        "over_brgm_time": Figure(share, None, ("<=", 1 / 3), "share of the CPU seconds of brgm"),
    }


def _against_classical(own: Cells, task: str, best: str) -> dict[str, Figure]:
    """The best deep prior over what needs no deep training."""
    ours, figures = own.get(best, task, "best"), {}
    for name in (*CLASSICAL, *EXACT):
        theirs = own.get(name, task)
        if ours is not None and theirs is not None:
            note = f"dB of {best} over {name}"
            figures[f"over_{name.replace(' ', '_')}"] = _gain(ours, theirs, MEAN, note)
            if name in EXACT:  # whose mean is known without draws
                closed = _gain(ours, {**theirs, MEAN: theirs["psnr_mean"]}, MEAN, f"{note} in closed form")
                figures[f"over_{name}_in_closed_form"] = replace(closed, target=None)
    return figures


def _fast(own: Cells, task: str) -> dict[str, Figure]:
    """Of the diffusion prior: calls, what it costs against "best", DiffPIR with 100 calls and ppca."""
    fast, best = own.get("diffusion", task, "fast"), own.get("diffusion", task, "best")
    if fast is None:
        return {}
    figures = {"fast_calls": Figure(fast["network_calls_per_draw"], None, ("<=", 25), "a draw")}
    if best is not None:
        behind, error = _common(best, fast, MEAN)
        figures["fast_behind_best"] = Figure(behind, error, ("<=", 0.5), "dB")
    for name in ("diffpir 100", "ppca"):
        theirs = own.get(name, task)
        if theirs is not None:
            figures[f"fast_over_{name.replace(' ', '_')}"] = _gain(fast, theirs, MEAN, f"dB of fast over {name}")
    return figures


def _calibrated(own: Cells, task: str) -> dict[str, Figure]:
    """Of the diffusion prior: coverage in tenths of the predicted deviation inside the body, and CRPS."""
    honest = own.get("diffusion", task, "calibrated")
    if honest is None or "deciles" not in honest:
        return {}
    low, high = min(honest["deciles"]), max(honest["deciles"])
    figures = {
        "coverage_low": Figure(low, None, (">=", 0.85), "the worst tenth, 90 % asked"),
        "coverage_high": Figure(high, None, ("<=", 0.95), "the worst tenth, 90 % asked"),
    }
    for name in ("ppca", "dps, published", "dps"):
        theirs = own.get(name, task)
        if theirs is not None and "crps" in theirs:
            gain, error = _common(theirs, honest, "crps")
            base = sum(theirs["crps"]) / len(theirs["crps"])
            asked = None if name == "dps" else (">=", 0.10)  # ours, mended: for comparison
            key = f"crps_below_{name.replace(', ', '_')}"
            figures[key] = Figure(gain / base, error / base, asked, f"share of that of {name}")
    return figures


def _ranks(own: Cells) -> list[dict[str, Any]]:
    """The guided methods with their published settings, one draw, beside the published figures."""
    rows = []
    for name in GUIDED:
        row: dict[str, Any] = {"domain": own.which, "method": f"{name}:published"}
        for task in TASKS[own.which]:
            cell = own.get(f"{name}, published", task)
            if cell is not None:
                row[task] = sum(cell["psnr_draw"]) / len(cell["psnr_draw"])
                row["calls"] = cell["network_calls_per_draw"]
                row["seconds"] = cell["seconds"] / len(cell["index"])
        row |= {f"{task}, FFHQ": value for task, value in PUBLISHED.get(name, {}).items()}
        rows.append(row)
    return rows


def _place(cell: Cell) -> tuple[int, int, str, int]:
    tasks = list(TASKS[cell["domain"]])
    task = tasks.index(cell["task"]) if cell["task"] in tasks else len(tasks)
    name = _ORDER.index(cell["name"]) if cell["name"] in _ORDER else len(_ORDER)
    return task, name, cell["name"], AIMS.index(cell["aim"]) if cell["aim"] in AIMS else 9


def _row(cell: Cell) -> dict[str, Any]:
    return {
        "domain": cell["domain"],
        "task": cell["task"],
        "prior": cell["name"],
        "aim": cell["aim"],
        "events": len(cell["index"]),
        "draws": cell["draws"],
        **_row_of(cell),
        "doubted": cell.get("doubted"),
    }


def _row_of(cell: Cell) -> dict[str, Any]:
    """PSNR of the mean of 19 draws, and of the mean in closed form where there is one."""
    known = cell["name"] in EXACT
    row = row_of({**cell, "psnr_mean": cell.get(MEAN, cell["psnr_mean"])})
    return {**row, "PSNR of the closed form": sum(cell["psnr_mean"]) / len(cell["psnr_mean"]) if known else None}
