"""The page of a restoration: can it be trusted, what was restored, how, and by how much work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneprior.apps import panels, report
from oneprior.apps.evaluated import foot
from oneprior.apps.pictures import Picture
from oneprior.apps.restored_words import differing
from oneprior.tasks import Restoration
from oneprior.tasks.familiarity import REMEDY

PANELS = 12  # on a page; the others stand in the folder
MIXED = 1.2  # the highest R-hat that is not remarked on
_ROWS = 400
_WORDS = {
    "psnr_mean": "PSNR of the mean (dB)",
    "psnr_draw": "PSNR of one draw (dB)",
    "ssim": "SSIM of the mean",
    "crps": "CRPS",
    "coverage": "coverage of the 90 % interval",
    "effective_sample_size": "effective sample size (median)",
    "effective_candidates": "effective candidates (median)",
    "r_hat": "R-hat (median)",
    "acceptance": "acceptance (median)",
    "step_size": "step size (median)",
    "log_evidence": "log evidence (median)",
    "misfit": "misfit of the mean, in units of the noise",
    "misfit_draw": "misfit of one draw (median)",
    "strangeness": "strangeness of the measurement (median)",
    "space": "latent space of the posterior",
    "perceptual": "perceptual distance in the objective",
    "n": "images",
    "draws": "draws of each",
}
_HIDDEN = ("doubtful", "warnings", "notes", "tiles", "failed", "exact", "method", "law", "aim", "value_range")


@dataclass(frozen=True)
class Told:
    """What a page says of the command.

    Args:
        title: what was restored.
        operator: words.
        noise: words.
        prior: the family and the run.
        aim: how the method was chosen.
        typed: the command.
        seed: of its numbers.
        values: which were read as black and white, in words.
        credit: what a prior of the zoo learned from, and whom the licence asks to name.
        music: whether the events are music.
    """

    title: str
    operator: str
    noise: str
    prior: str
    aim: str
    typed: str
    seed: int
    values: str = ""
    credit: str = ""
    music: bool = False

    @property
    def one(self) -> str:
        """What an event is called."""
        return "piece" if self.music else "image"


def page_of_file(
    result: Restoration, names: Sequence[str], rows: Sequence[Any], figures: Any, told: Told
) -> report.Report:
    """The page of the events of one file."""
    if len(rows) == 1:
        shown: list[report.Section] = [report.Picture(panels.panel(result, 0), _said(told))]
    else:
        strips = panels.strips(result, samples=panels.SAMPLES)
        first = f", the first {len(result.mean[:8])} of {len(rows)}" if len(rows) > 8 else ""
        planes = [" ".join(name.split()) for name in panels.planes(result)]
        cut = f" Its planes from top to bottom: {', '.join(planes)}." if planes else ""
        shown = [report.Strips(strips, f"Each column is one {told.one}{first}.{cut} {_said(told)}")]
        shown += [report.Picture(panels.deviation_bar(result))] if "deviation" in dict(strips) else []
    return _page(names, rows, figures, told, shown)


def page_of_folder(folder: Path, names: Sequence[str], rows: Sequence[Any], figures: Any, told: Told) -> report.Report:
    """The page of a folder of results, from what stands in it; images to be doubted come first."""
    order = sorted(range(len(rows)), key=lambda k: not rows[k]["doubt"])
    shown: list[report.Section] = []
    if len(rows) > PANELS:
        first = "those to be doubted first" if rows[order[0]]["doubt"] else "the first by name"
        shown.append(
            report.Text(f"{PANELS} of {len(rows)} pictured, {first}; the others have a `panel.png` each in the folder.")
        )
    for k in order[:PANELS]:
        verdict = "**does not fit**, " if rows[k]["doubt"] else ""
        misfit = "" if rows[k]["misfit"] is None else f": {verdict}misfit {rows[k]['misfit']:.2f}"
        shown += [
            report.Heading(f"`{names[k]}`{misfit}", 3),
            report.Picture(_open(folder / names[k] / "panel.png"), ""),
        ]
    return _page(names, rows, figures, told, [*shown, report.Text(_said(told))])


def _page(
    names: Sequence[str], rows: Sequence[Any], figures: Mapping[str, Any], told: Told, shown: Sequence[report.Section]
) -> report.Report:
    sections: list[report.Section] = []
    if figures["doubtful"]:
        sections.append(_notice(figures["doubtful"], len(rows), "piece" if told.music else "picture"))
    sections += [report.Text(f"**Mind:** {line.rstrip('?.')}.") for line in told_once(figures, of=told.one)]
    sections += [report.Cards(_cards(figures, told.one)), *shown, *_mixed(figures)]
    sections += [report.Heading("Figures"), report.Table(("figure", "value"), _lines(figures, told), _LEGEND, words=2)]
    if len(rows) > 1:
        sections += [report.Heading(f"{told.one.capitalize()} by {told.one}"), _table(names, rows, told.one)]
    if failed := figures.get("failed"):
        lines = [(f"`{name}`", reason) for name, reason in failed.items()]
        sections += [report.Heading("Not restored"), report.Table(("file", "why"), lines, words=2)]
    sections.append(report.Command(told.typed, "Made by:"))
    exact = "draws from the posterior itself" if figures["exact"] else "an approximation of the posterior"
    if figures["exact"] and unmixed(figures):
        exact = "whose chains have not come together"
    elif figures["exact"] and "tiles" in figures:
        exact = "draws from the posterior of a law of overlapping tiles"
    lead = f"Operator `{told.operator}`, noise {told.noise}, prior {told.prior}. Method: {figures['method']}, {exact}."
    return report.Report(f"Restored: {told.title}", sections, lead=lead, foot=foot(told.seed, figures["seconds"]))


def _notice(doubts: Mapping[str, str], total: int, of: str) -> report.Notice:
    """Why not to trust a result, in plain words."""
    end = f"The {of} and its stated uncertainty are not to be relied on."
    if total == 1:
        why = next(iter(doubts.values()))
        return report.Notice(f"Do not trust this {of}", f"{why[0].upper()}{why[1:]}. {end}")
    brief, cause = briefly(doubts)
    listed = "; ".join(f"`{name}`: {why}" for name, why in list(brief.items())[:12])
    more = f"; and {len(doubts) - 12} more, see below" if len(doubts) > 12 else ""
    looks = f" This looks like {cause}." if cause else ""
    return report.Notice(f"Do not trust {len(doubts)} of these {total} {of}s", f"{listed}{more}.{looks} {end}")


def briefly(doubts: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The doubts of several pictures without what some would repeat, and this, or nothing."""
    brief = {name: why.removesuffix(f": {REMEDY}") for name, why in doubts.items()}
    return brief, REMEDY if brief != dict(doubts) else ""


