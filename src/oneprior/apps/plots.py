"""Plots for the pages: rank histograms, curves with bands, points with errors. They become PNGs on a clear ground.

Words and axes are in a middle grey, so that one picture reads on a light page and on a dark one.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from oneprior.apps.pictures import Picture

GREY, BLUE, ORANGE = "#7d848e", "#4c78a8", "#e4793a"


def histogram(
    counts: Sequence[float], low: Sequence[float], high: Sequence[float], title: str, across: str = "rank of the truth"
) -> Picture:
    """Bars with the band in which they lie if all is well."""
    figure, axes = sheet(3.2, 2.3, title)
    place = [k + 0.5 for k in range(len(counts))]
    axes.bar(place, counts, 0.9, color=BLUE)
    edges = [0.0, *[k + 1.0 for k in range(len(counts))]]
    axes.fill_between(edges, [low[0], *low], [high[0], *high], step="pre", color=GREY, alpha=0.35, linewidth=0)
    axes.set_xlabel(across, color=GREY)
    axes.set_xticks([])
    return encoded(figure)


def curves(
    lines: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    across: str,
    up: str,
    *,
    title: str = "",
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None,
    diagonal: bool = False,
    level: float | None = None,
) -> Picture:
    """Lines (label, x, y), with a band (x, low, high), a diagonal, or a level to compare with."""
    figure, axes = sheet(4.2, 3.0, title)
    if band is not None:
        axes.fill_between(band[0], band[1], band[2], color=GREY, alpha=0.3, linewidth=0)
    for (label, x, y), colour in zip(lines, _colours(len(lines)), strict=True):
        axes.plot(x, y, marker="o", markersize=3, color=colour, label=label or None, linewidth=1.4)
    if diagonal:
        ends = [min(min(x) for _, x, _ in lines), max(max(x) for _, x, _ in lines)]
        axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--")
    if level is not None:
        axes.axhline(level, color=GREY, linewidth=1, linestyle="--")
    axes.set_xlabel(across, color=GREY)
    axes.set_ylabel(up, color=GREY)
    _legend(axes, [label for label, _, _ in lines])
    return encoded(figure)


def overlaid(sets: Sequence[tuple[str, Sequence[float]]], across: str, *, title: str = "", bins: int = 30) -> Picture:
    """Histograms of several sets of numbers over one another, each with area 1."""
    figure, axes = sheet(4.2, 3.0, title)
    every = [value for _, values in sets for value in values]
    low, high = min(every), max(every)
    for (label, values), colour in zip(sets, _colours(len(sets)), strict=True):
        axes.hist(
            values, bins, (low, high if high > low else low + 1), density=True, color=colour, alpha=0.5, label=label
        )
    axes.set_xlabel(across, color=GREY)
    axes.set_yticks([])
    _legend(axes, [label for label, _ in sets])
    return encoded(figure)


def scatter(
    sets: Sequence[tuple[str, Sequence[tuple[float, float]]]], across: str, up: str, *, title: str = ""
) -> Picture:
    """Clouds of points over one another, the last on top; (label, (x, y) of each point)."""
    figure, axes = sheet(4.2, 3.4, title)
    for k, ((label, places), colour) in enumerate(zip(sets, [GREY, *_colours(len(sets))], strict=False)):
        x, y = ([place[axis] for place in places] for axis in (0, 1))
        axes.scatter(x, y, s=8 if k == 0 else 18, color=colour, alpha=0.35 if k == 0 else 0.9, label=label)
    axes.set_xlabel(across, color=GREY)
    axes.set_ylabel(up, color=GREY, fontsize=9)
    _legend(axes, [label for label, _ in sets])
    return encoded(figure)


def points(
    rows: Sequence[tuple[str, float, float]], across: str, *, title: str = "", level: float | None = None
) -> Picture:
    """Labelled values with their standard errors, one under another (label, value, error)."""
    figure, axes = sheet(5.2, 0.7 + 0.3 * len(rows), title)
    for k, (_, value, error) in enumerate(rows):
        axes.errorbar([value], [-k], xerr=[error] if error == error else None, fmt="o", color=BLUE, markersize=5)
    if level is not None:
        axes.axvline(level, color=GREY, linewidth=1, linestyle="--")
    axes.set_yticks([-k for k in range(len(rows))], [label for label, _, _ in rows])
    axes.set_ylim(-len(rows) + 0.5, 0.5)
    axes.set_xlabel(across, color=GREY)
    return encoded(figure)


def sheet(width: float, height: float, title: str) -> tuple[Any, Any]:
    """A figure of so many inches and its axes, on a clear ground."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=160, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=GREY, labelsize=8)
    for name, spine in axes.spines.items():
        spine.set_color(GREY)
        spine.set_visible(name in ("left", "bottom"))
    axes.xaxis.label.set_fontsize(9)  # type: ignore[attr-defined]
    axes.yaxis.label.set_fontsize(9)  # type: ignore[attr-defined]
    if title:
        axes.set_title(title, color=GREY, fontsize=9)
    return figure, axes


def _legend(axes: Any, labels: Sequence[str]) -> None:
    if any(labels):
        axes.legend(frameon=False, labelcolor=GREY, fontsize=8)


def _colours(n: int) -> list[str]:
    every = [BLUE, ORANGE, "#54a24b", "#b279a2", "#9c755f", "#72b7b2", "#d67195", GREY]
    return [every[k % len(every)] for k in range(n)]


def encoded(figure: Any) -> Picture:
    """A figure as a PNG, shown at half its pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    width, height = (round(size * figure.dpi / 2) for size in figure.get_size_inches())
    return Picture(buffer.getvalue(), width, height, words=True)
