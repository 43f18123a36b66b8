"""What a generator and a critic are, and how both are told conditions.

A generator maps a latent z and what is given to an event; a critic maps an event and what is given to one logit. Each
player owns its own embedding of the conditions, and each embedding has one learned "absent" value, so that one pair
of networks holds p(x | c) for every subset of the conditions, p(x) among them.

Labels, vectors and token sequences become one vector (their embeddings are added; tokens are averaged). The generator
reads it beside z. The critic takes its inner product with the features (the projection of Miyato and Koyama 2018,
equation 3): logit(x, c) = psi(phi(x)) + <embed(c), V phi(x)>, the form of log p(c | x) / p'(c | x) for a log-linear
class model. Images become channels, resized to wherever they are needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Given:
    """What the rows of a batch are told; a name that is missing is absent in every row.

    Args:
        values: one tensor per condition name, first axis n.
        present: which rows have it, (n,) bool; a name that is missing is present in every row.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    present: Mapping[str, Tensor] = field(default_factory=dict)

    def cycle(self, n: int) -> Given:
        """For n rows: row i is told what row i % k of these k rows is told (draw-major repeats)."""

        def go(t: Tensor) -> Tensor:
            return t if t.shape[0] == n else t[torch.arange(n, device=t.device) % t.shape[0]]

        return Given({k: go(v) for k, v in self.values.items()}, {k: go(v) for k, v in self.present.items()})

    def take(self, index: Tensor | slice) -> Given:
        """What some of the rows are told, in that order; the tensors must have all rows."""
        return Given({k: v[index] for k, v in self.values.items()}, {k: v[index] for k, v in self.present.items()})

    def to(self, device: torch.device | str) -> Given:
        return Given(
            {k: v.to(device) for k, v in self.values.items()}, {k: v.to(device) for k, v in self.present.items()}
        )


class Generator(nn.Module, ABC):
    """G(z, given, noise) -> x.

    Attributes:
        latent: length of z.
        noise_size: how many further standard normal numbers a picture takes; 0 for most.
    """

    latent: int
    noise_size: int = 0

    @abstractmethod
    def forward(self, z: Tensor, given: Given, noise: Tensor | None = None) -> Tensor:
        """(n, latent), and (n, noise_size) or None for the network's constant noise -> (n, *event_shape)."""


class Critic(nn.Module, ABC):
    """D(x, given) -> one logit per row, large for real events.

    Attributes:
        couples_rows: whether a row's logit depends on its batch (statistics over a minibatch).
    """

    couples_rows: bool = False

    @abstractmethod
    def forward(self, x: Tensor, given: Given, rows: Rows | None = None) -> Tensor:
        """(n, *event_shape) -> (n,); `rows` feed the dropout, None switches it off."""


class ConditionVector(nn.Module):
    """Labels, vectors and tokens as one vector: the sum of their embeddings.

    Args:
        conditions: those of kind "image" are passed over.
        width: length of the vector.
    """

    def __init__(self, conditions: tuple[ConditionSpec, ...], width: int) -> None:
        super().__init__()
        self.specs = tuple(c for c in conditions if c.kind != "image")
        self.width = width if self.specs else 0
        self.embed = nn.ModuleDict()
        self.absent = nn.ParameterDict()
        for spec in self.specs:
            self.embed[spec.name] = (
                nn.Embedding(spec.classes, width) if spec.kind == "class" else nn.Linear(spec.shape[-1], width)
            )
            self.absent[spec.name] = nn.Parameter(torch.randn(width))

    def forward(self, given: Given, n: int) -> Tensor | None:
        """What n rows are told -> (n, width), or None where there is nothing to tell."""
        total = None
        for spec in self.specs:
            absent = self.absent[spec.name].expand(n, -1)
            value = given.values.get(spec.name)
            if value is not None:
                embedded = self.embed[spec.name](value)
                embedded = embedded.mean(1) if spec.kind == "tokens" else embedded
                absent = _where_present(embedded, absent, given.present.get(spec.name))
            total = absent if total is None else total + absent
        return total


