"""One random stream per row, so that a row never depends on the batch it came in.

A row is one independent problem: one sample to draw, one image to restore. Its random numbers are a pure
function of (seed, stream, row index, number of the call, position), computed by a counter: Philox-4x32-10
(Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"), written on whole tensors.
Nothing is drawn one row at a time, and nothing is shared between rows.

Normals come from the inverse of the normal distribution function (Wichura 1988, algorithm AS 241, PPND16). It is
evaluated with +, *, / and sqrt only, in float64; IEEE 754 rounds these correctly, so that the numbers are equal to
the last bit in any batch, any order, any process and on any device. (log and cos of the libraries are not: their
vector and their scalar code differ in the last bit.)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from oneprior.core.errors import InputError

_MASK = 0xFFFFFFFF
_MIRROR = 1 << 62  # in the index of a row whose bits are those of another, turned over
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_CHUNK = 1 << 16  # counters worked on at once: the working set stays in the processor's cache
_CHUNK_GPU = 1 << 24  # where every piece costs the start of some hundred kernels


class Rows:
    """Independent random streams, one for each of n rows.

    Each method advances a call counter shared by the rows, so two calls give different numbers, and the same
    sequence of calls gives the same numbers to row i whatever rows stand beside it.

    Args:
        rows: number of rows (they get indices 0 .. n-1), or the indices themselves (integers >= 0).
        seed: any integer.
        stream: a name for an independent family of streams; see `stream`.
        device: where the numbers are made.
    """

    def __init__(
        self,
        rows: int | Iterable[int] | Tensor,
        seed: int = 0,
        *,
        stream: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        if isinstance(rows, int):
            index = torch.arange(rows)
        else:
            index = torch.as_tensor(rows if isinstance(rows, Tensor) else list(rows), dtype=torch.int64)
        self.index = index.to(device=device, dtype=torch.int64).reshape(-1)
        self.seed = seed
        self.name = stream
        self.calls = 0
        digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
        self._key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little"))

    def __len__(self) -> int:
        return self.index.numel()

    def __repr__(self) -> str:
        return f"Rows({len(self)}, seed={self.seed}, stream={self.name!r}, calls={self.calls})"

    @property
    def device(self) -> torch.device:
        return self.index.device

    @property
    def _chunk(self) -> int:
        return _CHUNK if self.device.type == "cpu" else _CHUNK_GPU

    def to(self, device: torch.device | str) -> Rows:
        """The same streams, at the same call, on another device."""
        return self._with(self.index.to(device), self.name, self.calls)

    def stream(self, name: str | int) -> Rows:
        """Fresh streams for the same rows, independent of these and of every other name."""
        return self._with(self.index, f"{self.name}/{name}", 0)

    def take(self, index: Tensor | slice) -> Rows:
        """The streams of some of the rows, in that order, at the same call."""
        return self._with(self.index[index], self.name, self.calls)

    def repeat(self, draws: int, *, mirrored: bool = False) -> Rows:
        """draws * n rows, draw-major: draw s of row i has a stream of its own, whatever n and draws are.

        Args:
            draws: how many of each row.
            mirrored: draws 2 k + 1 get the numbers of draws 2 k turned over: u becomes 1 - u, and a normal z becomes
                -z. Each draw alone has the same law as before (antithetic variates: Hammersley, Morton 1956).

        Raises:
            InputError: for rows that are draws already, whose streams would meet; take `stream(name)` with other rows.
        """
        if draws > 1 and bool((self.index >> 40).any()):
            raise InputError("these rows are draws of others already (`repeat`), and cannot be repeated again")
        numbers = [(s // 2 << 40) + s % 2 * _MIRROR if mirrored else s << 40 for s in range(draws)]
        shifted = [self.index + number for number in numbers]
        return self._with(torch.cat(shifted) if shifted else self.index[:0], self.name, self.calls)

    def _with(self, index: Tensor, name: str, calls: int) -> Rows:
        rows = Rows(index, self.seed, stream=name, device=index.device)
        rows.calls = calls
        return rows

    def bits(self, *shape: int) -> Tensor:
        """Uniform integers in [0, 2**32), int64, of shape (n, *shape)."""
        n, size = len(self), math.prod(shape)
        call, self.calls = self.calls, self.calls + 1
        blocks = -(-size // 4)
        out = torch.empty(n, blocks, 4, dtype=torch.int64, device=self.device)
        if out.numel():
            block, number = torch.arange(blocks, device=self.device), torch.tensor(call, device=self.device)
            step = max(1, self._chunk // blocks)
            for start in range(0, n, step):
                index = self.index[start : start + step, None]
                words = _philox((block, number, index & _MASK, (index & ~_MIRROR) >> 32), self._key)
                torch.stack(torch.broadcast_tensors(*words), dim=-1, out=out[start : start + step])
            out ^= torch.where(self.index & _MIRROR > 0, _MASK, 0)[:, None, None]
        return out.reshape(n, -1)[:, :size].reshape(n, *shape)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform numbers in the open interval (0, 1), of shape (n, *shape).

        float32 carries 23 random bits and float64 32; neither ever is 0 or 1.
        """
        bits = self.bits(*shape)
        if dtype == torch.float64:
            return (bits.to(torch.float64) + 0.5) * 2.0**-32
        return (((bits >> 9).to(torch.float32) + 0.5) * 2.0**-23).to(dtype)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers, of shape (n, *shape), within +-6.3."""
        bits = self.bits(*shape).reshape(-1)
        out = torch.empty(bits.shape, dtype=dtype, device=self.device)
        for start in range(0, bits.numel(), self._chunk):
            piece = bits[start : start + self._chunk]
            out[start : start + self._chunk] = _normal_quantile((piece.to(torch.float64) + 0.5) * 2.0**-32)
        return out.reshape(len(self), *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform integers in [0, high), int64, of shape (n, *shape); high <= 2**31 (bias below 2**-32 high)."""
        return (self.bits(*shape) * high) >> 32

    def categorical(self, logits: Tensor) -> Tensor:
        """One draw per row from softmax(logits), logits (n, ..., K); int64 of shape (n, ...)."""
        cumulative = logits.double().softmax(-1).cumsum(-1)
        u = self.uniform(*logits.shape[1:-1], dtype=torch.float64).to(logits.device)
        return (
            torch.searchsorted(cumulative, u.unsqueeze(-1) * cumulative[..., -1:])
            .squeeze(-1)
            .clamp_(max=logits.shape[-1] - 1)
        )


