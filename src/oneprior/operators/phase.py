"""Phase retrieval: a detector in the far field of an object counts intensities, and the phases are lost.

    y = |F P x|,    P pads with zeros, F is the orthonormal discrete Fourier transform.

Coherent diffraction imaging, single shots of ptychography and crystallography measure this (Fienup 1982). F P is an
isometry: noise of deviation sigma on y compares with x as it stands. Translations, the point reflection and, for real
x, the sign leave y unchanged; padding to twice the side (oversampling 2) makes the solution in two and more dimensions
unique up to these (Hayes 1982), which a prior then settles as far as it can: posteriors here have several modes.

Zeros are padded, so 0 in the user's units is "nothing there"; centring x on another value is another instrument.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.words import Grammar, no_values, number, spelled


class PhaseRetrieval(Operator):
    """y = |F P x|, channel by channel.

    Its gradient where an amplitude is exactly 0 is taken as 0 (a point of measure zero).

    Args:
        in_shape: (channels, *space), 1 to 3 spatial axes.
        oversampling: padded side over side, >= 1; sides are rounded up.

    Raises:
        InputError: for an oversampling below 1, or more axes.

    Source: Fienup 1982, equation 1; Hayes 1982.
    """

    def __init__(self, in_shape: torch.Size | tuple[int, ...], oversampling: float = 2.0) -> None:
        super().__init__()
        self.in_shape = torch.Size(in_shape)
        if not 2 <= len(self.in_shape) <= 4:
            raise InputError(f"phase retrieval is of 1 to 3 spatial axes, and the event has shape {tuple(in_shape)}")
        if not 1 <= oversampling <= 16:
            raise InputError(f"phase retrieval takes an oversampling between 1 and 16, got {oversampling:g}")
        self.oversampling = oversampling
        sides = [math.ceil(oversampling * side - 1e-9) for side in self.in_shape[1:]]
        self.out_shape = torch.Size([self.in_shape[0], *sides])
        self.spec = f"phase:{spelled(oversampling)}"

    def apply(self, x: Tensor) -> Tensor:
        axes = tuple(range(2, x.dim()))
        return torch.fft.fftn(x, s=list(self.out_shape[1:]), dim=axes, norm="ortho").abs()


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("phase", values, 1)
    text = options.get("oversampling", values[0] if values else "2")
    return PhaseRetrieval(in_shape, number("oversampling", text))


WORDS = Grammar(
    "phase",
    ("phase:OVERSAMPLING",),
    "Amplitudes of the Fourier transform of the zero-padded picture; the phases are lost.",
    ("phase:2", "phase:1.5"),
    _parse,
    ("oversampling",),
)