def _cards(figures: Mapping[str, Any], of: str) -> list[tuple[str, str]]:
    cards = []
    if figures["misfit"] is not None:
        doubted = figures["misfit"] > 1.2 or figures["doubtful"] or _minded(figures) or "tiles" in figures
        fits = "about 1 or below is well" if doubted else "fits the prior"
        cards.append((f"{figures['misfit']:.2f}", f"misfit, in units of the noise: {fits}"))
    if "psnr_mean" in figures:
        cards.append((f"{figures['psnr_mean']:.2f} dB", "PSNR of the posterior mean"))
    if "coverage" in figures:
        cards.append((f"{figures['coverage']:.1%}", "of the true values lie in the 90 % interval"))
    if figures["n"] > 1:
        cards.append((f"{figures['images_per_second']:.3g}", f"{of}s per second"))
    else:
        cards.append((f"{figures['seconds']:.3g} s", f"for {figures['draws']} draws"))
    if figures["network_calls"]:
        each = figures["network_calls"] / (figures["n"] * figures["draws"])
        cards.append((f"{each:.4g}", "network calls for a draw"))
    return cards[:4]


def unmixed(figures: Mapping[str, Any]) -> str:
    """What to say of chains that have not come together, in one sentence; empty where they have or there are none."""
    r_hat = figures.get("r_hat")
    if r_hat is None or not r_hat > MIXED:  # nan where there was one chain, or nothing moved to compare
        return ""
    return f"the chains have not come together: R-hat is {r_hat:.2f}, and 1 to {MIXED:g} would be well"


def minded(row: Mapping[str, Any]) -> bool:
    """Whether something speaks against the numbers that were given with an event: more than that it is tiled."""
    return bool(row.get("warnings")) or _beyond_tiles(row.get("notes", ()), row)


def _minded(figures: Mapping[str, Any]) -> bool:
    notes = (note for notes in figures["notes"].values() for note in notes)
    return bool(figures["warnings"]) or _beyond_tiles(notes, figures)


def _beyond_tiles(notes: Iterable[str], figures: Mapping[str, Any]) -> bool:
    return any("tiles" not in figures or not note.startswith(figures["tiles"]) for note in notes)


def told_once(figures: Mapping[str, Any], kinds: Sequence[str] = ("warnings", "notes"), of: str = "image") -> list[str]:
    """The warnings and notes of all events, those that differ in their numbers only said once, of so many."""
    found: dict[str, list[tuple[str, str]]] = {}
    for kind in kinds:
        for name, lines in figures[kind].items():
            for line in lines:
                found.setdefault(re.sub(r"-?[\d.]+(e[+-]?\d+)?", "", line), []).append((name, line))
    alone = figures["n"] == 1
    return [
        lines[0][1] if alone else f"{len(lines)} of {figures['n']} {of}s, such as `{lines[0][0]}`: {lines[0][1]}"
        for lines in found.values()
    ]


