"""The parts of an evaluation, one after another: each looks at samples and real events and adds rows to the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    frechet_error,
    frechet_infinity,
    kernel_distance,
    label_accuracy,
    label_modes,
    likelihood_of,
    memorisation,
    parzen_log_likelihood,
    support,
)
from oneprior.evaluation.specifications import Finding, Outputs, Suite
from oneprior.models.base import Model
from oneprior.tasks.real import Real, first_of_groups
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


def distances(state: Evaluation) -> Evaluation:
    """Frechet distance, its extrapolation, kernel distance, precision, recall, density and coverage."""
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
                frechet_error(a, b, rows.stream("error")),
                real=_or_nan(c, lambda z: float(frechet_distance(z, b))),
                better="lower",
                note=f"{len(a)} samples, {len(b)} real; it lies above the true distance by about c / n",
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
            "worth reading); give more events (samples by --n, real ones by --data), take features of fewer "
            "entries (pca:K), or read the kernel distance."
        )
    size = min(1000, max(2, fewest // 10))  # ten blocks at least, or the error is a guess
    if fewest >= 4:
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
    if fewest < 50:
        notes.append(f"No precision and recall: of {fewest} events every fifth neighbour is far; 50 are needed.")
    else:
        limit = min(5000, len(a), len(b))
        sets = support(b[:limit], a[:limit])
        real = None if c is None or len(c) < 6 else support(b[:limit], c[:limit])
        for name in ("precision", "recall", "density", "coverage"):
            label = "support coverage" if name == "coverage" else name
            other = math.nan if real is None else getattr(real, name)
            share = getattr(sets, name)
            found.append(
                Row(
                    label,
                    share,
                    math.nan if name == "density" else math.sqrt(share * (1 - share) / sets.samples),
                    real=other,
                    better="" if name == "density" else "higher",
                    note=f"k = {sets.k}, {sets.samples} of each; errors of shares, given the balls"
                    if name == "precision"
                    else "",
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


def delivery(state: Evaluation, network: Classifier | None) -> Evaluation:
    """What a classifier sees: classes reached, and whether they are those that were asked for."""
    if network is None:
        return state
    found, labels = [], None
    asked = state.samples.condition.get("label")
    delivered = state.samples.probabilities.argmax(1)
    there = len(state.real.probabilities.argmax(1).unique())
    modes = label_modes(delivered, network.classes, frequencies=state.samples.judges.frequencies)
    found.append(Row("classes reached", modes.recovered, real=there, better="higher", note=f"by {network.name}"))
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


def copies(state: Evaluation) -> Evaluation:
    """Whether samples lie nearer to the training events than test events do."""
    if state.train is None:
        note = "No test of copies: the run's training data are not there (--train DATA)."
        return replace(state, notes=(*state.notes, note))
    train, real = state.train, state.real
    if real.group is not None:  # events of one subject are not independent trials
        real = real.take(first_of_groups(real.group))
    found = memorisation(state.samples.x, train, real.x)
    far = float(real.x.double().flatten(1).std(0).square().sum().sqrt())
    same = float((found.distance_test < 1e-3 * far).double().mean())
    if same > 0.01:
        note = (
            f"No test of copies: {same:.0%} of the real events are among the training events, to a thousandth. "
            "Give events "
            "that the run never saw; no other figure here says anything of new events either."
        )
        return replace(state, notes=(*state.notes, note))
    error = (found.closer - 0.5) / found.z if found.z else math.nan
    above = "share of pairs; above one half: copies, or too little variety"
    rows = (
        Row("nearer to training than test events are", found.closer, error, 0.5, note=above),
        Row("nearer than 99 % of test events", found.near, real=found.expected),
        Row(
            "near one training event only",
            found.copies,
            real=found.expected,
            note=f"ratio of the two nearest training distances; p = {found.copies_p:.2g} for an honest generator",
        ),
        Row(
            "ratio of the two nearest training distances",
            found.ratio,
            real=found.ratio_test,
            note="median; near 0 for copies",
        ),
    )
    return replace(state, rows=(*state.rows, *rows), copies=found)


def classifier_score(state: Evaluation, train: Real | None, seed: int, steps: int) -> Evaluation:
    """What a classifier learns from the samples."""
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


def parzen(state: Evaluation) -> Evaluation:
    """The Parzen window of 2014, kept for history."""
    half = len(state.real) // 2
    if half < 2 or len(state.samples) < 2:
        return state
    held_out, test = state.real.x[:half], state.real.x[half : half + 1000]
    found = parzen_log_likelihood(state.samples.x, held_out, test)
    train = state.train
    other = math.nan if train is None else parzen_log_likelihood(train[: len(state.samples)], held_out, test).mean
    note = f"nats on [0, 1], {len(state.samples)} windows; it rewards smoothness, and nothing is ranked by it"
    row = Row("Parzen log-likelihood", found.mean, found.standard_error, other, note=note)
    return replace(state, rows=(*state.rows, row))


def likelihoods(state: Evaluation, most: int, seed: int) -> Evaluation:
    """The likelihood of real events, where the prior has one."""
    if not most:
        return state
    try:
        found = [_likelihood(state, index, seed) for index in torch.arange(min(most, len(state.real))).split(8)]
    except InputError as error:
        return replace(state, notes=(*state.notes, f"No likelihood: {error}"))
    total = found[0]
    for part in found[1:]:
        total = total + part
    unit = "bits of code per dimension" if total.kind == "codes" else f"bits per dimension ({total.kind})"
    note = f"{len(total.log_prob)} real events; {total.kind}: {total.note}"
    row = Row(unit, total.bits.mean, total.bits.standard_error, better="lower", note=note)
    return replace(state, rows=(*state.rows, row), likelihood=total)


def _likelihood(state: Evaluation, index: Tensor, seed: int) -> Likelihood:
    told = {name: value[index] for name, value in state.real.condition.items()}
    run, device = state.run, state.run.model.device
    return likelihood_of(
        run.prior(told or None),
        state.real.x[index].to(device),
        Rows(index, seed=seed, stream="likelihood", device=device),
        encode=_encoder(run.model, run.told(told)),
        levels=_levels(run),
        steps=32,
        probes=2,
    )


@runtime_checkable
class _Encoder(Protocol):
    def encode(self, x: Tensor, condition: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]: ...


def _encoder(model: Model, told: Mapping[str, Tensor] | None) -> Callable[[Tensor], Any] | None:
    """The encoder of a model that has one, told the conditions."""
    if model.coded:
        return model.codes
    if isinstance(model, _Encoder):
        return lambda x: model.encode(x, told or None)
    return None


def _levels(run: Run) -> Any:
    """The units of data in whole numbers; None for continuous ones."""
    return run.units if (run.geometry.dtype or "").startswith(("uint", "int")) else None


def specification(state: Evaluation, suite: Suite | None) -> Evaluation:
    """What was asked of every sample, and whether real events keep it."""
    if suite is None:
        return state
    findings = suite.check(state.samples)
    single = tuple(s for s in suite.specifications if s.scope != "pair")  # real events have no seed to ask again
    real = Suite(suite.name, single).check(state.real) if single else ()
    return replace(state, findings=findings, findings_real=real)
