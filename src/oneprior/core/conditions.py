"""What a model can be told: a class, a vector, an image, a sequence of tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from oneprior.core.errors import InputError


@dataclass(frozen=True)
class ConditionSpec:
    """One condition of a model.

    Args:
        name: the key in `Batch.condition`.
        kind: "class" (int64 labels (n,)), "vector" (float (n, k)), "image" (float (n, channels, *space), at any
            resolution) or "tokens" (float features (n, length, k)).
        shape: () for a class, (k,) for a vector, (channels, *space) for an image, (length, k) for tokens.
        via: how the network takes it: "add" (to the time or style embedding), "concat" (as channels, resized to
            the event) or "cross_attention".
        classes: number of classes, for kind "class".
        names: names of the classes, or empty.
    """

    name: str
    kind: Literal["class", "vector", "image", "tokens"]
    shape: tuple[int, ...] = ()
    via: Literal["add", "concat", "cross_attention"] = "add"
    classes: int = 0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "class" and self.classes < 1:
            raise InputError(f"condition {self.name!r} is a class and needs classes >= 1, got {self.classes}")
        if self.kind == "image" and self.via == "add":
            raise InputError(f"condition {self.name!r} is an image: give via='concat' or 'cross_attention'")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(**{**state, "shape": tuple(state["shape"]), "names": tuple(state["names"])})
