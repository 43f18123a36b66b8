"""A scanned page that has aged: faded ink, stains, ink that ran. Restoring old documents undoes this.

In the user's units, black and white the ends of the value range, paper = white less a tenth of the range,

    faded    v = paper + f(r) (x - paper),           f = sigmoid(logit(1 - fade) + s sum_k w_k theta_k phi_k(r))
    stained  y = black + T(r) (v - black),           T_c = prod_j (1 - a_j t_c exp(-|r - p_j|^2 / (2 w_j^2)))
    run      v' = v + bleed min(mean of 3 x 3 - v, 0), before the stains: paper beside ink darkens

Fading is a loss of contrast towards the paper's colour, by a share f that varies smoothly; a stain multiplies what the
page reflects, brown in colour (blue is absorbed most); both are affine in x, running ink is not. theta holds the
fading's coefficients (constant first) and for each stain its position p = Phi(p0 + 0.7 theta) in shares of the page,
its radius w = w0 exp(0.3 theta) and its strength a = sigmoid(logit(a0) + theta). Nominal places p0 are spread over the
page, so that stains do not change names under the posterior's eyes. Show-through and degradation models of this kind:
Tonazzini, Salerno, Bedini 2007; fading and stains as smooth multiplicative fields follow the usual illumination model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from oneprior.core import InputError
from oneprior.operators.base import Operator
from oneprior.operators.fields import cosine_basis
from oneprior.operators.ranges import ValueRange, parse_range
from oneprior.operators.uncertain import Form, UncertainOperator, bound_by_words
from oneprior.operators.words import Grammar, no_values, number, whole

_BROWN = (0.45, 0.7, 1.0)  # how strongly a stain absorbs red, green and blue, relative to its strength
_STAIN = 4  # numbers of one stain: row, column, radius, strength


class UncertainPage(UncertainOperator):
    """Ageing of a page, `at(theta)` for known ageing; pictures of 1 or 3 channels.

    Args:
        in_shape: (1 or 3, height, width).
        fade: nominal loss of contrast, in (0, 1).
        stains: how many stains.
        strength: nominal absorption at a stain's middle, in (0, 1).
        radius: nominal radius (deviation) of a stain, as a share of the page's shorter side.
        bleed: how far paper takes the darkness of its neighbours, in [0, 1]; above 0 the page is no longer affine in x.
        order: of the fading's cosines.
        span: black and white, in the user's units.

    Raises:
        InputError: for a number out of its range, or another kind of picture.
    """

    basis: Tensor
    places: Tensor
    absorption: Tensor

    def __init__(
        self,
        in_shape: torch.Size | tuple[int, ...],
        fade: float = 0.4,
        stains: int = 2,
        *,
        strength: float = 0.4,
        radius: float = 0.15,
        bleed: float = 0.0,
        order: int = 2,
        span: ValueRange = ValueRange(),
    ) -> None:
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(in_shape)
        if len(self.in_shape) != 3 or self.in_shape[0] not in (1, 3):
            raise InputError(f"a page is grey or in colour, (1 or 3, height, width); got {tuple(in_shape)}")
        if not (0 < fade < 1 and 0 < strength < 1 and 0 < radius < 10 and 0 <= bleed <= 1 and 0 <= stains <= 100):
            raise InputError("a page takes fade and strength in (0, 1), radius > 0, bleed in [0, 1], up to 100 stains")
        self.fade, self.stains, self.strength, self.radius, self.bleed = fade, stains, strength, radius, bleed
        self.span, self.form = span, _form_of(bleed)
        self.register_buffer("basis", cosine_basis(self.in_shape[1:], order, constant=True))
        self.register_buffer("absorption", torch.tensor(_BROWN if self.in_shape[0] == 3 else (1.0,)).double())
        # the points (j g, j g^2) of the plastic number g fill a square evenly, however many there are (Roberts 2018)
        plastic = torch.tensor([0.7548776662466927, 0.5698402909980532], dtype=torch.float64)
        even = (0.5 + torch.arange(1, stains + 1, dtype=torch.float64)[:, None] * plastic) % 1
        self.register_buffer("places", torch.special.ndtri(even.clamp(0.05, 0.95)))
        self.theta_shape = torch.Size([len(self.basis) + _STAIN * stains])
        numbers = f"strength={strength!r}:radius={radius!r}:bleed={bleed!r}:order={order}"
        self.words = f"page:{fade!r}:stains={stains}:{numbers}:{span.words}"
        self.spec = f"unknown-{self.words}"

    @property
    def paper(self) -> float:
        """The colour that ink fades to, in the user's units."""
        return self.span.high - 0.1 * self.span.size

    def contrast(self, theta: Tensor) -> Tensor:
        """f, the share of contrast that is left, (n, height, width)."""
        field = torch.tensordot(theta[:, : len(self.basis)], 0.5 * self.basis.to(theta), 1)
        return torch.sigmoid(math.log(1 / self.fade - 1) + field)

    def transmission(self, theta: Tensor) -> Tensor:
        """T, what stains let through, (n, channels, height, width)."""
        h, w = self.in_shape[1:]
        total = theta.new_ones(len(theta), self.in_shape[0], h, w)
        stains = theta[:, len(self.basis) :].reshape(len(theta), self.stains, _STAIN)
        rows = (torch.arange(h, device=theta.device, dtype=theta.dtype) + 0.5)[:, None]
        columns = torch.arange(w, device=theta.device, dtype=theta.dtype) + 0.5
        for j in range(self.stains):
            p, q, log_radius, logit = (v[:, None, None] for v in stains[:, j].unbind(1))
            row, column = (float(v) for v in self.places[j])
            down = rows - h * torch.special.ndtr(row + 0.7 * p)
            across = columns - w * torch.special.ndtr(column + 0.7 * q)
            radius = self.radius * min(h, w) * (0.3 * log_radius).exp()
            blob = torch.exp(-0.5 * (down.square() + across.square()) / radius.square())
            strength = torch.sigmoid(math.log(self.strength / (1 - self.strength)) + logit)
            total = total * (1 - (strength * blob)[:, None] * self.absorption.to(theta)[:, None, None])
        return total

    def evaluate(self, x: Tensor, theta: Tensor) -> Tensor:
        faded = self.paper + self.contrast(theta)[:, None] * (x - self.paper)
        if self.bleed:
            around = avg_pool2d(pad(faded, (1, 1, 1, 1), mode="replicate"), 3, 1)
            faded = faded + self.bleed * (around - faded).clamp_max(0)
        return self.span.low + self.transmission(theta) * (faded - self.span.low)

    def physical(self, theta: Tensor) -> dict[str, Tensor]:
        return {"contrast left": self.contrast(theta), "stains let through": self.transmission(theta)}


