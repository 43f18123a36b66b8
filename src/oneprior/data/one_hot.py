"""Sequences of tokens as events: one group of channels a voice, -1 everywhere but at the token, which is 1."""

from __future__ import annotations

import torch
from torch import Tensor


def likeliest(x: Tensor, groups: int) -> Tensor:
    """The likeliest token of each group at each place.

    Args:
        x: (n, groups * tokens, *space).
        groups: tokens at one place, such as voices.

    Returns:
        (n, groups, *space) int64.
    """
    return x.unflatten(1, (groups, -1)).argmax(2)


def one_hot(codes: Tensor, tokens: int) -> Tensor:
    """Tokens as events.

    Args:
        codes: (n, groups, *space) int64.
        tokens: of each group.

    Returns:
        (n, groups * tokens, *space), -1 and 1, float32.
    """
    return torch.nn.functional.one_hot(codes, tokens).movedim(-1, 2).flatten(1, 2).float() * 2 - 1