def _philox(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox-4x32 (Salmon et al. 2011, section 3.3) on int64 tensors that hold 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # wraps modulo 2**64: both halves stay right
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


# Coefficients of AS 241 (PPND16), constant term first.
_A = (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4) + (
    4.5921953931549871457e4,
    6.7265770927008700853e4,
    3.3430575583588128105e4,
    2.5090809287301226727e3,
)
_B = (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3) + (
    2.1213794301586595867e4,
    3.9307895800092710610e4,
    2.8729085735721942674e4,
    5.2264952788528545610e3,
)
_C = (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0) + (
    1.27045825245236838258e0,
    2.41780725177450611770e-1,
    2.27238449892691845833e-2,
    7.74545014278341407640e-4,
)
_D = (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1) + (
    1.48103976427480074590e-1,
    1.51986665636164571966e-2,
    5.47593808499534494600e-4,
    1.05075007164441684324e-9,
)


def _normal_quantile(p: Tensor) -> Tensor:
    """Phi^-1(p) for float64 p in [2**-33, 1 - 2**-33], relative accuracy about 1e-15 (Wichura 1988)."""
    q = p - 0.5
    r = 0.180625 - q * q
    x = q * _polynomial(r, _A) / _polynomial(r, _B)
    if p.device.type != "cpu":  # to find the tail would make the host wait; these are the same numbers
        return torch.where(r < 0, _tail_quantile(p, q), x)
    (tail,) = torch.nonzero(r < 0, as_tuple=True)
    if tail.numel():
        x[tail] = _tail_quantile(p[tail], q[tail])
    return x


def _tail_quantile(p: Tensor, q: Tensor) -> Tensor:
    r = _minus_log(torch.minimum(p, 1.0 - p)).sqrt() - 1.6  # <= 5 over the whole range of p
    return torch.sign(q) * _polynomial(r, _C) / _polynomial(r, _D)


def _minus_log(p: Tensor) -> Tensor:
    """-log(p) from correctly rounded operations only: p = m 2**e, log m = 2 atanh((m - 1) / (m + 1))."""
    mantissa, exponent = torch.frexp(p)
    small = mantissa < 0.7071067811865476
    mantissa = torch.where(small, mantissa * 2.0, mantissa)
    exponent = exponent.to(torch.float64) - small.to(torch.float64)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial(s * s, tuple(2.0 / (2 * k + 1) for k in range(11)))
    return -(s * series + exponent * 0.6931471805599453)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Horner's rule, one rounded product and one rounded sum a step (no fused multiply-add)."""
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total.mul_(x).add_(c)
    return total
