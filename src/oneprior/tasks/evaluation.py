"""Measure a trained prior against real events: distances, support, copies, likelihood, delivery, specifications.

    result = evaluate(load("runs/digits"), open_dataset("test/"), n=2000)
    for row in result.rows: print(row.name, row.value, row.error, row.real)

Samples are asked for what the real events have (labels, amounts), so that both sets have the same make-up. Every row of
the table has, where it can, a second column: the same measure of real training events in place of samples, which is the
best that a figure can be expected to be. It never names a family.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.evaluation import (
    Classifier,
    Features,
    LabelAccuracy,
    Likelihood,
    Memorisation,
    classifier_accuracy_score,
    frechet_distance,
    frechet_infinity,
    kernel_distance,
    label_accuracy,
    label_modes,
    likelihood_of,
    memorisation,
    open_features,
    support,
)
from oneprior.evaluation.specifications import Finding, Judges, Outputs, Suite
from oneprior.priors.base import Prior
from oneprior.tasks.draw import synthesise
from oneprior.tasks.real import Real
from oneprior.training.run import Run


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        name: of the measure.
        value: of the samples.
        error: its standard error; nan where there is none.
        real: of real training events in place of samples; nan where there are none.
        better: "lower", "higher", or empty where neither is.
        note: what must be said beside it.
    """

    name: str
    value: float
    error: float = math.nan
    real: float = math.nan
    better: str = ""
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Args:
        run: the run.
        samples: what was drawn, with the rows that reproduce it.
        real: the real events, in the same form.
        rows: the table.
        features: what the distances look at.
        labels: requested against delivered classes; None without a classifier or a class condition.
        copies: the memorisation test; None without training events.
        likelihood: of real events; None where the prior has none.
        findings: of the specification, on samples.
        findings_real: the same on real events: where these fail, the specification is wrong.
        notes: what was left out, and why.
        seconds: wall time.
        seed: of the samples.
        done: the finished share.
    """

    run: Run
    samples: Outputs
    real: Outputs
    rows: tuple[Row, ...] = ()
    features: Features | None = None
    labels: LabelAccuracy | None = None
    copies: Memorisation | None = None
    train: Tensor | None = None
    likelihood: Likelihood | None = None
    findings: tuple[Finding, ...] = ()
    findings_real: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    seed: int = 0
    done: float = 0.0


def evaluate(run: Run, real: Real, **options: Any) -> Evaluation:
    """The last state of `evaluate_iter`."""
    (last,) = deque(evaluate_iter(run, real, **options), maxlen=1)
    return last


def evaluate_iter(
    run: Run,
    real: Real,
    *,
    n: int = 1000,
    train: Real | None = None,
    features: str | Features | Callable[[Tensor], Tensor] | None = None,
    classifier: Classifier | str | Path | None = None,
    segmenter: Callable[[Tensor], Tensor] | None = None,
    suite: Suite | None = None,
    score_classifier: int = 0,
    likelihoods: int = 16,
    batch: int = 64,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Evaluation]:
    """Draw, then measure.

    Args:
        run: a trained run.
        real: events that it never saw; see `tasks.real.read_real`.
        n: samples to draw.
        train: its training events, for the second column and the test of copies.
        features: see `evaluation.open_features`; the classifier's own, else 64 principal components, by default.
        classifier: a network that knows the classes, or its file.
        segmenter: events -> class of each pixel, for specifications.
        suite: what samples must satisfy.
        score_classifier: steps to train a classifier on samples for, to test it on real events; 0 for none.
        likelihoods: real events that are scored; 0 for none.
        batch: drawn at once.
        seed: of the samples.
        options: of `run.prior` (`steps`, `cfg_scale`, ...).

    Yields:
        The state, whose `done` grows; the last one is whole.

    Raises:
        InputError: for fewer than 2 samples or real events, or features that do not fit.
    """
    if n < 2 or len(real) < 2:
        raise InputError(f"an evaluation needs at least 2 samples and 2 real events, got {n} and {len(real)}")
    start = time.perf_counter()
    network = Classifier.load(classifier) if isinstance(classifier, str | Path) else classifier
    chosen = _features(features, network, real, min(n, len(real)))
    place = torch.arange(n) % len(real)
    told = {name: value[place] for name, value in real.condition.items()}
    rows, parts = Rows(n, seed=seed, stream="evaluate", device=run.model.device), []
    whole = _outputs(run, real.x, real.condition, None, real.group, Judges())
    state = Evaluation(run, whole.take(torch.arange(0)), whole, features=chosen, seed=seed)
    for part in synthesise(run, rows, condition=run.told(told) or None, batch=batch, **(options or {})):
        parts.append(part.cpu())
        yield replace(state, done=0.8 * sum(map(len, parts)) / n, seconds=time.perf_counter() - start)
    x = torch.cat(parts)
    judges = Judges(
        classify=None if network is None else lambda events: torch.cat([network(e) for e in events.split(500)]),
        segment=segmenter,
        train=None if train is None else train.x,
        frequencies=_frequencies(real, network),
        generate=lambda index, asked: _again(run, rows, index, asked, batch, options or {}),
    )
    state = replace(
        state,
        samples=_outputs(run, x, told, rows.index.cpu(), None, judges),
        real=_outputs(run, real.x, real.condition, None, real.group, judges),
        train=None if train is None else train.x,
    )
    work: tuple[Callable[[Evaluation], Evaluation], ...] = (
        _distances,
        lambda s: _delivery(s, network),
        _copies,
        lambda s: _classifier_score(s, train, seed, score_classifier),
        lambda s: _likelihood(s, likelihoods, seed, options or {}),
        lambda s: _specification(s, suite),
    )
    for k, measure in enumerate(work):
        with torch.no_grad() if k != 3 else torch.enable_grad():
            state = measure(state)
        state = replace(state, done=0.8 + 0.2 * (k + 1) / len(work), seconds=time.perf_counter() - start)
        yield state


def _features(
    asked: str | Features | Callable[[Tensor], Tensor] | None, network: Classifier | None, real: Real, n: int
) -> Features:
    if isinstance(asked, Features):
        return asked
    if asked is not None:
        return open_features(asked, real.x)
    if network is not None:
        from oneprior.evaluation import own_features

        return own_features(network)
    numbers = real.x[0].numel()
    return open_features(f"pca:{max(1, min(64, numbers // 2, n // 4))}", real.x)


def _outputs(
    run: Run, x: Tensor, told: Mapping[str, Tensor], index: Tensor | None, group: Tensor | None, judges: Judges
) -> Outputs:
    return Outputs(x, dict(told), index, run.units, group, judges)


def _again(
    run: Run, rows: Rows, index: Tensor, asked: Mapping[str, Tensor], batch: int, options: Mapping[str, Any]
) -> Tensor:
    """The samples of some rows, told something else."""
    part = Rows(index, seed=rows.seed, stream=rows.name, device=rows.device)
    made = synthesise(run, part, condition=run.told(dict(asked)) or None, batch=batch, **options)
    return torch.cat([x.cpu() for x in made])


def _frequencies(real: Real, network: Classifier | None) -> Tensor | None:
    labels = real.condition.get("label")
    if network is None or labels is None or labels.is_floating_point():
        return None
    return torch.bincount(labels.long(), minlength=network.classes).double()


def _distances(state: Evaluation) -> Evaluation:
    features, rows, notes = state.features, Rows(1, seed=state.seed, stream="distances"), list(state.notes)
    assert features is not None
    a, b = features.embed(state.samples.x), features.embed(state.real.x)
    c = None if state.train is None else features.embed(state.train[: max(len(a), 2)])
    d, fewest, found = features.dimension, min(len(a), len(b)), []
    if fewest > d:
        value = float(frechet_distance(a, b))
        found.append(
            Row(
                features.distance_name,
                value,
                real=_or_nan(c, lambda z: float(frechet_distance(z, b))),
                better="lower",
                note=f"{len(a)} samples, {len(b)} real; it lies above the true distance by about 1 / n",
            )
        )
        try:
            line = frechet_infinity(a, b, rows)
            other = _or_nan(c, lambda z: frechet_infinity(z, b, rows).value)
            found.append(Row("extrapolated to n = infinity", line.value, line.standard_error, other, "lower"))
        except InputError as error:
            notes.append(f"No extrapolation: {error}")
    else:
        notes.append(
            f"No Frechet distance: {fewest} events do not span {d} features ({d + 1} at the least, {10 * d} to be "
            "worth reading); draw more (--n), take features of fewer entries (pca:K), or read the kernel distance."
        )
    size = min(1000, fewest // 2)
    if size >= 2:
        kernel = kernel_distance(a, b, rows, size=size)
        other = _or_nan(c, lambda z: kernel_distance(z, b, rows, size=min(size, len(z))).value)
        found.append(
            Row(
                features.kernel_name,
                kernel.value,
                kernel.standard_error,
                other,
                "lower",
                "unbiased: 0 for equal laws, and then as often below",
            )
        )
    if fewest > 5:
        limit = min(5000, len(a), len(b))
        sets = support(b[:limit], a[:limit])
        real = None if c is None or len(c) < 6 else support(b[:limit], c[:limit])
        for name in ("precision", "recall", "density", "coverage"):
            label = "support coverage" if name == "coverage" else name
            other = math.nan if real is None else getattr(real, name)
            found.append(
                Row(
                    label,
                    getattr(sets, name),
                    real=other,
                    better="higher",
                    note=f"k = {sets.k}, {sets.samples} of each" if name == "precision" else "",
                )
            )
    return replace(state, rows=(*state.rows, *found), notes=tuple(notes))


def _or_nan(c: Tensor | None, measure: Callable[[Tensor], float]) -> float:
    """The measure of the training events, where there are enough."""
    if c is None:
        return math.nan
    try:
        return measure(c)
    except InputError:
        return math.nan


def _delivery(state: Evaluation, network: Classifier | None) -> Evaluation:
    if network is None:
        return state
    found, labels = [], None
    asked = state.samples.condition.get("label")
    delivered = state.samples.probabilities.argmax(1)
    modes = label_modes(delivered, network.classes, frequencies=state.samples.judges.frequencies)
    found.append(Row("classes reached", modes.recovered, real=modes.total, better="higher", note=f"by {network.name}"))
    if asked is not None and not asked.is_floating_point():
        labels = label_accuracy(asked.long(), delivered, network.classes)
        truth = label_accuracy(
            state.real.condition["label"].long(), state.real.probabilities.argmax(1), network.classes
        )
        found.append(
            Row(
                "label accuracy",
                labels.value,
                labels.standard_error,
                truth.value,
                "higher",
                f"asked for, against what {network.name} sees; second column: real test events",
            )
        )
    return replace(state, rows=(*state.rows, *found), labels=labels)


def _copies(state: Evaluation) -> Evaluation:
    if state.train is None:
        note = "No test of copies: the run's training data are not there (--train DATA)."
        return replace(state, notes=(*state.notes, note))
    train = state.train
    found = memorisation(state.samples.x, train, state.real.x)
    rows = (
        Row(
            "nearer to training than test events are",
            found.closer,
            (found.closer - 0.5) / found.z if found.z else math.nan,
            0.5,
            note="share of pairs; above one half it copies",
        ),
        Row(
            "nearer than 99 % of test events",
            found.copies,
            real=0.01,
            note=f"p = {found.copies_p:.2g} for an honest generator",
        ),
        Row(
            "ratio of the two nearest training distances",
            found.ratio,
            real=found.ratio_test,
            note="median; near 0 for copies",
        ),
    )
    return replace(state, rows=(*state.rows, *rows), copies=found)


def _classifier_score(state: Evaluation, train: Real | None, seed: int, steps: int) -> Evaluation:
    if not steps:
        return state
    asked, truth = state.samples.condition.get("label"), state.real.condition.get("label")
    if asked is None or truth is None:
        return replace(
            state, notes=(*state.notes, "No classifier accuracy score: it needs labels and a prior that is told them.")
        )
    labels = None if train is None else train.condition.get("label")
    score = classifier_accuracy_score(
        state.samples.x,
        asked.long(),
        state.real.x,
        truth.long(),
        Rows(64, seed=seed),
        real=None if labels is None or train is None else train.x,
        real_labels=None if labels is None else labels.long(),
        steps=steps,
    )
    row = Row(
        "classifier accuracy score",
        score.generated,
        score.generated_error,
        score.real,
        "higher",
        f"trained on {score.n} samples (second column: on as many real events), tested on {score.test} real ones",
    )
    return replace(state, rows=(*state.rows, row))


def _likelihood(state: Evaluation, most: int, seed: int, options: Mapping[str, Any]) -> Evaluation:
    if not most:
        return state
    index = torch.arange(min(most, len(state.real)))
    told = {name: value[index] for name, value in state.real.condition.items()}
    device, model = state.run.model.device, state.run.model
    try:
        prior: Prior = state.run.prior(told or None)
        found = likelihood_of(
            prior,
            state.real.x[index].to(device),
            Rows(index, seed=seed, stream="likelihood", device=device),
            encode=_encoder(model, state.run.told(told)),
            levels=_levels(state.run),
        )
    except InputError as error:
        return replace(state, notes=(*state.notes, f"No likelihood: {error}"))
    unit = "bits of code per dimension" if found.kind == "codes" else "bits per dimension"
    row = Row(
        unit,
        found.bits.mean,
        found.bits.standard_error,
        better="lower",
        note=f"{len(index)} real events; {found.kind}: {found.note}",
    )
    return replace(state, rows=(*state.rows, row), likelihood=found)


@runtime_checkable
class _Codes(Protocol):
    def codes(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class _Encoder(Protocol):
    def encode(self, x: Tensor, condition: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]: ...


def _encoder(model: object, told: Mapping[str, Tensor] | None) -> Callable[[Tensor], Any] | None:
    """The encoder of a model that has one, told the conditions."""
    if isinstance(model, _Codes):
        return model.codes
    if isinstance(model, _Encoder):
        return lambda x: model.encode(x, told or None)
    return None


def _levels(run: Run) -> Any:
    """The units of data in whole numbers; None for continuous ones."""
    return run.units if (run.geometry.dtype or "").startswith(("uint", "int")) else None


def _specification(state: Evaluation, suite: Suite | None) -> Evaluation:
    if suite is None:
        return state
    findings = suite.check(state.samples)
    single = tuple(s for s in suite.specifications if s.scope != "pair")  # real events have no seed to ask again
    real = Suite(suite.name, single).check(state.real) if single else ()
    return replace(state, findings=findings, findings_real=real)