def _form_of(bleed: float) -> Form:
    return "general" if bleed else "affine"


def _build(values: list[str], options: dict[str, str], in_shape: torch.Size) -> UncertainPage:
    no_values("page", values, 1)
    told = {"fade": values[0]} if values else {}
    numbers = {k: number(k, v) for k, v in {**told, **options}.items() if k in ("fade", "strength", "radius", "bleed")}
    counts = {k: whole(k, options[k]) for k in ("stains", "order") if k in options}
    return UncertainPage(in_shape, **numbers, **counts, span=parse_range(options))  # type: ignore[arg-type]


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    operator = _build(values, options, in_shape)
    return bound_by_words(operator, options, operator.words)


_KEYS = ("fade", "stains", "strength", "radius", "bleed", "order", "range")

WORDS = Grammar(
    "page",
    ("page:FADE:stains=N:strength=A:radius=R:bleed=B:seed=S:range=BLACK..WHITE",),
    "A page that has aged in a known way: faded by FADE, stained, its ink run; values from BLACK to WHITE (0..255).",
    ("page:0.4:seed=1", "page:0.3:stains=1:bleed=0.5:range=-1..1"),
    _parse,
    (*_KEYS, "seed", "theta"),
)

UNKNOWN = Grammar(
    "unknown-page",
    ("unknown-page:FADE:stains=N:strength=A:radius=R:range=BLACK..WHITE",),
    "A page that has aged; its fading and its stains are inferred with the picture.",
    ("unknown-page:0.4:stains=1",),
    _build,
    _KEYS,
)