def _mixed(figures: Mapping[str, Any]) -> list[report.Section]:
    """A remark where chains have not come together."""
    said = unmixed(figures)
    if not said:
        return []
    longer = {
        "fast": " `--aim best` and `--aim calibrated` run longer ones.",
        "best": " `--aim calibrated` runs longer ones.",
    }
    what, _, figure = said.partition(": ")
    words = f"**{what[0].upper()}{what[1:]}**: {figure}. They are exact in the limit of long chains only."
    return [report.Text(words + longer.get(figures["aim"], ""))]


def _exactness(figures: Mapping[str, Any]) -> str:
    """Whether the draws are the posterior's: yes, in the limit of chains that are too short, or no."""
    if not figures["exact"]:
        return f"approximate{'; ' + figures['law'] if 'law' in figures else ''}"
    if unmixed(figures):
        return "exact in the limit only; these chains have not come together"
    return "exact for the law of the tiles, which is not that of larger images" if "tiles" in figures else "exact"


def _lines(figures: Mapping[str, Any], told: Told) -> list[tuple[str, str]]:
    lines = [("method", f"{figures['method']}"), ("the draws are", _exactness(figures)), ("aim", told.aim)]
    if told.values:
        lines.append(("values from black to white", told.values))
    if told.credit:
        lines.append(("the prior learned from", told.credit))
    for name, value in figures.items():
        if name not in _HIDDEN and value is not None:
            words = _WORDS.get(name, name.replace("_", " ")).replace("image", told.one)
            lines.append((words if figures["n"] > 1 else words.removesuffix(" (median)"), _format(value)))
    place = (
        next(k for k, (name, _) in enumerate(lines) if name == _WORDS["misfit"]) + 1
        if figures["misfit"] is not None
        else len(lines)
    )
    return [*lines[:place], ("fits the prior", _verdict(figures)), *lines[place:]]


def _verdict(figures: Mapping[str, Any]) -> str:
    """Whether measurement and prior go together, so far as it was asked."""
    if figures["doubtful"]:
        return "no"
    if figures["misfit"] is None:
        return "as far as can be told without noise" if "strangeness" in figures else "not judged: no noise"
    if "tiles" in figures:
        return "not judged: in tiles, only the misfit can be had"
    return "not for sure; see what to mind, above" if _minded(figures) else "yes"


def _fits(row: Mapping[str, Any]) -> str | None:
    """`_verdict` of one event, in a word or three; None where it was not asked."""
    if row["doubt"]:
        return "**no**"
    if row["misfit"] is None:
        return None
    return "not judged" if "tiles" in row else "not for sure" if minded(row) else "yes"


def _table(names: Sequence[str], rows: Sequence[Mapping[str, Any]], of: str) -> report.Table:
    """A line for each event."""
    columns = {"psnr_mean": "PSNR, dB", "ssim": "SSIM", "crps": "CRPS", "coverage": "coverage"}
    known = [key for key in columns if any(key in row for row in rows)]
    inner = [
        key
        for key in ("strangeness", "effective_sample_size", "r_hat")
        if any(key in row["diagnostics"] for row in rows)
    ]
    lines, own = [], differing(rows)
    for k, (name, row) in enumerate(list(zip(names, rows, strict=True))[:_ROWS]):
        misfit = None if row["misfit"] is None else f"{row['misfit']:.2f}"
        figures = [_format(row[key]) if key in row else None for key in known]
        chains = [_format(row["diagnostics"][key]) if key in row["diagnostics"] else None for key in inner]
        others = [cells[k] for cells in own.values()]
        lines.append([f"`{name}`", _fits(row), misfit, *figures, *chains, *others, f"{row['seconds']:.3g}"])
    head = [
        of,
        "fits",
        "misfit",
        *(columns[key] for key in known),
        *(_WORDS[key].removesuffix(" (median)").removesuffix(" of the measurement") for key in inner),
        *own,
    ]
    more = (
        f"The first {_ROWS} of {len(rows)}; `result.json` and the `figures.json` of each have all."
        if len(rows) > _ROWS
        else ""
    )
    return report.Table([*head, "seconds"], lines, more, words=2)


def _open(path: Path) -> Picture:
    import struct

    png = path.read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    return Picture(png, width, height, words=True)


def _said(told: Told) -> str:
    """Of the quantities that are shown."""
    return _ROLLS if told.music else _PANEL


def _format(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_PANEL = (
    "A sample is one image that the measurement and the prior allow; the mean is the best guess and smoother than any. "
    "The deviation and the quantiles are the posterior's, entry by entry: of the true values 90 % should lie between "
    "those of 5 and 95 %."
)
_ROLLS = (
    "A sample is one piece that the measurement and the prior allow; the mean shows all of them over each other, a "
    "note the fuller the more of them have it."
)
_LEGEND = (
    "Misfit: how far the measurement lies from what the restoration predicts, in deviations of the noise: about 1 for "
    "a draw, and below it for the mean. Strangeness: how far it lies from the training data, about 1 for one of "
    "theirs and above 4 for one in a thousand. "
    "PSNR, SSIM, CRPS and coverage are against the truth, where it is known, on the scale of [-1, 1]."
)
