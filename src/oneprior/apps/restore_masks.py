"""Masks of files, and what they cover: whether their sizes agree, and what stands where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.grammar import parse_operator
from oneprior.operators.mask import Mask
from oneprior.operators.mask_words import read_mask


def mask_size(words: Sequence[str], own: Sequence[int]) -> tuple[int, ...]:
    """The size of events that the file of a mask tells, where a mask comes first; () where it tells none.

    Args:
        words: of the operator.
        own: event shape of the prior, of which the channels and the number of axes are asked.
    """
    parts = [part for word in words for part in (word.split() if " + " in word else [word])]
    for before, word in zip(["+", *parts], parts, strict=False):
        name = word.removeprefix("mask:")
        if before == "+" and name != word and Path(name).suffix and Path(name).is_file():
            shape = tuple(read_mask(name).shape)
            with_channels = len(shape) == len(own) and shape[0] == own[0]
            return shape[1:] if with_channels else shape if len(shape) == len(own) - 1 else ()
    return ()


def check_mask(path: Path, y: Tensor, size: tuple[int, ...], told: str) -> None:
    """Raises `InputError` where a mask's file is of another size than the picture, (n, channels, *space), it covers."""
    if size and y.dim() == len(size) + 2 and tuple(y.shape[2:]) != size:
        mask, event = (" x ".join(map(str, shape)) for shape in (size, y.shape[2:]))
        raise InputError(
            f"the mask's file is {mask} and {told} {path} is {event}: a mask has the size of what it covers; bring one "
            "to the size of the other"
        )


def filled(path: Path, y: Tensor, instrument: Operator | Sequence[str], event_shape: torch.Size) -> Tensor:
    """Numbers with 0 in place of the NaN that a mask says were not measured; as they are where there is no NaN.

    Args:
        path: of their file.
        y: (n, *event_shape), or the kept entries alone.
        instrument: or its words.
        event_shape: of what is measured.

    Raises:
        InputError: where the mask says that a NaN was measured.
    """
    gaps = y.isnan()
    if not bool(gaps.any()):
        return y
    operator = instrument if isinstance(instrument, Operator) else parse_operator(instrument, event_shape)
    assert isinstance(operator, Mask)
    wrong = int((gaps & operator.keep.to(y.device)).sum()) if y.shape[1:] == operator.in_shape else int(gaps.sum())
    if wrong:
        raise InputError(
            f"{path}: {wrong} of {y.numel()} values are NaN where {operator.title} says that they were measured: mark "
            "them as missing in the mask, or mend them"
        )
    return y.masked_fill(gaps, 0.0)
