"""Measure a trained prior against real events: distances, support, copies, likelihood, delivery, specifications.

    run = load("runs/digits")
    real = read_real(run, open_real(run, "test/"), 5000, Rows(1))
    result = evaluate(run, real, n=2000)
    for row in result.rows: print(row.name, row.value, row.error, row.real)

Samples are asked for what the real events have (labels, amounts), so that both sets have the same make-up. Every row of
the table has, where it can, a second column: the same measure of real training events in place of samples, which is the
best that a figure can be expected to be. It never names a family.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.evaluation import Classifier, Features, open_features, own_features
from oneprior.evaluation.specifications import Judges, Outputs, Suite
from oneprior.tasks import examination
from oneprior.tasks.draw import synthesise
from oneprior.tasks.examination import Evaluation, Row
from oneprior.tasks.real import Real, as_stored
from oneprior.training.run import Run

__all__ = ["Evaluation", "Row", "evaluate", "evaluate_iter"]


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
    _known_classes(run, network)
    chosen = _features(features, network, real, train, min(n, len(real)))
    place = torch.arange(n) % len(real)
    told = {name: value[place] for name, value in real.condition.items()}
    rows, parts = Rows(n, seed=seed, device=run.model.device), []
    judges = Judges(
        classify=None if network is None else lambda events: torch.cat([network(e) for e in events.split(500)]),
        segment=segmenter,
        train=None if train is None else train.x,
        frequencies=_frequencies(real, network),
        generate=lambda index, asked: _again(run, rows, index, asked, batch, options or {}),
    )
    whole = Outputs(real.x, real.condition, None, run.units, real.group, judges, run.geometry.tokens)
    _rehearse(suite, whole)
    state = Evaluation(run, whole.take(torch.arange(0)), whole, features=chosen, seed=seed)
    for part in synthesise(run, rows, condition=run.told(told) or None, batch=batch, **(options or {})):
        parts.append(as_stored(run, part.cpu()))
        yield replace(state, done=0.8 * sum(map(len, parts)) / n, seconds=time.perf_counter() - start)
    x = torch.cat(parts)
    state = replace(
        state,
        samples=Outputs(x, told, rows.index.cpu(), run.units, judges=judges, tokens=run.geometry.tokens),
        train=None if train is None else train.x,
    )
    work: tuple[Callable[[Evaluation], Evaluation], ...] = (
        examination.distances,
        lambda s: examination.delivery(s, network),
        examination.copies,
        lambda s: examination.classifier_score(s, train, seed, score_classifier),
        examination.parzen,
        lambda s: examination.likelihoods(s, likelihoods, seed),
        lambda s: examination.specification(s, suite),
    )
    for k, measure in enumerate(work):
        with torch.no_grad():
            state = measure(state)
        state = replace(state, done=0.8 + 0.2 * (k + 1) / len(work), seconds=time.perf_counter() - start)
        yield state


def _features(
    asked: str | Features | Callable[[Tensor], Tensor] | None,
    network: Classifier | None,
    real: Real,
    train: Real | None,
    n: int,
) -> Features:
    if isinstance(asked, Features):
        return asked
    fitted = real.x if train is None else train.x  # of principal components: not on what they then measure
    if asked is not None:
        return open_features(asked, fitted)
    if network is not None:
        return own_features(network)
    numbers = real.x[0].numel()
    return open_features(f"pca:{max(1, min(64, numbers // 2, n // 4))}", fitted)


def _again(
    run: Run, rows: Rows, index: Tensor, asked: Mapping[str, Tensor], batch: int, options: Mapping[str, Any]
) -> Tensor:
    """The samples of some rows, told something else."""
    part = Rows(index, seed=rows.seed, stream=rows.name, device=rows.device)
    made = synthesise(run, part, condition=run.told(dict(asked)) or None, batch=batch, **options)
    return torch.cat([as_stored(run, x.cpu()) for x in made])


def _known_classes(run: Run, network: Classifier | None) -> None:
    """Raises where a classifier tells other classes than the run is told."""
    classes = next((s.classes for s in run.conditions if s.name == "label" and s.kind == "class"), None)
    if network is not None and classes is not None and network.classes != classes:
        raise InputError(
            f"the classifier {network.name} tells {network.classes} classes, and the run is told {classes}: train "
            "it on data with the run's labels"
        )
    names = next((s.names for s in run.conditions if s.name == "label"), ())
    if network is not None and names and network.names and tuple(names) != tuple(network.names):
        raise InputError(
            f"the classifier {network.name} tells {', '.join(network.names[:8])}, and the run "
            f"{', '.join(names[:8])}: train "
            "it on data with the run's labels"
        )


def _rehearse(suite: Suite | None, real: Outputs) -> None:
    """Look at two real events, so that a bound without a number or a missing judge is told before the work."""
    for specification in suite.specifications if suite else ():
        if auto := [bound.words for bound in specification.rule.bounds() if bound.auto]:
            raise InputError(
                f"{specification.name}: {auto[0]} is still auto; set it on real data by `oneprior specify`"
            )
        if specification.scope != "pair":
            with torch.no_grad():
                specification.rule.margin(real.take(torch.arange(2)))


def _frequencies(real: Real, network: Classifier | None) -> Tensor | None:
    labels = real.condition.get("label")
    if network is None or labels is None or labels.is_floating_point():
        return None
    return torch.bincount(labels.long(), minlength=network.classes).double()
