"""Candidates that keep a written specification, and what becomes of those that do not.

A rule of single events (`evaluation.specifications`) is as cheap as the score is dear: it is asked of every candidate
before anybody scores it, and one that breaks it is remembered as refused and never asked for. How far grids of codes
are from breaking the rules is learned by an ensemble of its own, and the exact search bounded by it (`AtLeast`): so it
does not have to try ground on which nothing is allowed point by point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.core import AffineMap, InputError
from oneprior.evaluation.specifications import Outputs, suite_from
from oneprior.inference.search.constraints import AtLeast
from oneprior.inference.search.space import Space
from oneprior.inference.search.surrogate import Trees, fit_surrogate

_ROWS = 512
_BOLD = 5.0
"""Where no point keeps the rules, the bound in errors of the ensemble, once all was refused that may be."""
_KEEPING, _LOST = 0.1, 0.5
"""Share of the points that keep the rules, by an ensemble's word, that its bound may exclude: at first, and at last."""


class Admission:
    """The rules of a campaign.

    Args:
        content: of a file of specifications, as YAML has it; None for no rule.
        units: of the events.
        tokens: of sequences, what the channels stand for.

    Raises:
        InputError: for rules of other things than single events.
    """

    def __init__(self, content: Any = None, units: AffineMap = AffineMap(), tokens: tuple[str, ...] = ()) -> None:
        self._suite = None if content is None else suite_from(content)
        self._units, self._tokens = units, tokens
        for one in self._suite.specifications if self._suite else ():
            if one.scope != "sample":
                raise InputError(
                    f"{one.name} is a rule of a {one.scope}; candidates are held to rules of single events"
                )

    def __bool__(self) -> bool:
        return self._suite is not None

    def margins(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far each event is from breaking its worst rule, below 0 where it does, and which that is, (n,) each.

        Args:
            x: (n, *event_shape) in [-1, 1].
        """
        if self._suite is None:
            return torch.full((len(x),), torch.inf, dtype=torch.float64), torch.zeros(len(x), dtype=torch.int64)
        parts = [self._suite.margins(Outputs(part, units=self._units, tokens=self._tokens)) for part in x.split(_ROWS)]
        found = torch.cat(parts, 1).nan_to_num(nan=-torch.inf).min(0)
        return found.values, found.indices

    def broken(self, x: Tensor) -> list[str]:
        """The name of the rule that each event breaks worst, "" where it keeps all."""
        if self._suite is None:
            return [""] * len(x)
        margins, which = (part.tolist() for part in self.margins(x))
        rules = self._suite.specifications
        return [rules[k].name if margin < 0 else "" for margin, k in zip(margins, which, strict=True)]


def learned_bound(
    space: Space, points: np.ndarray, margins: np.ndarray, trees: Trees, seed: int, refused: float
) -> list[AtLeast]:
    """What an ensemble has learned of the rules, as a bound of the search; none where there is nothing to learn.

    The bound is 0, or what all but a tenth of the points that keep the rules are said to have: of rules that count,
    such as of rings, most of what keeps them has no margin at all. It rises with what was refused. Where nothing keeps
    them it is what the nearest to keeping them is said to have, if that is below 0: of an ensemble that says of no grid
    that it keeps them, there would be nothing to look at. An ensemble that does not see most of what broke the rules is
    of no use.

    Args:
        space: of the points.
        points: (n, columns).
        margins: of each (`Admission.margins`), (n,); not finite where it is far from keeping them.
        trees: settings of the ensemble.
        seed: of what it holds out.
        refused: in this round, as a share of what may be.
    """
    told = np.abs(margins[np.isfinite(margins) & (margins != 0)])
    wide = max(float(np.median(told)), 1e-9) if len(told) else 0.0
    kept, margins = margins >= 0, np.clip(margins, -wide, wide)
    if kept.all() or np.ptp(margins) == 0:  # kept or broken by all alike: each is looked at
        return []
    learned = fit_surrogate(space, points, margins, trees, seed=seed)
    said = learned.predict(points)
    if not kept.any():  # an ensemble seldom says what it has not seen: as near as any, at least
        return [AtLeast(learned.models[0], min(_BOLD * learned.error * refused, float(said.max())))]
    first, now = np.quantile(said[kept], [_KEEPING, _KEEPING + (_LOST - _KEEPING) * refused])
    low = min(0.0, float(first)) + float(now - first)
    return [AtLeast(learned.models[0], low)] if (said[~kept] < low).mean() >= 0.5 else []
