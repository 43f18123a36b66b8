"""What the rows of a batch are told, as the families read it: checked, bound to a prior, withheld in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from oneprior.core import ConditionSpec, InputError, Rows
from oneprior.data.batch import Batch
from oneprior.nets.adversarial import Given, check_given


def told_in_training(batch: Batch, conditions: tuple[ConditionSpec, ...], rows: Rows, dropout: float) -> Given:
    """A batch's conditions, each withheld from a share `dropout` of the rows: p(x) is learned beside p(x | c)."""
    values, present = dict(batch.condition), dict(batch.present)
    stream = rows.stream("withheld")
    for spec in conditions:
        kept = stream.uniform().to(batch.x.device) >= dropout
        present[spec.name] = kept & present[spec.name] if spec.name in present else kept
    return Given(values, present)


def bind(condition: Mapping[str, Tensor] | None, conditions: tuple[ConditionSpec, ...], device: torch.device) -> Given:
    """The conditions of a prior: one row each, or one for all.

    Raises:
        InputError: for a name, shape or class that the model was not trained with.
    """
    given = Given(dict(condition or {}))
    check_given(given, conditions)
    return given.to(device)


def refuse_images(family: str, conditions: tuple[ConditionSpec, ...]) -> None:
    """Raise `InputError` where a family that reads conditions as one vector is given an image."""
    images = [c.name for c in conditions if c.kind == "image"]
    if images:
        raise InputError(
            f"{family} takes classes, vectors and tokens as conditions, and {', '.join(images)} is an image: "
            "train diffusion, ldm or gan instead"
        )
