"""What a model under test is asked for: a class, an amount, or a mask; and how far its answer is from right.

Each question says what the prior is told so that every case has as many events (`tell`), how an answer is read
(`read`), its error (`error`), and into which case an event falls (`group`). A run with several conditions is told the
other ones of a real event that is alike in this one, so that what is asked for occurs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from oneprior.core import ConditionSpec, InputError, ShapeError
from oneprior.evaluation import dice
from oneprior.tasks.real import Real
from oneprior.training.run import Run

_KEPT = 0.95  # share of real events within the default tolerance
_LEVELS = 16  # a mask of more values is a picture


@dataclass(frozen=True)
class Question(ABC):
    """A condition that is asked back.

    Args:
        spec: the condition.
        names: of the cases, in order.
    """

    spec: ConditionSpec
    names: tuple[str, ...]

    @abstractmethod
    def requested(self, condition: Mapping[str, Tensor]) -> Tensor:
        """What is right, in the form of an answer, from what a run is told."""

    @abstractmethod
    def tell(self, real: Real, n: int) -> dict[str, Tensor]:
        """What the run is told, n events a case."""

    @abstractmethod
    def read(self, answer: Any, n: int, what: str) -> tuple[Tensor, Tensor]:
        """What a model said of n events, and the probability that it gave this; nan where it gives none, (n,)."""

    @abstractmethod
    def error(self, requested: Tensor, delivered: Tensor) -> Tensor:
        """How far from right, (n,) float64; 0 is right."""

    @abstractmethod
    def group(self, requested: Tensor) -> Tensor:
        """The number of the case, (n,) int64."""

    def tolerance(self, error: Tensor) -> float:
        """The default tolerance, from the errors on real events: what 95 % of them keep."""
        return float(error.quantile(_KEPT))


@dataclass(frozen=True)
class Classes(Question):
    """A class: 0 or 1 for the error. An answer is a label, or logits or probabilities."""

    def requested(self, condition: Mapping[str, Tensor]) -> Tensor:
        return condition[self.spec.name].long()

    def tell(self, real: Real, n: int) -> dict[str, Tensor]:
        labels, alike = self.requested(real.condition), []
        for k in range(self.spec.classes):
            same = (labels == k).nonzero()[:, 0]
            alike.append(_cycled(same if len(same) else torch.arange(len(real)), n))
        return _others(real, torch.cat(alike)) | {self.spec.name: torch.arange(self.spec.classes).repeat_interleave(n)}

    def read(self, answer: Any, n: int, what: str) -> tuple[Tensor, Tensor]:
        classes = self.spec.classes
        y = _array(answer, what)
        if y.dtype.kind in "US":
            known = {name: k for k, name in enumerate(self.spec.names)}
            if strange := {str(v) for v in y.ravel()} - set(known):
                raise InputError(f"{what} holds the class {min(strange)!r}; the run knows {', '.join(known)}")
            y = np.array([known[str(v)] for v in y.ravel()]).reshape(y.shape)
        t = torch.from_numpy(np.ascontiguousarray(y))
        if t.shape == (n, classes) and t.is_floating_point() and classes > 1:
            t = _finite(t, what).double()
            sums_to_one = bool((t >= 0).all()) and bool(((t.sum(1) - 1).abs() < 1e-3).all())
            p = t if sums_to_one else t.softmax(1)
            sure, label = p.max(1)
            return label, sure
        if t.shape not in ((n,), (n, 1)) or (t.is_floating_point() and bool((t != t.round()).any())):
            needed = f"({n}, {classes}) logits or probabilities, or ({n},) labels 0 .. {classes - 1}"
            raise ShapeError(what, tuple(t.shape), needed, "The classes are those of the run, in its order.")
        label = t.reshape(n).long()
        if n and not (int(label.min()) >= 0 and int(label.max()) < classes):
            raise InputError(
                f"{what} holds the label {int(label.max())}; the run's classes are 0 .. {classes - 1}"
                + (f" ({', '.join(self.spec.names[:10])})" if self.spec.names else "")
            )
        return label, torch.full((n,), math.nan, dtype=torch.float64)

    def error(self, requested: Tensor, delivered: Tensor) -> Tensor:
        return (requested != delivered).double()

    def group(self, requested: Tensor) -> Tensor:
        return requested

    def tolerance(self, error: Tensor) -> float:
        return 0.5


@dataclass(frozen=True)
class Amounts(Question):
    """An entry of a vector: |delivered - requested| for the error. An answer is a number.

    Args:
        entry: which.
        edges: of the cases, rising.
    """

    entry: int
    edges: tuple[float, ...]

    def requested(self, condition: Mapping[str, Tensor]) -> Tensor:
        return condition[self.spec.name][:, self.entry].double()

    def tell(self, real: Real, n: int) -> dict[str, Tensor]:
        edges = torch.tensor(self.edges, dtype=torch.float64)
        inside = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        wanted = (edges[:-1, None] + inside * (edges[1:] - edges[:-1])[:, None]).flatten()
        there = self.requested(real.condition)
        alike = (wanted[:, None] - there).abs().argmin(1)
        vector = real.condition[self.spec.name][alike].float().clone()
        vector[:, self.entry] = wanted.float()
        return _others(real, alike) | {self.spec.name: vector}

    def read(self, answer: Any, n: int, what: str) -> tuple[Tensor, Tensor]:
        y = _array(answer, what)
        if y.dtype.kind not in "biuf" or y.shape not in ((n,), (n, 1)):
            raise ShapeError(what, tuple(y.shape), (n,), f"The model is asked for {self.spec.name}, a number an event.")
        return _finite(torch.from_numpy(y.reshape(n).astype(np.float64)), what), _unsure(n)

    def error(self, requested: Tensor, delivered: Tensor) -> Tensor:
        return (requested - delivered).abs()

    def group(self, requested: Tensor) -> Tensor:
        return torch.bucketize(requested, torch.tensor(self.edges[1:-1], dtype=torch.float64), right=True)


@dataclass(frozen=True)
class Masks(Question):
    """A mask: 1 - Dice for the error, the mean over the classes that it or the answer has. An answer is a label map.

    Args:
        space: of the events.
        levels: values of a mask of one channel, class by class, background first; empty for one channel a class.
        edges: inner edges of the cases, shares of the picture that are not background.
    """

    space: tuple[int, ...]
    levels: tuple[float, ...]
    edges: tuple[float, ...]

    @property
    def classes(self) -> int:
        """Number of classes, the background among them."""
        return len(self.levels) or self.spec.shape[0]

    def requested(self, condition: Mapping[str, Tensor]) -> Tensor:
        return _labels(condition[self.spec.name], self.levels, self.space)

    def tell(self, real: Real, n: int) -> dict[str, Tensor]:
        place = self.group(self.requested(real.condition))
        parts = [(place == k).nonzero()[:, 0] for k in range(len(self.names))]
        alike = torch.cat([_cycled(part, n) for part in parts if len(part)])
        return _others(real, alike)

    def read(self, answer: Any, n: int, what: str) -> tuple[Tensor, Tensor]:
        t = torch.from_numpy(np.ascontiguousarray(_array(answer, what)))
        if t.shape == (n, self.classes, *self.space) and self.classes > 1:
            t = _finite(t, what).argmax(1)
        elif t.shape == (n, 1, *self.space):
            t = t[:, 0]
        if t.shape != (n, *self.space) or (t.is_floating_point() and bool((t != t.round()).any())):
            remedy = f"A label map, background 0, or logits of {self.classes} classes."
            raise ShapeError(what, tuple(t.shape), (n, *self.space), remedy)
        if n and not (int(t.min()) >= 0 and int(t.max()) < self.classes):
            raise InputError(f"{what} holds the class {int(t.max())}; the masks have 0 .. {self.classes - 1}")
        return t.to(torch.uint8), _unsure(n)

    def error(self, requested: Tensor, delivered: Tensor) -> Tensor:
        found = dice(requested, delivered, self.classes)
        return (1 - found.nanmean(1)).nan_to_num(0.0)  # nothing asked for and nothing found is right

    def group(self, requested: Tensor) -> Tensor:
        return torch.bucketize(_share(requested), torch.tensor(self.edges, dtype=torch.float64), right=True)


def question_of(run: Run, real: Real, by: str | None, bins: int) -> Question:
    """The question that a condition of a run makes.

    Args:
        run: the prior.
        real: events that have the condition.
        by: its name, "pose:2" for an entry of a vector; the first class, amount or mask by default.
        bins: of an amount or of the size of masks.

    Raises:
        InputError: for a run without conditions, no such condition, real events without it, or one that cannot be
            asked for.
    """
    specs = {spec.name: spec for spec in run.conditions if spec.kind != "tokens"}
    if not specs:
        raise InputError(
            f"{run.name} is a prior without a condition that can be asked back; a stress test needs a conditional one: "
            "train it on data with labels (class folders, or labels in the .npz)"
        )
    name, _, entry = (by or next(iter(specs))).partition(":")
    if name not in specs:
        raise InputError(f"the run can be told {', '.join(specs)}, and not {name!r}")
    spec = specs[name]
    if name not in real.condition:
        where = "class folders, or labels in the .npz" if spec.kind == "class" else f"an array {name!r} in the .npz"
        raise InputError(
            f"the real events have no {name!r}, and failures on them stand beside: give test data with it ({where})"
        )
    given = real.condition[name]
    if spec.kind == "class":
        return Classes(spec, tuple(spec.names or map(str, range(spec.classes))))
    if spec.kind == "vector":
        return _amounts(spec, given, entry, bins)
    levels = _levels(spec, given)
    space = tuple(run.event_shape[1:])
    share = _share(_labels(given, levels, space))
    inner = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    edges = tuple(share.quantile(inner).unique().tolist())
    edges = tuple(e for e in edges if e > float(share.min()))
    ends = ["0", *(f"{100 * e:.1f}" for e in edges), "100"]
    names = tuple(f"{a} – {b} %" for a, b in zip(ends[:-1], ends[1:], strict=True))
    return Masks(spec, names, space, levels, edges)


def _amounts(spec: ConditionSpec, given: Tensor, entry: str, bins: int) -> Amounts:
    size = spec.shape[0]
    if (entry and not entry.isdecimal()) or int(entry or 0) >= size:
        raise InputError(f"{spec.name} has the entries 0 .. {size - 1}, and not {entry!r}")
    amounts = given[:, int(entry or 0)].double()
    low, high = float(amounts.min()), float(amounts.max())
    if not low < high:
        raise InputError(f"all real events have the same {spec.name}, {low:g}: there is nothing to sweep")
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64).tolist()
    names = tuple(f"{a:.3g} – {b:.3g}" for a, b in zip(edges[:-1], edges[1:], strict=True))
    return Amounts(spec, names, int(entry or 0), tuple(edges))


def _levels(spec: ConditionSpec, masks: Tensor) -> tuple[float, ...]:
    if spec.shape[0] > 1:
        return ()
    levels = masks.unique()
    if not 2 <= len(levels) <= _LEVELS:
        raise InputError(
            f"the image {spec.name} has {len(levels)} different values, and a mask 2 to {_LEVELS}: only masks can be "
            "asked back"
        )
    return tuple(levels.tolist())


def _labels(masks: Tensor, levels: tuple[float, ...], space: tuple[int, ...]) -> Tensor:
    """Masks as a run is told them, (n, channels, *any), as the class of each pixel, uint8 (n, *space)."""
    if tuple(masks.shape[2:]) != space:
        masks = F.interpolate(masks.float(), size=space, mode="nearest")
    if not levels:
        return masks.argmax(1).to(torch.uint8)
    edges = torch.tensor(levels)
    return torch.bucketize(masks[:, 0].float().contiguous(), (edges[1:] + edges[:-1]) / 2).to(torch.uint8)


def _share(labels: Tensor) -> Tensor:
    return (labels > 0).flatten(1).double().mean(1)


def _cycled(rows: Tensor, n: int) -> Tensor:
    return rows[torch.arange(n) % len(rows)]


def _others(real: Real, alike: Tensor) -> dict[str, Tensor]:
    return {name: value[alike] for name, value in real.condition.items()}


def _array(answer: Any, what: str) -> np.ndarray:
    if isinstance(answer, Tensor):
        answer = answer.detach().cpu()
        answer = answer.float() if answer.dtype in (torch.bfloat16, torch.float16) else answer
    try:
        found = np.asarray(answer)
    except Exception as error:
        raise InputError(f"{what} is {type(answer).__name__} and no array ({error})") from error
    if found.dtype.kind not in "biufUS":
        raise InputError(f"{what} is {type(answer).__name__} and no array of numbers")
    return found


def _finite(t: Tensor, what: str) -> Tensor:
    bad = int((~torch.isfinite(t.double()).reshape(len(t), -1).all(1)).sum()) if len(t) else 0
    if bad:
        raise InputError(f"{what} holds nan or infinity for {bad} of {len(t)} events")
    return t


def _unsure(n: int) -> Tensor:
    return torch.full((n,), math.nan, dtype=torch.float64)
