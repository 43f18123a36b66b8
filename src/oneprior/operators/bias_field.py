"""Bias field: an image whose brightness drifts smoothly over the picture, as under a surface coil of an MRI scanner.

    y(r) = exp(s sum_k w_k theta_k phi_k(r)) x(r)

The field is positive and its logarithm has no mean (a gain for the whole picture could not be told from x), low order
cosines phi_k (`operators.fields`) and expected root mean square s: s = 0.3 is a drift of about 30 %. N4 and its
predecessors correct for such fields by a smooth log-field too (Sled, Zijdenbos, Evans 1998; Tustison et al. 2010);
here it is inferred with the image, under the image's prior. It multiplies: 0 in the user's units is "no signal".
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.fields import cosine_basis
from oneprior.operators.uncertain import Form, UncertainOperator, bound_by_words
from oneprior.operators.words import Grammar, no_values, number, whole


class UncertainBiasField(UncertainOperator):
    """y = exp(s f_theta) x, one field for all channels; `at(theta)` is a known field.

    Args:
        in_shape: (channels, *space).
        spread: s, the expected root mean square of the log field.
        order: highest total degree of the cosines.

    Raises:
        InputError: for a spread that is not positive, or a space too small to vary over.

    Source: the model of Sled, Zijdenbos, Evans 1998, equation 1, in another basis.
    """

    form: Form = "linear"
    disjoint: bool = True
    basis: Tensor

    def __init__(self, in_shape: torch.Size | tuple[int, ...], spread: float = 0.3, order: int = 3) -> None:
        super().__init__()
        if not 0 < spread < 10:
            raise InputError(f"the spread of a bias field is a number > 0, such as 0.3 for 30 %; got {spread:g}")
        self.in_shape = self.out_shape = torch.Size(in_shape)
        self.spread, self.order = spread, order
        self.register_buffer("basis", spread * cosine_basis(self.in_shape[1:], order))
        self.theta_shape = torch.Size([len(self.basis)])
        self.words = f"bias:{spread!r}:order={order}"
        self.spec = f"unknown-{self.words}"

    def field(self, theta: Tensor) -> Tensor:
        """The multiplicative field, (n, *space); (n, *theta_shape)."""
        return torch.tensordot(theta, self.basis.to(theta), 1).exp()

    def evaluate(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.field(theta)[:, None] * x

    def physical(self, theta: Tensor) -> dict[str, Tensor]:
        return {"bias field": self.field(theta)}


def _build(values: list[str], options: dict[str, str], in_shape: torch.Size) -> UncertainBiasField:
    no_values("bias", values, 1)
    spread = number("spread", options.get("spread", values[0] if values else "0.3"))
    return UncertainBiasField(in_shape, spread, whole("order", options.get("order", "3")))


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    operator = _build(values, options, in_shape)
    return bound_by_words(operator, options, operator.words)


WORDS = Grammar(
    "bias",
    ("bias:SPREAD:seed=S:order=N", "bias:SPREAD:theta=NUMBER,NUMBER,..."),
    "A known smooth multiplicative field whose logarithm has root mean square SPREAD.",
    ("bias:0.3:seed=1", "bias:0.2:order=1:theta=0.5,-1"),
    _parse,
    ("spread", "order", "seed", "theta"),
)

UNKNOWN = Grammar(
    "unknown-bias",
    ("unknown-bias:SPREAD:order=N",),
    "A smooth multiplicative field that is inferred with the picture.",
    ("unknown-bias:0.3",),
    _build,
    ("spread", "order"),
)
