"""How often the calibration verdict flags an exact posterior, and how often one that is a little wrong.

Numbers: given the truth x ~ N(0, 1), the rank among S draws of N(b, f^2) is binomial(S, Phi((x - b) / f)), so that
ranks are simulated without the draws, 2,000 repetitions at once.

Images: x = a smooth Gaussian field of 8 x 8 pixels, y = every second pixel and noise; the posterior is Gaussian, its
draws exact but for the declared defect, and the verdict is over nine dependent functions (`functionals`, the
likelihood of y, the distance to reference points). The same p-values under Holm's procedure over all functions and
questions stand beside it: that is what exchanging truth and draws saves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Figure, Options, record
from oneprior.core import Rows
from oneprior.evaluation.ranks import Ranks, functionals, rank_truth
from oneprior.evaluation.tarp import distance, reference_points
from oneprior.evaluation.verdict import QUESTIONS, WEIGHTS, calibration_verdict, holm, rank_p_values

LEVEL = 0.05
DRAWS = 99
NARROW = (0.0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25)
BIAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
IMAGES = 100
IMAGE_DRAWS = 19
SIDE = 8


def run(options: Options) -> None:
    """Numbers at three sizes and all strengths, then images."""
    repetitions = 40 if options.quick else 2000
    sizes = (100,) if options.quick else (100, 300, 1000)
    table = [row for n in sizes for row in power_curves(n, repetitions)]
    largest = {row["defect"] + f" {row['strength']:g}": row["flagged"] for row in table if row["n"] == sizes[-1]}
    exact, error = largest["none 0"], math.sqrt(LEVEL * (1 - LEVEL) / repetitions)
    figures = {
        "false_flags": Figure(exact, error, None, f"numbers, n = {sizes[-1]}, {DRAWS} draws"),
        "false_flags_off_5_percent": Figure(abs(exact - LEVEL), error, ("<=", 0.02), "distance of it from 0.05"),
    }
    for defect, strength in (("too narrow", 0.1), ("too wide", 0.1), ("biased", 0.15)):
        share = largest[f"{defect} {strength:g}"]
        error = math.sqrt(share * (1 - share) / repetitions)
        name = f"flagged_{defect.replace(' ', '_')}"
        figures[name] = Figure(share, error, (">=", 0.95), f"numbers, n = {sizes[-1]}, strength {strength:g}")
    for n, draws in ((20, 19), (1000, 19)):
        share = flagged(ranks_of_numbers(n, draws, repetitions, 1.0, 0.0, seed=5), draws)
        figures[f"false_flags_n{n}_S{draws}"] = Figure(share, math.sqrt(share * (1 - share) / repetitions))
    names, rows = images(repetitions, 20 if options.quick else 300)
    share, error = rows[0]["flagged"], math.sqrt(LEVEL * (1 - LEVEL) / repetitions)
    what = f"images, {len(names)} functions, n = {IMAGES}, {IMAGE_DRAWS} draws"
    figures["false_flags_of_images"] = Figure(share, error, None, what)
    figures["false_flags_of_images_off_5_percent"] = Figure(abs(share - LEVEL), error, ("<=", 0.02), what)
    figures["false_flags_of_images_under_holm_over_all"] = Figure(
        rows[0]["holm_over_all"], error, None, "the same ranks, without exchanging truth and draws"
    )
    record(
        "calibration_verdict",
        figures,
        options,
        table=[*table, *rows],
        claim=(
            f"Share of repetitions in which the verdict (family-wise error {LEVEL:g}) flags a posterior. "
            "Strength: relative error of the standard deviation, or bias in posterior standard deviations. "
            "The last rows are images."
        ),
        repetitions=repetitions,
        questions=QUESTIONS,
        weights=WEIGHTS,
        functions=names,
    )


def power_curves(n: int, repetitions: int) -> list[dict[str, Any]]:
    """Share flagged, for every defect and strength, of n numbers."""
    defects = [("none", 0.0, 1.0, 0.0)]
    defects += [("too narrow", s, 1 - s, 0.0) for s in NARROW[1:]]
    defects += [("too wide", s, 1 + s, 0.0) for s in NARROW[1:]]
    defects += [("biased", s, 1.0, s) for s in BIAS]
    table = []
    for seed, (defect, strength, factor, bias) in enumerate(defects):
        share = flagged(ranks_of_numbers(n, DRAWS, repetitions, factor, bias, seed), DRAWS)
        table.append(_row("numbers", n, DRAWS, defect, strength, share, repetitions))
    return table


def ranks_of_numbers(n: int, draws: int, repetitions: int, factor: float, bias: float, seed: int) -> Tensor:
    """Ranks (n, repetitions) of N(0, 1) among draws of N(bias, factor^2)."""
    generator = torch.Generator().manual_seed(1000 * n + seed)
    truth = torch.randn(n, repetitions, generator=generator, dtype=torch.float64)
    u = torch.special.ndtr((truth - bias) / factor)
    return torch.binomial(torch.full_like(u, draws), u, generator=generator).long()


def flagged(ranks: Tensor, draws: int) -> float:
    """Share of the columns that the verdict flags."""
    return float((holm(rank_p_values(ranks, draws), WEIGHTS) <= LEVEL).any(1).double().mean())


def images(exact: int, wrong: int) -> tuple[Sequence[str], list[dict[str, Any]]]:
    """Names of the functions, and the share flagged of Gaussian image posteriors."""
    defects = (("none", 0.0, 1.0, 0.0), ("too narrow", 0.1, 0.9, 0.0), ("too wide", 0.1, 1.1, 0.0))
    defects += (("biased", 0.15, 1.0, 0.15),)
    table, names = [], ()
    for number, (defect, strength, factor, bias) in enumerate(defects):
        flags, over_all, repetitions = 0, 0, wrong if number else exact
        for start in range(0, repetitions, 20):
            ranks = image_ranks(20 * IMAGES, factor, bias, seed=10_000 * number + start)
            names = ranks.names
            for part in range(min(20, repetitions - start)):
                own = slice(part * IMAGES, (part + 1) * IMAGES)
                exchanged = None if ranks.exchanged is None else ranks.exchanged[:, own]
                some = Ranks(names, ranks.values[own], IMAGE_DRAWS, exchanged)
                rows = Rows(IMAGES, seed=10_000 * number + start + part, stream="verdict")
                flags += calibration_verdict(some, rows, level=LEVEL).flagged
                over_all += calibration_verdict(Ranks(names, some.values, IMAGE_DRAWS), rows, level=LEVEL).flagged
        row = _row("images", IMAGES, IMAGE_DRAWS, defect, strength, flags / repetitions, repetitions)
        table.append({**row, "holm_over_all": over_all / repetitions})
    return names, table


def image_ranks(n: int, factor: float, bias: float, seed: int) -> Ranks:
    """Ranks of n fields among draws of their posterior, whose deviation is `factor` and whose bias `bias` too large."""
    place = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double()
    prior = (-torch.cdist(place, place).square() / (2 * 2.0**2)).exp() + 1e-3 * torch.eye(SIDE**2).double()
    seen = torch.arange(0, SIDE**2, 2)
    noise = 0.3
    gain = prior[:, seen] @ torch.linalg.inv(prior[seen][:, seen] + noise**2 * torch.eye(len(seen)).double())
    posterior = prior - gain @ prior[seen]
    root = torch.linalg.cholesky((posterior + posterior.T) / 2 + 1e-9 * torch.eye(SIDE**2).double())
    rows = Rows(n, seed=seed)
    x = rows.normal(SIDE**2, dtype=torch.float64) @ torch.linalg.cholesky(prior).T
    y = x[:, seen] + noise * rows.normal(len(seen), dtype=torch.float64)
    error = rows.normal(IMAGE_DRAWS, SIDE**2, dtype=torch.float64).movedim(1, 0) @ root.T
    draws = (y @ gain.T + factor * error + bias * posterior.diagonal().sqrt()).reshape(IMAGE_DRAWS, n, 1, SIDE, SIDE)
    truth = x.reshape(n, 1, SIDE, SIDE)
    functions = {
        **functionals(truth, rows),
        "likelihood": lambda e: -(e.flatten(1)[:, seen] - y).square().sum(1),
        "distance": distance(reference_points(draws, truth, rows), truth),
    }
    return rank_truth(draws, truth, functions, rows)


def _row(what: str, n: int, draws: int, defect: str, strength: float, share: float, repetitions: int) -> dict[str, Any]:
    return {
        "trials": what,
        "n": n,
        "draws": draws,
        "defect": defect,
        "strength": strength,
        "flagged": share,
        "standard_error": math.sqrt(share * (1 - share) / repetitions),
        "holm_over_all": None,
    }
