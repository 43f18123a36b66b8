"""`oneprior evaluate`: a prior against real events it has not seen, and against a written specification."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.commands.sample import Law
from oneprior.apps.record import check_place, typed

if TYPE_CHECKING:
    from oneprior.tasks.real import Real
    from oneprior.training import Run


@dataclass(frozen=True, kw_only=True)
class Against:
    """The real events, opened as the run's own were where nothing else is said.

    Args:
        data: real events that the run never saw; its own held-out part where not given.
        train: its training events, for the test of copies; those that it names where not given.
        real: the most real events of each.
        size: of the events, 32 or 80x96.
        key: the array of a .npz.
        label_key: the labels of a .npz.
        subject: the subject in a file's name, a regular expression; events of one are no independent trials. The run's
            own rule where not given.
    """

    data: Path | None = None
    train: Path | None = None
    real: int = 5000
    size: str | None = None
    key: str | None = None
    label_key: str | None = None
    subject: str | None = None

    def open(self, run: Run, seed: int, training: bool = True) -> tuple[Real, Real | None]:
        """Test events, and training events where they are there and asked for."""
        from oneprior.core import Rows
        from oneprior.tasks.real import open_real, own_data, read_real

        if self.real < 2:
            raise Mistake("--real must be at least 2")
        options: dict[str, Any] = {"size": self.size, "key": self.key, "label_key": self.label_key}
        needed = self.data is None or (training and self.train is None)
        own, held_out = own_data(run) if needed else (None, None)
        if self.data is not None:
            test = open_real(run, self.data, **options)
        elif held_out is not None:
            test = held_out
        else:
            raise Mistake(f"{run.name} held no data out, or they are gone: give real events that it never saw, --data")
        rows = Rows(1, seed=seed)
        real = read_real(run, test, self.real, rows, subject=self.subject)
        if not training:
            return real, None
        train = open_real(run, self.train, **options) if self.train is not None else own
        return real, None if train is None else read_real(run, train, self.real, rows, subject=self.subject)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Measure a trained prior: distances, support, copies, likelihood, labels, specifications.

    Args:
        run: a trained run.
        against: the real events.
        n: samples.
        features: what distances look at: inception:FILE, dinov2:FILE, clip:FILE, own:FILE (of `oneprior features`),
            module:function, pixels, pca:K.
        classifier: a network that knows the classes (of `oneprior features`), for labels and specifications.
        segmenter: module:function, events in [-1, 1] -> class of each pixel, for specifications.
        spec: a YAML file of specifications; writes junit.xml as well.
        score_classifier: steps to train a classifier on samples for, to test it on real events; 1000 take minutes.
        likelihoods: real events that are scored; 0 for none.
        batch_size: drawn at once.
        out: the folder of report.html and result.json.
        law: what the family's sampling can be told.
    """

    run: tyro.conf.Positional[Path]
    against: Against = Against()
    n: int = 1000
    features: str | None = None
    classifier: Path | None = None
    segmenter: str | None = None
    spec: Path | None = None
    score_classifier: int = 0
    likelihoods: int = 16
    batch_size: int = 64
    out: Path
    law: Law = Law()  # noqa: RUF009 (frozen)

    def execute(self) -> Outcome:
        from oneprior.apps.evaluated import figures, write_counterexamples, write_page
        from oneprior.evaluation.specifications import read_suite, write_junit
        from oneprior.tasks.evaluation import evaluate_iter
        from oneprior.training import load

        if self.n < 2 or self.batch_size < 1 or self.likelihoods < 0:
            raise Mistake("--n must be at least 2, --batch-size at least 1, --likelihoods at least 0")
        check_place(self.out, self)
        suite = None if self.spec is None else read_suite(self.spec)
        run = load(self.run, device=self.common.torch_device())
        real, train = self.against.open(run, self.common.seed)
        states = evaluate_iter(
            run,
            real,
            n=self.n,
            train=train,
            features=self.features,
            classifier=self.classifier,
            segmenter=judge(self.segmenter),
            suite=suite,
            score_classifier=self.score_classifier,
            likelihoods=self.likelihoods,
            batch=self.batch_size,
            seed=self.common.seed,
            options=self.law.options(run),
        )
        result = screen.track(states, f"evaluate {run.family}", lambda state: state.done)
        written = [write_page(result, self.out / "report.html", typed())]
        said = f"{result.rows[0].name} {result.rows[0].value:.4g}" if result.rows else "nothing could be measured"
        if suite is not None:
            written.append(write_junit(result.findings, self.out / "junit.xml", suite.name, result.seconds))
            written += write_counterexamples(result.findings, result, self.out / "counterexamples")
            met = sum(f.state == "met" for f in result.findings)
            said += f"; {met} of {len(result.findings)} specifications are met"
        return Outcome(self.out, tuple(written), figures(result), said, whole=True)


def judge(word: str | None) -> Any:
    """A user's function of events, whose failures are told in a line and whose arrays become tensors."""
    if word is None:
        return None
    import torch

    from oneprior.core import InputError, user_function

    function = user_function(word)

    def asked(x: Any) -> Any:
        try:
            return torch.as_tensor(function(x))
        except Exception as error:
            raise InputError(f"{word} fails on events of {tuple(x.shape)}: {type(error).__name__}: {error}") from error

    return asked
