"""Where does somebody else's model fail? A conditional prior makes it a labelled test set of any size.

A real test set holds few events of most kinds, and none where data are rare. A prior p(x | c) has as many as are
wanted of every c, so a classifier, a regressor or a segmenter is shown x and asked for c back. One number serves all
three, the error e(requested c, delivered c): 0 or 1 for a class, |difference| for an amount, 1 - Dice for a mask. Where
e is more than the tolerance the model failed, and failures are counted by c and by the distance of x from the data, on
generated events beside real ones, with exact intervals (Clopper and Pearson 1934).

The prior errs too: a generated event may not show what was asked of it. If a share eps of the events does not, a count
of failures is at most eps too high. A judge, a classifier that is not the one under test, says of each event whether it
shows what was requested. Among the events that it confirms few labels are wrong, but those that are hard for judge and
model alike are gone as well; so the model's rate of failure on the prior's events lies, as a rule, between the two
figures, and both are given. The judge's own errors on real events stand beside.

    result = stress_test(load("runs/digits"), my_classifier, real)
    for line in result.conditions: print(line.name, line.real, line.made)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.evaluation import Classifier, Features, nearest, open_features, own_features
from oneprior.evaluation.specifications import clopper_pearson
from oneprior.tasks.draw import synthesise
from oneprior.tasks.questions import Classes, Question, question_of
from oneprior.tasks.real import Real, as_stored, independent
from oneprior.training.run import Run


@dataclass(frozen=True)
class Rate:
    """Failures among trials."""

    failed: int
    trials: int

    @property
    def value(self) -> float:
        """Share that failed; nan without a trial."""
        return self.failed / self.trials if self.trials else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the share; all of 0 .. 1 without a trial."""
        return clopper_pearson(self.failed, self.trials) if self.trials else (0.0, 1.0)


@dataclass(frozen=True)
class Line:
    """Failures in one group of events.

    Args:
        name: of the group.
        real: on real events.
        made: on generated ones.
        confirmed: on those generated ones that the judge confirms; the same as `made` without a judge.
    """

    name: str
    real: Rate
    made: Rate
    confirmed: Rate


@dataclass(frozen=True)
class Answers:
    """Events, and what the model said of them.

    Args:
        x: events in [-1, 1], as the data's own type holds them, (n, *event_shape).
        index: their rows: of the seed for generated events, of the set for real ones, (n,).
        requested: the class, amount or mask that is right, (n,) or (n, *space).
        delivered: what the model said, of the same form.
        error: of delivered, (n,) float64.
        failed: error above the tolerance, (n,) bool.
        sure: the probability that the model gave its answer, (n,); nan where it gives none.
        distance: to the nearest reference event, (n,) float64.
        confirmed: the judge says that the event shows what was requested, (n,) bool; all True without a judge.
        told: what a generated event was asked to be, first axis n.
    """

    x: Tensor
    index: Tensor
    requested: Tensor
    delivered: Tensor
    error: Tensor
    failed: Tensor
    sure: Tensor
    distance: Tensor
    confirmed: Tensor
    told: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.x)

    def rate(self, chosen: Tensor) -> Rate:
        """Failures among some of the events, chosen by (n,) bool."""
        return Rate(int(self.failed[chosen].sum()), int(chosen.sum()))


