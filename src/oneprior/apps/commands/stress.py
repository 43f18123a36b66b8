"""`oneprior stress`: generated test sets by condition and by distance, and where a model of yours fails on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.commands.evaluate import Against
from oneprior.apps.commands.sample import Law
from oneprior.apps.record import check_place, typed


@dataclass(frozen=True, kw_only=True)
class Stress(Command):
    """Find where a classifier, regressor or segmenter of yours fails, on events that a conditional prior makes.

    Args:
        run: a run that was trained with labels, amounts or masks.
        model: module:function, of this folder or installed; it is given x in the data's own units, a float32 tensor
            (n, channels, *space), and returns class logits or probabilities (n, classes) or labels (n,), amounts (n,),
            or a label map (n, *space).
        against: real test events with their labels (in a .npz, arrays named as the run's conditions are its amounts and
            masks), and the training events, which distances are taken to.
        by: the condition that is asked back, where the run has several; pose:2 for an entry of a vector.
        n: generated events of each class, or of each bin of amounts or of sizes of masks.
        judge: a classifier (of `oneprior features`) that is not the one under test: only pictures on which it agrees
            with the request are shown as failures, and both rates are given.
        features: what distances look at, as of `oneprior evaluate`; the judge's own, else pixels.
        tolerance: the largest error of an amount, or of 1 - Dice, that is no failure; by default the one that 95 % of
            the real events keep.
        bins: of amounts, of sizes of masks, of distances.
        batch_size: generated, and given to the model, at once.
        out: the folder of report.html, result.json and failures/.
        law: what the family's sampling can be told.
    """

    run: tyro.conf.Positional[Path]
    model: str
    against: Against = Against()  # noqa: RUF009 (frozen)
    by: str | None = None
    n: int = 100
    judge: Path | None = None
    features: str | None = None
    tolerance: float | None = None
    bins: int = 4
    batch_size: int = 64
    out: Path
    law: Law = Law()  # noqa: RUF009 (frozen)

    def execute(self) -> Outcome:
        from oneprior.apps.stressed import figures, said, write_failures, write_page
        from oneprior.core import user_function
        from oneprior.evaluation import Classifier
        from oneprior.tasks import stress_test_iter
        from oneprior.training import load

        if min(self.n, self.bins, self.batch_size) < 1:
            raise Mistake("--n, --bins and --batch-size must be at least 1")
        check_place(self.out, self)
        model = user_function(self.model)
        run = load(self.run, device=self.common.torch_device())
        if not run.conditions:
            raise Mistake(
                f"{self.run} was trained without labels: a stress test needs a conditional prior; train it on data "
                "with class folders, or with labels in the .npz"
            )
        real, train = self.against.open(run, self.common.seed)
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
