"""What the demonstration shows of the zoo: a prior that nobody had to train here, on events that it has not seen.

Digits can be learned in minutes, films and scans cannot, and the package brings no data. The entries of the zoo bring a
few pictures to try them on (`training.zoo`): these are damaged and restored, by the best entry of each domain that is
quick enough for a demonstration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from oneprior.apps import pictures
from oneprior.apps.report import Command, Heading, Picture, Section, Strips, Text
from oneprior.core import Rows
from oneprior.data import open_dataset
from oneprior.evaluation import psnr
from oneprior.tasks import Measurement, Restoration, restore_iter, simulate
from oneprior.training import load
from oneprior.training.zoo import PREFIX, Entry, entries

OPERATOR, NOISE = "downsample:4", 0.1  # of [-1, 1]: 5 % of the range
_QUICK = ("ppca", "diffusion")
"""Families that restore a handful of events in seconds."""


@dataclass(frozen=True)
class Shown:
    """One entry and what it made of its examples."""

    entry: Entry
    result: Restoration


def chosen(zoo: Path | None = None) -> list[Entry]:
    """The best entry of each domain, by its first figure, of those that are quick and bring examples."""
    fit = [one for one in entries(zoo) if one.recipe.family in _QUICK and one.examples and one.figures]
    fit.sort(key=lambda one: (one.facts.domain, -one.figures[0].value))
    return [next(of_domain) for _, of_domain in groupby(fit, key=lambda one: one.facts.domain)]


def restoration(entry: Entry, samples: int, seed: int, device: str | torch.device = "cpu") -> Iterator[Restoration]:
    """Restore the examples of an entry; an iterator of states, the last of which is the result."""
    run = load(entry.folder, device=device)
    examples = open_dataset(entry.examples[0].parent, labels=False, cache=False)
    x = run.units.to_model(examples.units.to_units(examples.batch(torch.arange(len(examples))).x))
    rows = Rows(len(x), seed=seed, stream=entry.name)
    measurement: Measurement = simulate(
        x, OPERATOR, NOISE * run.units.scale, rows, units=run.units, geometry=run.geometry
    )
    return restore_iter(run, measurement, samples=samples, aim="fast", seed=seed)


def sections(shown: Sequence[Shown]) -> list[Section]:
    """The part of the page, empty without entries."""
    if not shown:
        return []
    parts: list[Section] = [
        Heading("From the zoo: priors that come with the package"),
        Text(
            "No digit here: films and scans that these priors have not seen, behind means of 4 x 4 pixels and noise of "
            "5 %. Nothing was trained for this page, and nothing is for diagnosis."
        ),
    ]
    for one in shown:
        facts, decibels = one.entry.facts, float(psnr_of_mean(one.result).mean())
        caption = (
            f"`{PREFIX}{one.entry.name}`, {facts.owed}: {one.result.method}, "
            f"{one.result.seconds:.1f} s for {len(one.result.mean)} events; PSNR of the mean {decibels:.1f} dB."
        )
        if facts.examples:
            caption += f" What is restored are {facts.examples.partition(':')[0]}."
        highest = _highest(one.result)
        parts += [Heading(facts.title.partition(",")[0].capitalize(), 3), Strips(strips(one), caption)]
        parts.append(Picture(pictures.colour_bar(0, highest, "posterior deviation")))
    name = f"{PREFIX}{shown[0].entry.name}"
    parts.append(
        Command(
            f"oneprior zoo list\noneprior zoo get {shown[0].entry.name} --out runs/mine\n"
            f"oneprior restore {name} --study runs/mine/examples --operator {OPERATOR} --noise 5% --aim fast "
            "--out restored/",
            "The same on the command line:",
        )
    )
    return parts


def strips(shown: Shown) -> list[tuple[str, pictures.Picture]]:
    """Truth, measurement, mean, deviation and a draw of each example."""
    result = shown.result
    measurement, to_model = result.measurement, result.units.to_model
    assert measurement.truth is not None

    space = measurement.truth.shape[2:]
    coarse = torch.nn.functional.interpolate(to_model(measurement.picture()).float(), size=space, mode="nearest")

    def strip(x: Tensor, **options: float | str) -> pictures.Picture:
        return pictures.grid(x.float().cpu(), columns=len(x), pixels=128, **options)  # type: ignore[arg-type]

    return [
        ("truth", strip(to_model(measurement.truth))),
        ("measurement", strip(coarse)),
        ("mean", strip(to_model(result.mean))),
        ("deviation", strip(result.std / result.units.scale, low=0.0, high=_highest(result), colours="magma")),
        ("a draw", strip(to_model(result.draws[0]))),
    ]


def figures(shown: Sequence[Shown]) -> dict[str, dict[str, float | str]]:
    """What `result.json` keeps: PSNR of the mean of each entry, in decibels."""
    return {
        one.entry.name: {"psnr_mean": round(float(psnr_of_mean(one.result).mean()), 3), "method": one.result.method}
        for one in shown
    }


def psnr_of_mean(result: Restoration) -> Tensor:
    """PSNR of the mean of each event whose truth is known, on the scale of [-1, 1], in decibels, (n,)."""
    to_model, truth = result.units.to_model, result.measurement.truth
    assert truth is not None
    return psnr(to_model(result.mean.double().cpu()), to_model(truth.double().cpu()))


def _highest(result: Restoration) -> float:
    """The end of the scale of deviations, on [-1, 1]: a round number above almost all of them."""
    return max(round(float((result.std / result.units.scale).double().quantile(0.99)) + 0.05, 1), 0.1)
