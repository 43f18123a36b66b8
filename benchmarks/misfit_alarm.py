"""The misfit alarm on held-out films and brain slices: is a restoration doubted where it should be, and only there?

Right measurements of every task of the domains (sigma = 0.05 on [0, 1]) are to be doubted in at most 5 % of cases; in
at least 95 %, under every task that is stated,

- foreign pictures: a film given to the brain prior, a slice given to the chest prior, brought to the prior's size;
- displaced objects: the body by a quarter of the side from where the prior has learned it, on black, as an unregistered
  head or a badly centred film is (an eighth is reported);
- wrong blurs: half and twice the stated width of a Gaussian, a motion for a Gaussian and a Gaussian for a motion (a
  third more or less and three times are reported).

Reported beside them: an instrument displaced by 1, 2 and 4 pixels against what is stated (y = A T x, the edge
continued). Events lie between those on which the alarm was designed (every fourth film, every fifth slice). Errors of
slices are of the mean over subjects. `before` is the former rule: misfit of the mean, or a strangeness above 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import kept
from benchmarks.domain_sets import NAMES, Domain, domain
from benchmarks.domains import SIGMA, TASKS
from benchmarks.harness import Figure, Options, record
from benchmarks.train import trained
from oneprior.core import Rows
from oneprior.operators import parse_operator
from oneprior.operators.base import Operator
from oneprior.tasks import restore, simulate
from oneprior.tasks.explanations import DECISIVE, displacement
from oneprior.tasks.familiarity import FOREIGN, most_misfit
from oneprior.training import Run, load

PRIORS = ("ppca", "mixture")
FILMS, SLICES_A_SUBJECT = 105, 3
BLURS = {
    "gaussian": {
        "blur x 1/2": "blur:gaussian:0.75",
        "blur x 2/3": "blur:gaussian:1",
        "blur x 3/2": "blur:gaussian:2.25",
        "blur x 2": "blur:gaussian:3",
        "blur x 3": "blur:gaussian:4.5",
        "motion for Gaussian": "blur:motion:7",
        "motion at 20 degrees": "blur:motion:7:angle=20",
        "border repeated": "blur:gaussian:1.5:boundary=nearest",
    },
    "motion": {
        "Gaussian for motion": "blur:gaussian:1.5",
        "motion x 1/2": "blur:motion:3.5",
        "motion x 2": "blur:motion:14",
        "motion turned by 45": "blur:motion:7:angle=45",
    },
}
DEFECTS = {
    "foreign": ("foreign",),
    "displaced": ("displaced by 1/4",),
    "wrong_blur": ("blur x 1/2", "blur x 2", "motion for Gaussian", "Gaussian for motion"),
}
"""The kinds of the issue -> the cases that its target is asked of."""


def run(options: Options) -> None:
    """Every prior of every domain, a cell each, then the table."""
    for name in NAMES:
        for kind in PRIORS:
            path = kept.folder("misfit_alarm", options) / f"{name}-{kind}.json"
            if not path.exists():
                kept.keep(path, {"rows": of_prior(name, kind, options)})
    cells = list(kept.every("misfit_alarm", options))
    table: list[dict[str, Any]] = [row for cell in cells for row in cell["rows"]]
    figures = {}
    for name in NAMES:
        for kind, cases in {"right": ("right",), **DEFECTS}.items():
            told = _pooled([row for row in table if row["domain"] == name and row["case"] in cases])
            target = ("<=", 0.05) if kind == "right" else (">=", 0.95)
            figures[f"{kind}_{name}"] = Figure(told["doubted"], told["standard_error"], target, ", ".join(cases))
            figures[f"{kind}_{name}_before"] = Figure(told["before"], None, None, "misfit or strangeness above 4")
    record(
        "misfit_alarm",
        figures,
        options,
        table=[{k: v for k, v in row.items() if k != "subjects"} for row in table],
        claim="Share of restorations that are doubted, by what was wrong with their measurement (noise of 5 %).",
        limit=DECISIVE,
        measured=kept.origins(cells),
        tasks=TASKS,
        events={"chest": f"{FILMS} films", "brain": f"{SLICES_A_SUBJECT} slices of each of 35 subjects"},
        defects=DEFECTS,
    )


def of_prior(name: str, kind: str, options: Options) -> list[dict[str, Any]]:
    """A row for each task and case of one prior."""
    prior = load(trained(f"{name}-half-{kind}", options))
    own, other = _events(domain(name, options)), _events(domain({"chest": "brain", "brain": "chest"}[name], options))
    rows = []
    for task, words in TASKS[name].items():
        stated = parse_operator(words, own.test.shape[1:])
        made = {case: _measured(x, by, prior) for case, (x, by) in cases(task, stated, own, other).items()}
        every = torch.cat(list(made.values()))
        found = restore(prior, every, stated, SIGMA, samples=1)
        told = torch.tensor([bool(doubt) for doubt in found.doubts])
        gain = found.diagnostics["gain"]
        before = (found.diagnostics["misfit"] > most_misfit(stated.out_shape.numel())).cpu()
        before |= (found.diagnostics["strangeness"] > FOREIGN).cpu()
        start = 0
        for case, y in made.items():
            part = slice(start, start + len(y))
            start += len(y)
            subject = own.subject if case != "foreign" else other.subject
            best = gain[part].argmax(1)[gain[part].amax(1) > DECISIVE]
            said = found.diagnostics["explanations"][int(best.mode()[0])] if len(best) else ""
            row = {"domain": name, "prior": kind, "task": task, "case": case, **_share(told[part], subject)}
            rows.append({**row, "before": float(before[part].double().mean()), "most often said": said})
        print(
            name, kind, task, {row["case"]: round(row["doubted"], 3) for row in rows if row["task"] == task}, flush=True
        )
    return rows


def cases(task: str, stated: Operator, own: Domain, other: Domain) -> Mapping[str, tuple[Tensor, Operator]]:
    """What is measured, by what, of each case of a task."""
    x, shape = own.test, own.test.shape[1:]
    foreign = F.interpolate(other.test, size=tuple(shape[1:]), mode="bilinear", antialias=True)
    found = {"right": (x, stated), "foreign": (foreign, stated)}
    for parts in (8, 4):
        found[f"displaced by 1/{parts}"] = (_on_black(x, parts), stated)
    for steps in (1, 2, 4):
        found[f"instrument off by {steps}"] = (_turnwise(x, steps), stated)
    for case, words in BLURS.get(task, {}).items():
        found[case] = (x, parse_operator(words, shape))
    return found


def _events(whole: Domain) -> Domain:
    """The events that are judged: films between those of the design, other slices of every subject."""
    if whole.name == "brain":
        subjects = whole.subject.unique()
        per = len(whole.test) // len(subjects)
        own = torch.arange(len(subjects))[:, None]
        level = (own * 7 + torch.tensor([1, 9, 17])) % per
        place = own * per + level
        index = torch.where(place % 5 == 0, own * per + (level + 1) % per, place).flatten()
    else:
        index = torch.linspace(0, len(whole.test) - 4, FILMS).round().long() // 4 * 4 + 2
    return Domain(whole.name, whole.training, whole.tune, whole.test[index], whole.body[index], whole.subject[index])


def _measured(x: Tensor, by: Operator, prior: Run) -> Tensor:
    return simulate(x, by, SIGMA, Rows(len(x), seed=11), units=prior.units).y


def _turnwise(x: Tensor, steps: int) -> Tensor:
    """Moved down, right, up, left by turns, the edge continued."""
    moved = x.clone()
    for turn, (axis, sign) in enumerate(((0, 1), (1, 1), (0, -1), (1, -1))):
        moved[turn::4] = displacement(x.shape[1:], axis, sign * steps)(x[turn::4])
    return moved


def _on_black(x: Tensor, parts: int) -> Tensor:
    """Moved by 1 / parts of the side, down, right, up, left by turns; black comes in."""
    moved, (height, width) = torch.full_like(x, -1.0), x.shape[2:]
    down, right = height // parts, width // parts
    moved[0::4, :, down:] = x[0::4, :, :-down]
    moved[1::4, :, :, right:] = x[1::4, :, :, :-right]
    moved[2::4, :, :-down] = x[2::4, :, down:]
    moved[3::4, :, :, :-right] = x[3::4, :, :, right:]
    return moved


def _share(told: Tensor, subject: Tensor) -> dict[str, Any]:
    """The share that is doubted, with its error, whose cases are the subjects."""
    each = [float(told[subject == one].double().mean()) for one in subject.unique()]
    per = torch.tensor(each, dtype=torch.float64)
    return {
        "doubted": float(told.double().mean()),
        "standard_error": float(per.std() / len(per) ** 0.5),
        "subjects": each,
    }


def _pooled(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean over tasks, cases and priors of a domain; its error is that of the subjects' means."""
    per = torch.tensor([row["subjects"] for row in rows], dtype=torch.float64).mean(0)
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in ("doubted", "before")}
    return {**mean, "standard_error": float(per.std() / len(per) ** 0.5)}
