"""The page of the demonstration, and its pictures for the README."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from torch import Tensor

import oneprior
from oneprior.apps import demo_zoo, pictures
from oneprior.apps.demo import PROBLEMS, Contender, Problem, Study
from oneprior.apps.report import Cards, Command, Gallery, Heading, Picture, Report, Section, Strips, Table, Text

_SHOWN = 12  # restorations in a strip


def write(study: Study, path: Path, data: Path | None) -> Path:
    """report.html."""
    of = "handwritten digits of 8 x 8 pixels (scikit-learn)" if data is None else f"images of `{data}`"
    lead = (
        f"Four priors learned {study.learned:,} {of} and then restored {study.held_out} that none of them had seen, "
        "each by the same call."
    )
    sections: list[Section] = [_cards(study), *_drawn(study), *_restored(study), *_figures(study)]
    sections += [*demo_zoo.sections(study.zoo), *_own(data)]
    seed = next(iter(study.runs.values())).record.train.get("seed", 0)
    foot = (
        f"OnePrior {oneprior.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads of "
        f"{platform.processor() or platform.machine()}, seed {seed}. This page stands alone: it fetches nothing."
    )
    return Report("Learn p(x) once, restore anything", sections, lead, foot).write(path)


def write_pictures(study: Study, folder: Path) -> list[Path]:
    """PNGs for the README: draws of each prior, and a panel of restorations for each problem."""
    written = []
    for c in study.priors:
        written.append(_draws(study.samples[c.key]).save(folder / f"samples_{c.key}.png"))
    strips = [(c.title, pictures.grid(study.samples[c.key][:16], columns=16, pixels=48)) for c in study.priors]
    written.append(pictures.stack(strips).save(folder / "samples.png"))
    for problem in PROBLEMS:
        strips = _strips(study, problem)
        written.append(pictures.stack(strips).save(folder / f"restored_{problem.key}.png"))
    for shown in study.zoo:
        strips = demo_zoo.strips(shown)
        written.append(pictures.stack(strips).save(folder / f"zoo_{shown.entry.facts.domain}.png"))
    return written


def _cards(study: Study) -> Cards:
    least = min(study.gain(problem) for problem in PROBLEMS)
    beside = min(study.gain(problem, "mixture") for problem in PROBLEMS)
    best = " or ".join(dict.fromkeys(study.best_deep(problem).title for problem in PROBLEMS))
    coverage = [study.scores[p.key, study.best_deep(p).key].coverage for p in PROBLEMS]
    low, high = min(coverage), max(coverage)
    return Cards(
        [
            (
                _signed(least),
                f"at least, by the best network ({best}) over ppca's exact answer",
            ),
            (_signed(beside), "at least, over the exact answer of a mixture of ten Gaussians"),
            (f"{100 * low:.0f} – {100 * high:.0f} %", "of pixels inside the best network's 90 % intervals"),
            (_clock(study.seconds), "for everything on this page"),
        ]
    )


def _drawn(study: Study) -> list[Section]:
    trained = {c.key: study.runs[c.key].record.result.get("seconds", 0.0) for c in study.priors}
    shown = [
        Picture(_draws(study.samples[c.key]), f"**{c.title}**, trained in {_clock(trained[c.key])}")
        for c in study.priors
    ]
    return [
        Heading("Drawn from nothing"),
        Text(
            "`oneprior.load(run).prior().sample(Rows(64, seed=0))`, the same line for all four. ppca knows means and "
            "covariances and nothing else; what the others add is what a restoration can gain."
        ),
        Gallery(shown),
    ]


def _restored(study: Study) -> list[Section]:
    twice = " The last line of means is the same diffusion, asked for honest intervals (`--aim calibrated`)."
    sections: list[Section] = [
        Heading("Restored"),
        Text(
            "One call, `oneprior.restore(run, y, operator, noise)`, gives draws from p(x | y). Their mean has the "
            "smallest error; one draw looks like an image; their spread says what the measurement left open."
            + (twice if len(study.priors) < len(study.contenders) else "")
        ),
    ]
    for problem in PROBLEMS:
        best = study.best_deep(problem)
        caption = (
            f"`--operator {problem.operator}`, noise {problem.sigma:g} on the scale of [-1, 1]. Posterior means of "
            f"all; deviation and draws of the best network here, {best.title}."
        )
        sections += [Heading(problem.title, 3), Strips(_strips(study, problem), caption)]
        sections.append(Picture(pictures.colour_bar(0, _highest(study, problem, best), "posterior deviation")))
    return sections


def _figures(study: Study) -> list[Section]:
    rows: list[list[str | None]] = []
    best: set[tuple[int, int]] = set()
    rules: set[int] = set()
    for problem in PROBLEMS:
        first = len(rows)
        rules |= {first} if first else set()
        scores = [study.scores[problem.key, c.key] for c in study.contenders]
        for c, s in zip(study.contenders, scores, strict=True):
            rows.append(
                [
                    problem.title if c is study.contenders[0] else "",
                    c.title,
                    f"{s.psnr_mean:.2f}",
                    f"{s.psnr_draw:.2f}",
                    f"{s.crps:.3f}",
                    f"{s.coverage:.1%} ± {s.coverage_error:.1%}",
                    f"{s.coverage_active:.1%}",
                    f"{s.seconds:.1f}",
                ]
            )
        best.add((first + max(range(len(scores)), key=lambda k: scores[k].psnr_mean), 2))
        best.add((first + max(range(len(scores)), key=lambda k: scores[k].psnr_draw), 3))
        best.add((first + min(range(len(scores)), key=lambda k: scores[k].crps), 4))
    head = ("", "prior", "PSNR of the mean", "PSNR of one draw", "CRPS", "90 % holds", "of active pixels", "seconds")
    caption = (
        f"{study.held_out} held-out images. PSNR in decibels on [-1, 1], averaged over images; a mean has more of it "
        "than a draw, and the two are never to be compared. CRPS: smaller is better. 90 % holds: the share of pixels "
        "inside the interval between order statistics of the draws, which is 90 % for the true posterior; active "
        f"pixels leave out those that hardly vary. Seconds: for all images and draws. Methods: {_methods(study)}."
    )
    table = Table(head, rows, caption, frozenset(best), frozenset(rules), words=2)
    return [Heading("In figures"), table]


def _methods(study: Study) -> str:
    """Which method restored with which prior."""
    said = []
    for c in study.contenders:
        scores = [study.scores[problem.key, c.key] for problem in PROBLEMS]
        names = " or ".join(dict.fromkeys(s.method for s in scores))
        said.append(f"{c.title} {names}{', exact' if all(s.exact for s in scores) else ', an approximation'}")
    return "; ".join(said)


def _own(data: Path | None) -> list[Section]:
    folder = data or "photos/"
    return [
        Heading("Your own images"),
        Command(f"oneprior demo --data {folder} --size 16 --out demo-own", "This page about a folder of yours:"),
        Command(
            f"oneprior train diffusion --data {folder} --size 32 --images 2000000 --out runs/own\n"
            "oneprior sample runs/own --n 64 --out samples.png\n"
            "oneprior simulate photo.png --size 32 --operator downsample:4 --noise 5% --out y.npz\n"
            "oneprior restore runs/own --input y.npz --out restored/",
            "Step by step, with a prior that is trained for longer:",
        ),
        Command(
            "import oneprior\n\n"
            f'run = oneprior.train("diffusion", data="{folder}", out="runs/own", size=32, images=2_000_000)\n'
            "x = run.prior().sample(oneprior.Rows(64, seed=0))\n"
            'result = oneprior.restore(run, y, "downsample:4", "5%")      # result.mean, result.std, result.draws',
            "The same in Python:",
        ),
    ]


def _strips(study: Study, problem: Problem) -> list[tuple[str, pictures.Picture]]:
    """Truth, measurement, the means of all priors, and deviation and a draw of the best network."""
    best = study.best_deep(problem)
    result = study.results[problem.key, best.key]
    measurement, to_model = result.measurement, result.units.to_model
    assert measurement.truth is not None

    def strip(x: Tensor, **options: float | str) -> pictures.Picture:
        return pictures.grid(x[:_SHOWN].float().cpu(), columns=_SHOWN, pixels=64, **options)  # type: ignore[arg-type]

    rows = [("truth", strip(to_model(measurement.truth))), ("measurement", strip(to_model(measurement.picture())))]
    for c in study.contenders:
        rows.append((c.title, strip(to_model(study.results[problem.key, c.key].mean))))
    deviation = result.std / result.units.scale
    highest = _highest(study, problem, best)
    rows.append(("deviation", strip(deviation, low=0.0, high=highest, colours="magma")))
    rows += [(f"draw {s + 1}", strip(to_model(result.draws[s]))) for s in range(2)]
    return rows


def _highest(study: Study, problem: Problem, contender: Contender) -> float:
    """The end of the scale of deviations, on [-1, 1]: a round number above almost all of them."""
    result = study.results[problem.key, contender.key]
    values = (result.std[:_SHOWN] / result.units.scale).flatten().sort().values
    return max(round(float(values[int(0.99 * (len(values) - 1))]) + 0.05, 1), 0.1)


def _draws(x: Tensor) -> pictures.Picture:
    return pictures.grid(x[:36], columns=6, pixels=48)


def _signed(decibels: float) -> str:
    return f"{decibels:+.1f} dB".replace("-", "−")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{max(seconds, 0.1):.1f} s" if seconds < 10 else f"{rest} s"