class ConditionImage(nn.Module):
    """Images as channels, resized to the place where they are read; absent ones are a learned constant.

    Args:
        conditions: those of another kind are passed over.
        dims: number of spatial axes of the event; an image condition must have as many.
    """

    def __init__(self, conditions: tuple[ConditionSpec, ...], dims: int) -> None:
        super().__init__()
        self.specs = tuple(c for c in conditions if c.kind == "image")
        self.channels = sum(c.shape[0] for c in self.specs)
        self.absent = nn.ParameterDict({c.name: nn.Parameter(torch.zeros(c.shape[0])) for c in self.specs})
        for spec in self.specs:
            if len(spec.shape) != dims + 1:
                raise ShapeError(
                    f"image condition {spec.name!r}", spec.shape, f"(channels, {dims} spatial axes)", "Match the event."
                )

    def forward(self, given: Given, n: int, size: torch.Size) -> Tensor | None:
        """What n rows are told -> (n, channels, *size), or None where no condition is an image."""
        planes = []
        for spec in self.specs:
            absent = self.absent[spec.name].reshape(1, -1, *[1] * len(size)).expand(n, -1, *size)
            value = given.values.get(spec.name)
            if value is None:
                planes.append(absent)
            else:
                planes.append(_where_present(resize(value, size), absent, given.present.get(spec.name)))
        return torch.cat(planes, 1) if planes else None


def check_given(given: Given, conditions: tuple[ConditionSpec, ...]) -> None:
    """Raise `InputError` for a name, shape or label that the conditions do not have."""
    known = {c.name: c for c in conditions}
    for name, value in given.values.items():
        if name not in known:
            raise InputError(
                f"this model was not trained with a condition {name!r}; it has: {', '.join(known) or 'none'}"
            )
        spec = known[name]
        if spec.kind == "class":
            low, high = (int(value.min()), int(value.max())) if value.numel() else (0, 0)
            if value.dim() != 1:
                raise ShapeError(f"condition {name!r}", value.shape, "(n,)", "Give one class number per row.")
            if low < 0 or high >= spec.classes:
                raise InputError(f"condition {name!r}: classes are 0 .. {spec.classes - 1}, got {low} .. {high}")
        elif value.dim() != len(spec.shape) + 1 or not all(
            given == needed for given, needed in zip(value.shape[1:], _fixed(spec), strict=True) if needed
        ):
            raise ShapeError(f"condition {name!r}", value.shape, ("n", *spec.shape))


def _fixed(spec: ConditionSpec) -> tuple[int, ...]:
    """The shape, with 0 where any size will do: images of any resolution, sequences of any length."""
    if spec.kind == "image":
        return (spec.shape[0], *[0] * (len(spec.shape) - 1))
    return (0, spec.shape[1]) if spec.kind == "tokens" else spec.shape


def resize(x: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """(n, channels, *space) -> (n, channels, *size): averaged where it shrinks, else linear in 1, 2 or 3 dimensions.

    Both maps have second derivatives (of zero), which gradient penalties need.
    """
    space = tuple(x.shape[2:])
    size = tuple(size)
    if space == size:
        return x
    if all(a >= b for a, b in zip(space, size, strict=True)):
        return F.interpolate(x, size=size, mode="area")
    return F.interpolate(x, size=size, mode=_MODES[len(size)], align_corners=False)


def _where_present(value: Tensor, absent: Tensor, present: Tensor | None) -> Tensor:
    """value where present, (n,) bool, else absent; multiplied out, so that both keep their gradient's place."""
    if present is None:
        return value + 0.0 * absent  # the absent value stays in the graph: data-parallel reducers wait for it
    return torch.where(present.reshape(-1, *[1] * (value.dim() - 1)), value, absent)
