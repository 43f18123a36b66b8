"""What a specification looks at: outputs with what was asked of them, and the judges that some checks call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from oneprior.core import AffineMap, InputError, ShapeError
from oneprior.likelihoods.gaussian import GaussianLikelihood


@dataclass(frozen=True)
class Judges:
    """Callables and data that checks may need; a check that misses one says which.

    Args:
        classify: events (n, *event_shape) -> class logits (n, classes).
        segment: events -> class of each pixel or voxel, int64 (n, *space).
        train: training events, for novelty, (m, *event_shape).
        frequencies: of the classes in the data, (classes,); equal by default.
        generate: (row numbers (n,), condition) -> events: the same seed again, told something else.
        evidence: the measurement of each output, for restorations, one row an output.
    """

    classify: Callable[[Tensor], Tensor] | None = None
    segment: Callable[[Tensor], Tensor] | None = None
    train: Tensor | None = None
    frequencies: Tensor | None = None
    generate: Callable[[Tensor, Mapping[str, Tensor]], Tensor] | None = None
    evidence: GaussianLikelihood | None = None

    @cached_property
    def subspace(self) -> tuple[Tensor, Tensor]:
        """Mean (d,) and up to 256 principal components (d, r) of up to 2,048 training events, float64, largest first.

        Raises:
            InputError: where there are none.
        """
        if self.train is None:
            raise InputError("a check compares with training events: give --train DATA, or Judges(train=...)")
        x = self.train[:: max(1, -(-len(self.train) // 2048))].flatten(1).double()
        centred = x - x.mean(0)
        values, vectors = torch.linalg.eigh(centred @ centred.T)  # the small Gram matrix: events, not entries
        kept = (values > 1e-12 * values[-1]).nonzero()[:, 0].flip(0)[:256]
        return x.mean(0), centred.T @ (vectors[:, kept] / values[kept].sqrt())


@dataclass(frozen=True)
class Outputs:
    """Outputs of a generator, or real events in their place.

    Args:
        x: events in [-1, 1], (n, *event_shape).
        condition: what was asked of each, first axis n.
        index: row number of each under the seed, (n,) int64: with the seed it reproduces the output.
        units: how x reads in the user's units; thresholds of values are told in these.
        group: equal for outputs that are one trial (slices of one subject), (n,) int64; None: each alone.
        judges: see `Judges`.
        tokens: of sequences, what the channels stand for.
    """

    x: Tensor
    condition: Mapping[str, Tensor] = field(default_factory=dict)
    index: Tensor | None = None
    units: AffineMap = field(default_factory=AffineMap)
    group: Tensor | None = None
    judges: Judges = field(default_factory=Judges)
    tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.condition.items():
            if len(value) != len(self.x):
                raise ShapeError(f"condition {name}", tuple(value.shape), (len(self.x),), "One value for each output.")
        if not bool(torch.isfinite(self.x).all()):
            bad = (~torch.isfinite(self.x).flatten(1).all(1)).nonzero()[:, 0]
            raise InputError(f"{len(bad)} of {len(self.x)} outputs hold nan or infinity, such as number {int(bad[0])}")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def rows(self) -> Tensor:
        """Row numbers, (n,)."""
        return torch.arange(len(self.x)) if self.index is None else self.index

    @property
    def values(self) -> Tensor:
        """x in the user's units."""
        return self.units.to_units(self.x)

    @cached_property
    def measured(self) -> dict[object, Tensor]:
        """What bounds have measured already, so that nothing is asked twice."""
        return {}

    @cached_property
    def probabilities(self) -> Tensor:
        """What a classifier makes of each, (n, classes) float64; asked once for all checks.

        Raises:
            InputError: where no classifier was given.
        """
        return self.judge("classify")(self.x).double().softmax(1)

    def take(self, index: Tensor) -> Outputs:
        """Some of the outputs; rows may repeat."""
        evidence = self.judges.evidence
        return replace(
            self,
            x=self.x[index],
            condition={name: value[index] for name, value in self.condition.items()},
            index=self.rows[index],
            group=None if self.group is None else self.group[index],
            judges=self.judges if evidence is None else replace(self.judges, evidence=evidence.take(index)),
        )

    def told(self, name: str) -> Tensor:
        """The condition of this name.

        Raises:
            InputError: where the outputs were asked for nothing of this name.
        """
        if name not in self.condition:
            known = ", ".join(self.condition) or "nothing"
            raise InputError(f"a check speaks of the condition {name!r}, and the outputs were asked for {known}")
        return self.condition[name]

    def judge(self, name: str) -> Callable[..., Tensor]:
        """The judge of this name (`classify`, `segment`, `generate`).

        Raises:
            InputError: where it was not given.
        """
        found = getattr(self.judges, name)
        if found is None:
            raise InputError(f"a check needs a judge to {name} with; {_REMEDY[name]}")
        return found


_REMEDY = {
    "classify": "give --classifier FILE (made by `oneprior features train` on labelled data), or Judges(classify=...)",
    "segment": "give --segmenter module:function, or Judges(segment=...)",
    "generate": "checks of pairs need a generator that can be asked again: give the run, or Judges(generate=...)",
}
