"""Colour to grey: one number of three, y = w_r R + w_g G + w_b B.

The weights of ITU-R BT.601 (0.299, 0.587, 0.114; section 2.5.1) are those of the "L" of picture programs; `mean` weighs
the three alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.words import Grammar, near, no_values

LUMA = (0.299, 0.587, 0.114)
_FORMS = {"luma": LUMA, "mean": (1 / 3, 1 / 3, 1 / 3)}


class Grey(LinearOperator):
    """(3, *space) -> (1, *space).

    Args:
        in_shape: (3, *space).
        weights: of red, green and blue.

    Raises:
        InputError: for events that have not three channels.
    """

    disjoint = True

    def __init__(self, in_shape: torch.Size | tuple[int, ...], weights: tuple[float, float, float] = LUMA) -> None:
        super().__init__()
        self.in_shape = torch.Size(in_shape)
        if len(self.in_shape) < 2 or self.in_shape[0] != 3:
            raise InputError(f"grey needs events of 3 channels (red, green, blue), and these are {tuple(in_shape)}")
        if not any(weights):
            raise InputError("grey with three weights of 0 measures nothing")
        self.out_shape = torch.Size([1, *self.in_shape[1:]])
        self.weights = weights
        names = {values: name for name, values in _FORMS.items()}
        self.spec = {"luma": "grey", "mean": "grey:mean"}.get(names.get(weights, ""), "")

    def apply(self, x: Tensor) -> Tensor:
        return (x * self._spread(x)).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self._spread(y)

    def _spread(self, like: Tensor) -> Tensor:
        return torch.tensor(self.weights, dtype=like.dtype, device=like.device).reshape(3, *[1] * (like.dim() - 2))


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("grey", values, 1)
    form = values[0] if values else "luma"
    if form not in _FORMS:
        raise InputError(f"grey has no form {form!r}{near(form, _FORMS)}")
    return Grey(in_shape, _FORMS[form])


WORDS = Grammar(
    "grey",
    ("grey", "grey:mean"),
    "Colour to grey, with the weights of television (ITU-R 601) or the mean of the three.",
    ("grey", "grey:mean"),
    _parse,
)
