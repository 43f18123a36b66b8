"""MRI with coil sensitivities that are only partly known: they are inferred with the picture.

    y_c = F (S_c m_c x) + noise,    m_c = exp(s sum_k w_k (a_ck + i b_ck) phi_k),    theta = (a, b)

S_c are the nominal maps (simulated, or estimated from the centre of k-space, where noise and a small calibration region
leave errors), phi_k a constant and low order cosines (`operators.fields`): each coil's gain and phase drift smoothly by
about s. A factor common to all coils cannot be told from the picture but by its prior. JSENSE (Ying and Sheng 2007)
alternates between polynomial maps and the picture; here both are drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators import mri_words
from oneprior.operators.base import Operator
from oneprior.operators.fields import cosine_basis
from oneprior.operators.mri import MRI
from oneprior.operators.uncertain import Form, UncertainOperator
from oneprior.operators.words import Grammar, number, whole


class UncertainCoils(UncertainOperator):
    """Multi-coil MRI whose maps are the nominal ones times smooth complex fields.

    Args:
        nominal: the scanner with its nominal maps.
        spread: s, the expected drift of log gain and of phase (in radians), each.
        order: highest total degree of the cosines.

    Raises:
        InputError: for a scanner without maps, or a spread that is not positive.
    """

    form: Form = "linear"
    basis: Tensor

    def __init__(self, nominal: MRI, spread: float = 0.2, order: int = 2) -> None:
        super().__init__()
        if nominal.maps is None:
            raise InputError("unknown coils need nominal maps: give coils=NUMBER or maps=FILE")
        if not 0 < spread < 10:
            raise InputError(f"the spread of coil maps is a number > 0, such as 0.2 for 20 %; got {spread:g}")
        self.nominal, self.spread, self.order = nominal, spread, order
        self.in_shape, self.out_shape = nominal.in_shape, nominal.out_shape
        self.register_buffer("basis", spread * cosine_basis(self.in_shape[1:], order, constant=True))
        self.theta_shape = torch.Size([len(nominal.maps) * len(self.basis) * 2])
        if nominal.spec:
            self.spec = f"unknown-{nominal.spec}:spread={spread!r}:degree={order}"

    def maps(self, theta: Tensor) -> Tensor:
        """Sensitivities, complex, (n, coils, *space)."""
        assert self.nominal.maps is not None
        fields = torch.tensordot(theta.reshape(len(theta), len(self.nominal.maps), 2, -1), self.basis.to(theta), 1)
        gain, phase = fields.unbind(2)
        drift = torch.polar(gain.exp(), phase)
        return self.nominal.maps.to(drift) * drift

    def evaluate(self, x: Tensor, theta: Tensor) -> Tensor:
        z = torch.complex(x[:, 0], x[:, 1] if x.shape[1] == 2 else torch.zeros_like(x[:, 0]))
        if self.nominal.turn is not None:
            z = z * self.nominal.turn.to(z)
        seen = z[:, None] * self.maps(theta).to(z)
        return self.nominal.sampling.samples(seen.flatten(0, 1)).reshape(-1, *self.out_shape)

    def physical(self, theta: Tensor) -> dict[str, Tensor]:
        return {"coil sensitivities": self.maps(theta).abs()}


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    own = {"spread": "0.2", "degree": "2", **options}
    spread, degree = number("spread", own.pop("spread")), whole("degree", own.pop("degree"))
    scanner = mri_words.WORDS.build(values, own, in_shape)
    assert isinstance(scanner, MRI)
    return UncertainCoils(scanner, spread, degree)


WORDS = Grammar(
    "unknown-mri",
    ("unknown-mri:...:coils=N:spread=SHARE:degree=N", "unknown-mri:...:maps=FILE:spread=SHARE"),
    "MRI as in `mri`, whose coil maps drift smoothly by SHARE and are inferred with the picture.",
    ("unknown-mri:random:2:coils=3",),
    _parse,
    (*mri_words.WORDS.keys, "spread", "degree"),
)
