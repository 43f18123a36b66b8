"""JPEG: 8 x 8 cosine transforms, rounded coarsely (ITU-T T.81 | ISO/IEC 10918-1, 1992).

A picture in 8 bits is shifted by 128; colour becomes luma and chroma (JFIF 1.02, without subsampling: 4:4:4); every
8 x 8 block b, edges repeated to fill the last ones, becomes

    c = round(D b D' / Q),    decoded b' = D' (c Q) D,

D the orthonormal cosine matrix, Q the quantisation table of Annex K scaled by the quality q as the Independent JPEG
Group does it: Q = floor((s K + 50) / 100) in 1 .. 255, s = 5000 / q below 50 and 200 - 2 q from there on. The result is
rounded to whole levels and clipped to 8 bits. Entropy coding loses nothing and is left out.

The gradient. Rounding is flat almost everywhere, and its true gradient of 0 helps nobody. Here it counts as the
identity ("straight through", Bengio, Leonard, Courville 2013): the derivative of rounding averaged over a step, right
on scales above Q and not below. Samplers that correct their moves by the exact likelihood (HMC with its Metropolis
step) stay exact with such a gradient, since any force that depends on the position alone keeps the leapfrog reversible
and volume-preserving; methods that only descend do not. Exact in the limit is not soon: where sigma is below the steps
Q the likelihood is a staircase that chains do not climb. Measured (8x8 digits in 0..255, quality 20, off by 28 levels
rms in the file, ppca, HMC in the metric of the curvature): noise of 2 % 54 levels and R-hat 60 to 3,000, of 15 %, which
covers the rounding, 28 levels and R-hat 10 to 20; in the identity metric worse.

So restoration takes `surrogate`: a coefficient that was rounded in steps of Q lies within Q / 2 of its true value, with
deviation Q / sqrt(12) where the step is small. S divides each coefficient by the root of Q^2 / 12 + 1 / 12 + sigma^2
(the steps of the file, of its whole levels, and the noise), and S y ~ N(S x, I): linear (with orthogonal rows for grey
pictures of whole blocks), and served by every exact and guided method; Bredies and Holler 2012 use the box itself. It
takes each coefficient's rounding for Gaussian, where it is uniform, and for a coefficient rounded to 0 peaked there, so
it errs to the wide side, the more the coarser: S y - S x, which should have deviation 1, has 0.4, 0.6 and 0.8 at
qualities 10, 50 and 90 (grey photograph of 128 x 128), and in chroma 0.1, 0.2 and 0.5.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from oneprior.core import InputError
from oneprior.operators.base import LinearOperator, Operator
from oneprior.operators.ranges import ValueRange, parse_range
from oneprior.operators.words import Grammar, no_values, whole

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)  # Annex K, tables K.1 and K.2
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))  # JFIF 1.02


class JPEG(Operator):
    """What comes back from a JPEG file of this quality, in the user's units.

    Args:
        in_shape: (1, height, width) for grey or (3, height, width) for red, green and blue.
        quality: 1 to 100, as the Independent JPEG Group counts it.
        span: the values of black (level 0) and white (level 255).

    Raises:
        InputError: for another number of channels or axes, or a quality out of range.
    """

    cosines: Tensor
    tables: Tensor
    colour: Tensor
    back: Tensor

    def __init__(self, in_shape: torch.Size | tuple[int, ...], quality: int, span: ValueRange = ValueRange()) -> None:
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(in_shape)
        if len(self.in_shape) != 3 or self.in_shape[0] not in (1, 3):
            raise InputError(f"jpeg keeps grey or colour pictures, (1 or 3, height, width); got {tuple(in_shape)}")
        if not 1 <= quality <= 100:
            raise InputError(f"the quality of a JPEG file lies between 1 and 100, got {quality}")
        self.quality, self.span = quality, span
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        tables = torch.tensor([_LUMA, _CHROMA, _CHROMA][: self.in_shape[0]], dtype=torch.float64)
        self.register_buffer("tables", ((tables * scale + 50) / 100).floor().clamp(1, 255))
        k, place = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
        cosines = ((2 * place + 1) * k * math.pi / 16).cos() / 2
        cosines[0] /= math.sqrt(2)
        self.register_buffer("cosines", cosines)
        colour = torch.tensor(_TO_YCC, dtype=torch.float64)
        self.register_buffer("colour", colour)
        self.register_buffer("back", torch.linalg.inv(colour))
        self.spec = f"jpeg:{quality}:{span.words}"

    def apply(self, x: Tensor) -> Tensor:
        levels = 255 * (x - self.span.low) / self.span.size
        levels = _round(levels.clamp(0, 255))
        if x.shape[1] == 3:
            levels = _mix(self.colour, levels)
            shift = levels.new_tensor([128.0, 0.0, 0.0]).reshape(3, 1, 1)
            decoded = self._code(_round(levels - shift)) + 128  # files hold whole levels of luma and chroma too
            levels = _mix(self.back, _round(decoded.clamp(0, 255)) - 128 + shift)
        else:
            levels = self._code(levels - 128) + 128
        return self.span.low + _round(levels.clamp(0, 255)) * (self.span.size / 255)

    def surrogate(self, noise_level: float) -> LinearOperator:
        return Coefficients(self, noise_level)

    def _code(self, shifted: Tensor) -> Tensor:
        """Blocks to rounded coefficients and back; (n, c, h, w)."""
        h, w = shifted.shape[-2:]
        blocks = _blocks(shifted)
        n, c, high, wide = len(shifted), shifted.shape[1], blocks.shape[2] * 8, blocks.shape[3] * 8
        cosines = self.cosines.to(shifted)
        tables = self.tables.to(shifted)[:, None, None]
        coefficients = _round(cosines @ blocks @ cosines.T / tables) * tables
        decoded = (cosines.T @ coefficients @ cosines).transpose(3, 4).reshape(n, c, high, wide)
        return decoded[..., :h, :w]


class Coefficients(LinearOperator):
    """The cosine coefficients of all blocks in units of their rounding and noise; see the module.

    Args:
        file: the instrument that rounds.
        noise_level: of what is added after it, in the user's units.
    """

    weights: Tensor

    def __init__(self, file: JPEG, noise_level: float) -> None:
        super().__init__()
        self.file, self.in_shape = file, file.in_shape
        c, h, w = self.in_shape
        self.out_shape = torch.Size((c, -(-h // 8), -(-w // 8), 8, 8))
        level = 255 / file.span.size
        variance = (file.tables.square() + 1) / 12 + (noise_level * level) ** 2
        self.register_buffer("weights", level * variance.rsqrt()[:, None, None])

    def apply(self, x: Tensor) -> Tensor:
        x = _mix(self.file.colour, x) if x.shape[1] == 3 else x
        cosines = self.file.cosines.to(x)
        return cosines @ _blocks(x) @ cosines.T * self.weights.to(x)

    def adjoint(self, y: Tensor) -> Tensor:
        c, h, w = self.in_shape
        cosines = self.file.cosines.to(y)
        blocks = (cosines.T @ (y * self.weights.to(y)) @ cosines).transpose(3, 4)
        x = blocks.reshape(len(y), c, blocks.shape[2] * 8, blocks.shape[4] * 8)
        x = torch.cat([x[..., : h - 1, :], x[..., h - 1 :, :].sum(-2, keepdim=True)], -2)  # edges were repeated
        x = torch.cat([x[..., : w - 1], x[..., w - 1 :].sum(-1, keepdim=True)], -1)
        return _mix(self.file.colour.T, x) if c == 3 else x


def _blocks(x: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, c, rows, columns, 8, 8), edges repeated to fill the last blocks."""
    h, w = x.shape[-2:]
    x = F.pad(x, (0, -w % 8, 0, -h % 8), mode="replicate")
    n, c, high, wide = x.shape
    return x.reshape(n, c, high // 8, 8, wide // 8, 8).transpose(3, 4)


def _round(x: Tensor) -> Tensor:
    """The nearest whole number, with the gradient of the identity."""
    return x + (x.round() - x).detach()


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    """A 3 x 3 matrix over the channels."""
    return torch.einsum("dc,nc...->nd...", matrix.to(x), x)


def _parse(values: list[str], options: dict[str, str], in_shape: torch.Size) -> Operator:
    no_values("jpeg", values, 1)
    text = options.get("quality", values[0] if values else "75")
    return JPEG(in_shape, whole("quality", text), parse_range(options))


WORDS = Grammar(
    "jpeg",
    ("jpeg:QUALITY:range=BLACK..WHITE",),
    "A JPEG file of QUALITY 1 to 100, colours not subsampled; values run from BLACK to WHITE, 0..255 by default.",
    ("jpeg:20", "jpeg:75:range=-1..1"),
    _parse,
    ("quality", "range"),
)