@dataclass(frozen=True)
class StressTest:
    """What came out.

    Args:
        run: the prior.
        question: what was asked, and how answers are compared.
        model: name of the model under test.
        tolerance: the largest error that is no failure.
        features: what distances are taken in.
        reference: what they are taken to: "training" or "test".
        judge: its name; empty without one.
        real: real events and the answers to them; None until all is done.
        made: generated ones.
        seed: of the generated events.
        bins: groups by distance.
        seconds: wall time.
        done: the finished share.
    """

    run: Run
    question: Question
    model: str
    features: str
    reference: str
    judge: str = ""
    tolerance: float = math.nan
    real: Answers | None = None
    made: Answers | None = None
    seed: int = 0
    bins: int = 4
    seconds: float = 0.0
    done: float = 0.0

    @property
    def answers(self) -> tuple[Answers, Answers]:
        """Real and generated ones.

        Raises:
            InputError: before the last state.
        """
        if self.real is None or self.made is None:
            raise InputError("the stress test is not done: take the last state of stress_test_iter")
        return self.real, self.made

    @property
    def whole(self) -> Line:
        """All events."""
        return self._line("all", *(torch.ones(len(a), dtype=torch.bool) for a in self.answers))

    @property
    def conditions(self) -> tuple[Line, ...]:
        """Failures by what was requested."""
        return self._lines(self.question.names, *(self.question.group(a.requested) for a in self.answers))

    @property
    def distances(self) -> tuple[Line, ...]:
        """Failures by distance from the reference; every bin has the same number of generated events."""
        real, made = self.answers
        inner = torch.linspace(0, 1, self.bins + 1, dtype=torch.float64)[1:-1]
        edges = made.distance.quantile(inner).unique()
        ends = ["0", *(f"{edge:.3g}" for edge in edges.tolist()), "∞"]
        names = [f"{a} – {b}" for a, b in zip(ends[:-1], ends[1:], strict=True)]
        return self._lines(names, *(torch.bucketize(a.distance, edges) for a in (real, made)))

    @property
    def disputed(self) -> Rate:
        """Generated events of which the judge says that they are not what was requested."""
        _, made = self.answers
        return Rate(int((~made.confirmed).sum()), len(made))

    @property
    def disputed_real(self) -> Rate:
        """Real events of which it says so: its own errors."""
        real, _ = self.answers
        return Rate(int((~real.confirmed).sum()), len(real))

    def worst(self, most: int) -> Tensor:
        """Rows of the generated failures, confirmed ones only: those the model was surest of first, else the largest
        errors, and among equals those nearest to the data."""
        _, made = self.answers
        place = (made.failed & made.confirmed).nonzero()[:, 0]
        weight = made.sure if bool(made.sure.isfinite().all()) else made.error
        order = made.distance[place].argsort(stable=True)
        order = order[weight[place][order].argsort(descending=True, stable=True)]
        return place[order][:most]

    def _line(self, name: str, chosen_real: Tensor, chosen: Tensor) -> Line:
        real, made = self.answers
        return Line(name, real.rate(chosen_real), made.rate(chosen), made.rate(chosen & made.confirmed))

    def _lines(self, names: list[str] | tuple[str, ...], of_real: Tensor, of_made: Tensor) -> tuple[Line, ...]:
        return tuple(self._line(name, of_real == k, of_made == k) for k, name in enumerate(names))


def stress_test(run: Run, model: Callable[[Tensor], Any], real: Real, **options: Any) -> StressTest:
    """The last state of `stress_test_iter`."""
    *_, last = stress_test_iter(run, model, real, **options)
    return last


