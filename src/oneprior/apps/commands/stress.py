"""`oneprior stress`: generated test sets by condition and by distance, and where a model of yours fails on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.commands.evaluate import imported, typed
from oneprior.apps.commands.sample import Law
from oneprior.apps.record import check_place

if TYPE_CHECKING:
    from oneprior.tasks.real import Real
    from oneprior.training import Run


@dataclass(frozen=True, kw_only=True)
class Stress(Command):
    """Find where a classifier, regressor or segmenter of yours fails, on events that a conditional prior makes.

    Args:
        run: a run that was trained with labels, amounts or masks.
        model: module:function, of this folder or installed; it is given x in the data's own units, a float32 tensor
            (n, channels, *space), and returns class logits or probabilities (n, classes) or labels (n,), amounts (n,),
            or a label map (n, *space).
        data: real test events with their labels; the run's own held-out part where not given. In a .npz, arrays named
            as the run's conditions are its amounts and masks.
        train: the run's training events, which distances are taken to; those that it names where not given.
        by: the condition that is asked back, where the run has several; pose:2 for an entry of a vector.
        n: generated events of each class, or of each bin of amounts or of sizes of masks.
        judge: a classifier (of `oneprior features`) that is not the one under test: only pictures on which it agrees
            with the request are shown as failures, and both rates are given.
        features: what distances look at, as of `oneprior evaluate`; the judge's own, else pixels.
        tolerance: the largest error of an amount, or of 1 - Dice, that is no failure; by default the one that 95 % of
            the real events keep.
        bins: of amounts, of sizes of masks, of distances.
        real: the most real events of each set.
        size: of the events, 32 or 80x96.
        key: the array of a .npz.
        label_key: the labels of a .npz.
        batch_size: generated, and given to the model, at once.
        out: the folder of report.html, result.json and failures/.
        law: what the family's sampling can be told.
    """

    run: tyro.conf.Positional[Path]
    model: str
    data: Path | None = None
    train: Path | None = None
    by: str | None = None
    n: int = 100
    judge: Path | None = None
    features: str | None = None
    tolerance: float | None = None
    bins: int = 4
    real: int = 5000
    size: str | None = None
    key: str | None = None
    label_key: str | None = None
    batch_size: int = 64
    out: Path
    law: Law = Law()  # noqa: RUF009 (frozen)

    def execute(self) -> Outcome:
        from oneprior.apps.stressed import figures, said, write_failures, write_page
        from oneprior.evaluation import Classifier
        from oneprior.tasks import stress_test_iter
        from oneprior.training import load

        if min(self.n, self.bins, self.batch_size) < 1 or self.real < 2:
            raise Mistake("--n, --bins and --batch-size must be at least 1, and --real at least 2")
        check_place(self.out, self)
        model = _function(self.model)
        run = load(self.run, device=self.common.torch_device())
        if not run.conditions:
            raise Mistake(
                f"{self.run} was trained without labels: a stress test needs a conditional prior; train it on data "
                "with class folders, or with labels in the .npz"
            )
        real, train = self._events(run)
        states = stress_test_iter(
            run,
            model,
            real,
            n=self.n,
            by=self.by,
            train=train,
            judge=None if self.judge is None else Classifier.load(self.judge),
            features=self.features,
            tolerance=self.tolerance,
            bins=self.bins,
            batch=self.batch_size,
            seed=self.common.seed,
            name=self.model,
            options=self.law.options(run),
        )
        result = screen.track(states, f"stress with {run.family}", lambda state: state.done)
        failures = write_failures(result, self.out / "failures")
        page = write_page(result, self.out / "report.html", typed(), self._flags())
        return Outcome(self.out, (page, *failures), figures(result), said(result), whole=True)

    def _flags(self) -> list[str]:
        """The options of the family's sampling, as they are typed."""
        words = []
        for name, value in vars(self.law).items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            elif value is not None:
                words += [f"--{flag}", str(value)]
        return words

    def _events(self, run: Run) -> tuple[Real, Real | None]:
        """Test events, and training events where they are there."""
        from oneprior.core import Rows
        from oneprior.tasks.real import open_real, own_data, read_real

        options = {"size": self.size, "key": self.key, "label_key": self.label_key}
        own, held_out = own_data(run)
        if self.data is not None:
            test = open_real(run, self.data, **options)
        elif held_out is not None:
            test = held_out
        else:
            raise Mistake(f"{self.run} held no data out, or they are gone: give labelled real events, --data TEST")
        train = open_real(run, self.train, **options) if self.train is not None else own
        rows = Rows(1, seed=self.common.seed)
        return read_real(run, test, self.real, rows), None if train is None else read_real(run, train, self.real, rows)


def _function(word: str) -> Callable[..., Any]:
    """The user's function; whatever goes wrong in a module of theirs is told in a line."""
    try:
        found = imported(word)
    except Mistake:
        raise
    except Exception as error:
        raise Mistake(f"{word}: the module fails when it is imported: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise Mistake(f"{word} is {type(found).__name__}, and no function")
    return found
