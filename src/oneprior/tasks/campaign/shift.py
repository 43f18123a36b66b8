"""Whether a campaign comes nearer to the group that it is after: distances of its candidates to real events of it.

Where events of the wanted group are at hand that the prior has never seen (the happier faces), the law of the
candidates is compared with theirs, by the kernel distance and by the Frechet distance of features, and beside it the
law of the data. The Frechet distance of few events is too large; all rows are of equally many, so that they compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.evaluation.embed import Features
from oneprior.evaluation.frechet import frechet_distance
from oneprior.evaluation.kernel_distance import kernel_distance

_FEWEST, _BLOCKS = 8, 4


@dataclass(frozen=True)
class Shift:
    """How far some events lie from the group.

    Args:
        name: of the events.
        n: how many.
        kernel: the kernel distance, unbiased.
        error: its standard error, from `_BLOCKS` disjoint parts.
        frechet: the Frechet distance, of n against n.
    """

    name: str
    n: int
    kernel: float
    error: float
    frechet: float


def shifts(group: Tensor, sets: Sequence[tuple[str, Tensor]], features: Features, seed: int = 0) -> list[Shift]:
    """Distances of sets of events to a group; sets of fewer than 8 events are left out.

    Args:
        group: events of it, (m, *event_shape) in [-1, 1].
        sets: names and events, (n, *event_shape) each.
        features: that they are compared by.
        seed: of what is drawn where a set has more events than another.

    Raises:
        InputError: for a group of fewer than 8 events.
    """
    if len(group) < _FEWEST:
        raise InputError(f"a group of {len(group)} events is too small to compare with: give at least {_FEWEST}")
    some = [(name, x) for name, x in sets if len(x) >= _FEWEST]
    n = min([len(group), *(len(x) for _, x in some)])
    rows = Rows(1, seed=seed)
    wanted = features.embed(_drawn(group, n, seed)).double()
    found = []
    for name, x in some:
        own = features.embed(_drawn(x, n, seed)).double()
        kernel = kernel_distance(own, wanted, rows.stream(name), size=max(2, n // _BLOCKS))
        found.append(Shift(name, n, kernel.value, kernel.standard_error, float(frechet_distance(own, wanted))))
    return found


def _drawn(x: Tensor, n: int, seed: int) -> Tensor:
    """n of some events, without order."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order[:n].to(x.device)]