def stress_test_iter(
    run: Run,
    model: Callable[[Tensor], Any],
    real: Real,
    *,
    n: int = 100,
    by: str | None = None,
    train: Real | None = None,
    judge: Classifier | None = None,
    features: str | Features | None = None,
    tolerance: float | None = None,
    bins: int = 4,
    batch: int = 64,
    seed: int = 0,
    name: str = "",
    options: Mapping[str, Any] | None = None,
) -> Iterator[StressTest]:
    """Generate by condition, ask the model, and count where it fails.

    Args:
        run: a run that was trained with a condition.
        model: x in the user's units, float32 (n, channels, *space) -> class logits or probabilities (n, K) or labels
            (n,); amounts (n,) or (n, 1); a label map (n, *space) or logits (n, K, *space).
        real: real events with the same condition, which neither the prior nor the model was trained on.
        n: generated events of each class, or of each bin of an amount or of the size of masks.
        by: the condition; the run's only or first one by default, "pose:2" for entry 2 of a vector. Its other
            conditions are taken from real events that are alike in this one.
        train: the prior's training events, which distances are then taken to; else to `real`.
        judge: a classifier that is not the one under test, for class conditions.
        features: what distances are taken in, see `evaluation.open_features`; the judge's own, else pixels.
        tolerance: the largest error of an amount, or 1 - Dice, that is no failure; by default the one that 95 % of the
            real events keep.
        bins: of an amount, of the size of masks, and of distances.
        batch: generated at once.
        seed: of the generated events; row i of the result is row i of `oneprior sample` with the same condition.
        name: of the model, for messages.
        options: of `run.prior` (`steps`, `cfg_scale`, ...).

    Yields:
        The state, whose `done` grows; the last one is whole.

    Raises:
        InputError: for a run without conditions, real events without this one, a model that fails or returns something
            else, a judge where nothing is a class.
        ShapeError: for answers or a judge of another shape.
    """
    if n < 1 or bins < 1:
        raise InputError(f"a stress test needs n >= 1 and bins >= 1, got {n} and {bins}")
    if len(real) < 2:
        raise InputError(f"a stress test needs at least 2 real events to stand beside, got {len(real)}")
    start = time.perf_counter()
    name = name or getattr(model, "__name__", type(model).__name__)
    question = question_of(run, real, by, bins)
    if judge is not None:
        _check_judge(judge, run, question)
    real = independent(real, len(real))  # slices of one subject are one trial
    far = _Distance.of(features, judge, real if train is None else train, leave_one_out=train is None)
    state = StressTest(
        run,
        question,
        name,
        far.features.name,
        "test" if train is None else "training",
        judge.name if judge is not None else "",
        seed=seed,
        bins=bins,
    )
    yield state
    shown = as_stored(run, real.x)
    requested = question.requested(real.condition)
    delivered, sure = _asked(question, model, name, run, shown, batch)
    error = question.error(requested, delivered)
    limit = question.tolerance(error) if tolerance is None else tolerance
    answers = Answers(
        shown,
        torch.arange(len(real)),
        requested,
        delivered,
        error,
        error > limit,
        sure,
        far.real(shown),
        _confirmed(judge, shown, requested),
        real.condition,
    )
    state = replace(state, real=answers, tolerance=limit, done=0.05)
    yield state
    told = question.tell(real, n)
    total = len(next(iter(told.values())))
    rows, parts, found = Rows(total, seed=seed, device=run.model.device), [], []
    requested = question.requested(told)
    for x in synthesise(run, rows, condition=run.told(told), batch=batch, **(options or {})):
        x = as_stored(run, x.cpu())
        parts.append(x)
        found.append(_asked(question, model, name, run, x, batch))
        done = sum(map(len, parts)) / total
        yield replace(state, done=0.05 + 0.9 * done, seconds=time.perf_counter() - start)
    x, delivered, sure = torch.cat(parts), torch.cat([d for d, _ in found]), torch.cat([s for _, s in found])
    error = question.error(requested, delivered)
    made = Answers(
        x,
        torch.arange(total),
        requested,
        delivered,
        error,
        error > limit,
        sure,
        far.made(x),
        _confirmed(judge, x, requested),
        told,
    )
    yield replace(state, made=made, done=1.0, seconds=time.perf_counter() - start)


@dataclass(frozen=True)
class _Distance:
    """Distances to the nearest reference event, under features."""

    features: Features
    reference: Tensor
    leave_one_out: bool

    @classmethod
    def of(
        cls, features: str | Features | None, judge: Classifier | None, reference: Real, *, leave_one_out: bool
    ) -> _Distance:
        if isinstance(features, Features):
            chosen = features
        elif features is None and judge is not None:
            chosen = own_features(judge)
        else:
            chosen = open_features(features or "pixels", reference.x)
        return cls(chosen, chosen.embed(reference.x), leave_one_out)

    def made(self, x: Tensor) -> Tensor:
        return nearest(self.features.embed(x), self.reference)[0][:, 0].contiguous()

    def real(self, x: Tensor) -> Tensor:
        """Of real events; where they are the reference themselves, to the nearest other one."""
        k = 2 if self.leave_one_out else 1
        return nearest(self.features.embed(x), self.reference, k)[0][:, k - 1].contiguous()


def _asked(
    question: Question, model: Callable[[Tensor], Any], name: str, run: Run, x: Tensor, batch: int
) -> tuple[Tensor, Tensor]:
    """What the model says of events in its user's units, and how sure it is."""
    found = []
    for part in x.split(batch):
        try:
            with torch.no_grad():
                answer = model(run.units.to_units(part.double()).float().contiguous())
        except Exception as error:
            raise InputError(
                f"{name} fails on {len(part)} events of shape {tuple(part.shape[1:])}: {type(error).__name__}: {error}"
            ) from error
        found.append(question.read(answer, len(part), f"what {name} returns"))
    return torch.cat([d for d, _ in found]), torch.cat([s for _, s in found])


def _check_judge(judge: Classifier, run: Run, question: Question) -> None:
    if not isinstance(question, Classes):
        raise InputError(f"a judge is a classifier, and {question.spec.name} is no class; leave the judge out")
    if judge.event_shape != run.event_shape or judge.classes != question.spec.classes:
        raise InputError(
            f"the judge {judge.name} knows {judge.classes} classes of {tuple(judge.event_shape)}, and the run has "
            f"{question.spec.classes} of {tuple(run.event_shape)}: train it on the same data (oneprior features train)"
        )


def _confirmed(judge: Classifier | None, x: Tensor, requested: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.bool) if judge is None else judge.classify(x) == requested
