"""Does a generator copy what it was trained on?

Let d(x) be the distance of an event to the nearest training event. A generator that learned the law draws samples which
lie from the training set as far as held-out events of that law do. Two questions are asked of d:

- on the whole: P(d(sample) < d(test)) is 1/2, tested by the Mann-Whitney statistic (the test of data copying of
  Meehan, Chaudhuri and Dasgupta 2020). Samples of poor quality lie far from everything and hide copies in this figure,
  and samples of too little variety lie near everything without being copies: it is shown, and accuses nobody;
- in the tail: the ratio d_1 / d_2 of the distances to the two nearest training events is near 0 for a copy of one of
  them, and near 1 for an event between many, whether these lie near or far. The share of samples whose ratio is below
  that of all but 1 % of the test events is 1 % for an honest generator, and accuses above.

The tail of d itself stands beside. All depend on the space of the distances: pixels see copies to the last bit,
features see copies that were shifted or recoloured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError
from oneprior.evaluation.neighbours import nearest

_TAIL = 0.01


@dataclass(frozen=True)
class Memorisation:
    """What was found.

    Args:
        closer: share of pairs in which the sample lies nearer to the training set than the test event; 1/2 is right.
        z: of `closer`, (closer - 1/2) / its standard error; above 3 samples lie too near: copies, or little variety.
        near: share of samples that lie nearer than 99 % of the test events do.
        copies: share of samples whose d_1 / d_2 is below that of 99 % of the test events.
        expected: of both shares from an honest generator; about .01.
        copies_p: chance of so many copies or more from an honest generator; exact for independent events.
        ratio: median of d_1 / d_2 of the samples.
        ratio_test: the same of the test events, what it should be.
        suspects: rows of the samples, the nearest copies first, (n,) int64.
        source: the training row nearest to each sample, (n,) int64.
        distance: of each sample to it, (n,) float64.
        distance_test: of each test event to the training set; near 0 where it is one of them, and nothing is tested.
    """

    closer: float
    z: float
    near: float
    copies: float
    expected: float
    copies_p: float
    ratio: float
    ratio_test: float
    suspects: Tensor
    source: Tensor
    distance: Tensor
    distance_test: Tensor

    @property
    def found(self) -> bool:
        """Whether copying is shown, at 1 in 1,000."""
        return self.copies_p < 1e-3


def memorisation(samples: Tensor, train: Tensor, test: Tensor) -> Memorisation:
    """Compare the distances to the training set of samples and of held-out events.

    Args:
        samples: events or features of samples, (n, ...).
        train: of the training set, (m, ...).
        test: of events that the generator never saw, (k, ...), of the training set's law.

    Raises:
        ShapeError: for sets of different shape.
        InputError: for fewer than two training events, or none of the others.
    """
    for name, x in (("samples", samples), ("test events", test)):
        if x.shape[1:] != train.shape[1:]:
            raise ShapeError(name, tuple(x.shape[1:]), tuple(train.shape[1:]), "Compare events of one shape.")
    if len(train) < 2 or not len(samples) or not len(test):
        raise InputError(
            f"a test of copying needs samples, test events and two training events: {len(samples)}, {len(test)}, "
            f"{len(train)}"
        )
    far, source = nearest(samples, train, 2)
    far_test, _ = nearest(test, train, 2)
    d, d_test = far[:, 0].contiguous(), far_test[:, 0].contiguous()
    closer, error = _mann_whitney(d, d_test)
    near, _, _ = _tail(d, d_test)
    copies, p, expected = _tail(_ratios(far), _ratios(far_test))
    return Memorisation(
        closer=closer,
        z=(closer - 0.5) / error if error > 0 else math.inf * (closer - 0.5) if closer != 0.5 else 0.0,
        near=near,
        copies=copies,
        expected=expected,
        copies_p=p,
        ratio=float(_ratios(far).median()),
        ratio_test=float(_ratios(far_test).median()),
        suspects=_ratios(far).argsort(),
        source=source[:, 0],
        distance=d,
        distance_test=d_test,
    )


def _mann_whitney(d: Tensor, d_test: Tensor) -> tuple[float, float]:
    """P(d < d_test) + P(d = d_test) / 2 and its standard error without assuming equal laws (DeLong et al. 1988)."""
    order = d_test.sort().values
    below = torch.searchsorted(order, d, right=False), torch.searchsorted(order, d, right=True)
    wins = 1 - (below[0] + below[1]).double() / 2 / len(order)  # of each sample, the share of test events beyond it
    mine = d.sort().values
    beyond = torch.searchsorted(mine, d_test, right=False), torch.searchsorted(mine, d_test, right=True)
    losses = (beyond[0] + beyond[1]).double() / 2 / len(mine)
    variance = sum(float(x.var()) / len(x) if len(x) > 1 else 0.0 for x in (wins, losses))
    return float(wins.mean()), math.sqrt(variance)


def _tail(values: Tensor, test: Tensor) -> tuple[float, float, float]:
    """Share of values up to the m-th smallest of the test ones (m = 1 %), its exact p-value, and what is expected.

    The limit is a test event itself, so that the number of values below it is negative hypergeometric, where all events
    are exchangeable: of those below the m-th of k test events among n + k.
    """
    from scipy.stats import nhypergeom

    n, k = len(values), len(test)
    m = max(math.ceil(_TAIL * k), 1)
    inside = int((values <= test.sort().values[m - 1]).sum())
    return inside / n, float(nhypergeom.sf(inside - 1, n + k, n, m)), m / (k + 1)


def _ratios(far: Tensor) -> Tensor:
    return far[:, 0] / far[:, 1].clamp_min(1e-300)
