"""Weighted retraining: the prior follows the score (Tripp, Daxberger, Hernandez-Lobato 2020).

Every event, of the data and of the campaign, has the weight

    w_i = 1 / (k N + rank_i),        rank 0 the best of N,

normalised to mean 1. With k = 0.001 the best thousandth weighs about as much as a tenth of all (eq. 2 and figure 2).
k = 0 is the limit in which only the best event counts, k = infinity the one in which all count alike. Weights act by
drawing: a round of training sees events drawn by weight, with replacement, so that any family serves.

A round is short, and must not forget what the prior has learned: its learning rate is a part of the recipe's, a tenth
by default, with a warm-up, and its batches are small enough for `_STEPS` steps. With the recipe's own rate a few steps
made the error of a vqvae's reconstruction three to eight times as large (decision 95).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from oneprior.core import InputError
from oneprior.data import Subset
from oneprior.data.batch import Dataset
from oneprior.training import Progress, Run, TrainConfig, train_iter

_WARMING = 0.1
"""Share of a round's events in which the learning rate rises."""
_STEPS, _FEWEST = 64, 8
"""Of a round, at least, and events of a batch, at least."""


def rank_weights(scores: np.ndarray, k: float) -> np.ndarray:
    """Weights of events by the rank of their scores, mean 1.

    Args:
        scores: the larger the better, (n,); equal ones rank in the order in which they come.
        k: 0 or more; infinity for equal weights.

    Raises:
        InputError: for a negative k, or scores that are not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not k >= 0:
        raise InputError(f"k of the rank weights must be 0 or more, got {k}")
    if not np.isfinite(scores).all():
        raise InputError(f"score {int((~np.isfinite(scores)).argmax())} is not finite: leave failed events out")
    n = len(scores)
    if math.isinf(k):
        return np.ones(n)
    rank = np.empty(n)
    rank[np.argsort(-scores, kind="stable")] = np.arange(n)
    weight = np.where(rank == 0, 1.0, 0.0) if k == 0 else 1 / (k * n + rank)
    return weight * (n / weight.sum())


def retrain(
    run: Run, data: Dataset, scores: np.ndarray, out: Path, *, k: float, share: float, rate: float, seed: int
) -> Iterator[Progress]:
    """Train a run further on events drawn by the ranks of their scores.

    A round that was broken off goes on where it stood: what is drawn depends on the seed alone. The new run has no law
    of what its decoder cannot say (`training.residual`), which takes longer to measure than the round itself.

    Args:
        run: whose weights are the start.
        data: all events.
        scores: of each, (n,); NaN for one that is not to be seen.
        out: the new run's folder.
        k: of the weights.
        share: of the number of events that is drawn: 0.1 for a tenth of a pass.
        rate: of the recipe's learning rate.
        seed: of what is drawn and of the training.
    """
    known = np.flatnonzero(np.isfinite(scores))
    weight = rank_weights(scores[known], k)
    draws = max(1, round(share * len(known)))
    drawn = known[np.random.default_rng(seed).choice(len(known), draws, p=weight / weight.sum())]
    own = run.record.train.get("batch_size", TrainConfig.batch_size)
    return train_iter(
        run.family,
        data=Subset(data, torch.from_numpy(drawn)),
        out=out,
        start_from=run.path,
        resume=(out / "checkpoint").exists(),
        images=draws,
        batch_size=max(1, min(own, draws, max(_FEWEST, draws // _STEPS))),
        learning_rate_scale=rate,
        warmup_images=round(_WARMING * draws),
        held_out=0.0,
        residual=0,
        preview_every=0,
        tracker="none",
        seed=seed,
    )
