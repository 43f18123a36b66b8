"""`oneprior compare`: several priors, the same measures, the same real events, one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.commands.evaluate import Against, judge
from oneprior.apps.record import check_place, typed


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Measure several trained priors against the same real events.

    Args:
        runs: two trained runs or more.
        against: the real events.
        n: samples of each.
        features: see `oneprior evaluate`; the same for all.
        classifier: a network that knows the classes.
        segmenter: module:function, for specifications.
        spec: a YAML file of specifications.
        score_classifier: steps to train a classifier on the samples of each for; 1000 take minutes.
        likelihoods: real events that are scored; 0 for none.
        batch_size: drawn at once.
        out: the folder of report.html and result.json.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    against: Against = Against()  # noqa: RUF009 (frozen)
    n: int = 1000
    features: str | None = None
    classifier: Path | None = None
    segmenter: str | None = None
    spec: Path | None = None
    score_classifier: int = 0
    likelihoods: int = 16
    batch_size: int = 64
    out: Path

    def execute(self) -> Outcome:
        from oneprior.apps.compared import all_figures, write_page
        from oneprior.core import ShapeError
        from oneprior.evaluation.specifications import read_suite
        from oneprior.tasks.evaluation import Evaluation, evaluate_iter
        from oneprior.training import load

        if len(self.runs) < 2:
            raise Mistake("compare needs two runs or more: oneprior compare RUN1 RUN2 --data TEST --out DIR")
        if self.n < 2 or self.batch_size < 1 or self.likelihoods < 0:
            raise Mistake("--n must be at least 2, --batch-size at least 1, --likelihoods at least 0")
        check_place(self.out, self)
        suite = None if self.spec is None else read_suite(self.spec)
        runs = [load(path, device=self.common.torch_device()) for path in self.runs]
        for run in runs[1:]:
            if run.event_shape != runs[0].event_shape:
                what = f"events of {run.name}"
                raise ShapeError(what, tuple(run.event_shape), tuple(runs[0].event_shape), "Compare runs of one size.")
        held_out = {
            str((r.record.data.get("path"), r.record.data.get("split"), r.record.data.get("options"))) for r in runs
        }
        if self.against.data is None and len(held_out) > 1:
            raise Mistake("these runs held different events out: give real events that none of them has seen, --data")
        names, results = _names(self.runs), []
        real, train = self.against.open(runs[0], self.common.seed)
        features = self.features
        for name, run in zip(names, runs, strict=True):
            if run is not runs[0]:
                real, train = self.against.open(run, self.common.seed)
            states = evaluate_iter(
                run,
                real,
                n=self.n,
                train=train,
                features=results[0].features if results else features,
                classifier=self.classifier,
                segmenter=judge(self.segmenter),
                suite=suite,
                score_classifier=self.score_classifier,
                likelihoods=self.likelihoods,
                batch=self.batch_size,
                seed=self.common.seed,
            )
            last: Evaluation = screen.track(states, name, lambda state: state.done)
            results.append(last)
        page = write_page(results, names, self.out / "report.html", typed())
        first = [result.rows[0] for result in results if result.rows]
        said = ", ".join(f"{name} {row.value:.4g}" for name, row in zip(names, first, strict=False))
        said = f"{first[0].name}: {said}" if first else "nothing could be measured"
        return Outcome(self.out, (page,), all_figures(results, names), said, whole=True)


def _names(paths: tuple[Path, ...]) -> list[str]:
    """The folders' names, with their parents' where two are the same."""
    short = [path.name for path in paths]
    return [path.name if short.count(path.name) == 1 else "/".join(path.parts[-2:]) for path in paths]
