"""A codebook that follows the data: vectors to the nearest of K codes, and back.

The forward map replaces each latent vector by its nearest code; the backward map is the identity (straight-through,
Bengio et al. 2013), so that the encoder learns from the decoder's gradient. The codes themselves are no parameters:
each is the running mean of the vectors that chose it (van den Oord, Vinyals, Kavukcuoglu 2017, appendix A.1),

    N_k <- decay N_k + (1 - decay) n_k,    m_k <- decay m_k + (1 - decay) sum of its vectors,    e_k = m_k / N_k,

which is an online k-means. Encoder outputs are held to their codes by the commitment term |z - sg(e)|^2. A code that
nobody chooses never moves again; such dead codes are restarted at vectors of the batch (Dhariwal et al. 2020,
Jukebox, section 3.1). No two codes begin at the same place, and none where a code is already: where there are fewer
different vectors than codes, as of patches of tokens, codes would else take each other's places for ever, and no law of
codes could be learned.

Everything is a function of the global batch: sums are reduced over processes, and the vectors for restarts are those
with the smallest random keys of all, keys that belong to rows and not to processes. So two processes hold the same
codebook as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from oneprior.core import InputError, Rows, ShapeError

_CHUNK = 1 << 24  # distances held at once
_TRIED = 2.0
"""Count of a code that was put elsewhere, in counts at which a code is dead: with a decay of .99 it has 70 steps."""
_SERVED = 1e-2
"""A vector is at its code where its squared distance is below this share of the variance of all codes."""
_LAST = torch.iinfo(torch.int64).max
"""The key of a vector that no code is restarted at."""


@dataclass(frozen=True)
class Quantized:
    """What a codebook makes of a batch.

    Args:
        z: the nearest codes, (n, d, *grid), with the straight-through gradient.
        codes: their numbers, (n, *grid) int64.
        commitment: mean of (z_in - code)^2, one number a row, (n,).
        perplexity: exp of the entropy of the codes' shares in the global batch, 1 .. K: how many are in use; scalar.
    """

    z: Tensor
    codes: Tensor
    commitment: Tensor
    perplexity: Tensor


class Quantizer(nn.Module):
    """K codes of d numbers, kept up by running means.

    Args:
        codes: K, at least 2.
        width: d.
        decay: of the running means, in (0, 1).
        dead: a code is restarted when its running count falls under this share of an even one; 0 for never.
        lloyd: steps of k-means on the first batch.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    started: Tensor

    def __init__(self, codes: int, width: int, *, decay: float = 0.99, dead: float = 0.02, lloyd: int = 5) -> None:
        super().__init__()
        if codes < 2 or not 0 < decay < 1:
            raise InputError(f"a codebook needs codes >= 2 and 0 < decay < 1, got {codes} and {decay}")
        self.codes, self.width, self.decay, self.dead, self.lloyd = codes, width, decay, dead, lloyd
        self.register_buffer("codebook", Rows(codes, stream="codebook").normal(width))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.codebook.clone())
        self.register_buffer("started", torch.tensor(False))

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"codes={self.codes}, width={self.width}, decay={self.decay}"

    def nearest(self, vectors: Tensor) -> Tensor:
        """The number of the code nearest to each vector; (m, d) -> (m,) int64."""
        vectors, squares = vectors.float(), self.codebook.square().sum(1)
        pieces = vectors.split(max(1, _CHUNK // self.codes))
        with torch.autocast(vectors.device.type, enabled=False):  # in bf16 neighbours would change places
            return torch.cat([torch.addmm(squares, v, self.codebook.T, alpha=-2).argmin(1) for v in pieces])

    def lookup(self, codes: Tensor) -> Tensor:
        """The vectors of codes; (n, *grid) int64 -> (n, d, *grid)."""
        return self.codebook[codes].movedim(-1, 1)

    def mix(self, weights: Tensor) -> Tensor:
        """sum_k weights_k e_k, for one-hot events or softer ones; (n, K, *grid) -> (n, d, *grid)."""
        return torch.einsum("nk...,kd->nd...", weights, self.codebook.to(weights.dtype))

    def usage(self) -> Tensor:
        """The share of codes that are alive, by their running counts; scalar in [0, 1]."""
        return (self.counts > self.dead * self.counts.mean()).float().mean()

    @torch.no_grad()
    def adopt(self, codebook: Tensor) -> None:
        """Take these codes, (K, d), as they are; the first batch will not replace them."""
        if codebook.shape != self.codebook.shape:
            raise ShapeError("codebook", codebook.shape, tuple(self.codebook.shape))
        self.codebook.copy_(codebook)
        self.sums.copy_(codebook * self.counts[:, None])
        self.started.fill_(True)

    def forward(self, z: Tensor, rows: Rows | None = None, *, restarts: bool = True) -> Quantized:
        """Quantise; in training mode with `rows`, update the running means first on nothing but this batch.

        Args:
            z: (n, d, *grid).
            rows: random keys for starts and restarts; None leaves the codebook as it is.
            restarts: whether dead codes may be put elsewhere; not any more once a law of codes is learned.

        Raises:
            ShapeError: if z has another number of channels than the codes.
        """
        if z.shape[1] != self.width:
            raise ShapeError("latents to quantise", z.shape, ("n", self.width, "*grid"))
        vectors = z.detach().movedim(1, -1).reshape(-1, self.width).float()
        keys = None
        if self.training and rows is not None:
            keys = rows.stream("codebook").bits(math.prod(z.shape[2:])).reshape(-1).to(z.device)
            if not bool(self.started):
                self._start(vectors, keys)
        codes = self.nearest(vectors)
        statistics = self._statistics(vectors, codes)
        share = statistics[:, 0] / statistics[:, 0].sum()
        perplexity = torch.special.entr(share).sum().exp()
        codes = codes.reshape(z.shape[0], *z.shape[2:])
        z = z.float()  # under autocast too: codes and the commitment to them are too fine for bf16
        code = self.lookup(codes)
        if keys is not None:
            self._follow(statistics)
            if restarts:
                off = (vectors - self.codebook[codes.reshape(-1)]).square().sum(1)
                self._restart(vectors, torch.where(off > self._served(), keys, _LAST), float(statistics[:, 0].sum()))
        commitment = (z - code).square().flatten(1).mean(1)
        return Quantized(z + (code - z).detach(), codes, commitment, perplexity)

    def _statistics(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """Counts and sums of the vectors of each code over all processes, (K, 1 + d)."""
        table = vectors.new_zeros(self.codes, 1 + self.width)
        table.index_add_(0, codes, torch.cat([torch.ones_like(vectors[:, :1]), vectors], 1))
        if self.training and _processes() > 1:
            dist.all_reduce(table)
        return table

    @torch.no_grad()
    def _follow(self, statistics: Tensor) -> None:
        """One step of the running means."""
        self.counts.lerp_(statistics[:, 0], 1 - self.decay)
        self.sums.lerp_(statistics[:, 1:], 1 - self.decay)
        self.codebook.copy_(self.sums / self.counts.clamp_min(1e-5)[:, None])

    @torch.no_grad()
    def _restart(self, vectors: Tensor, keys: Tensor, total: float) -> None:
        """Put dead codes on vectors of the batch whose key is not the last; those that are not used die again soon."""
        even = total / self.codes
        lost = (self.counts < self.dead * even).nonzero().squeeze(1)
        if lost.numel():
            chosen, keys = self._candidates(vectors, keys)
            chosen = _apart(chosen[keys < _LAST], self._served())[: len(lost)]
            lost = lost[: len(chosen)]
            count = _TRIED * self.dead * even
            self.codebook[lost], self.sums[lost], self.counts[lost] = chosen, chosen * count, count

    def _served(self) -> Tensor:
        """The squared distance below which a vector is at its code."""
        share = self.counts / self.counts.sum()
        mean = share @ self.codebook
        return _SERVED * (share @ (self.codebook - mean).square().sum(1))

    @torch.no_grad()
    def _start(self, vectors: Tensor, keys: Tensor) -> None:
        """The first codes: vectors of the first batch, then a few steps of k-means."""
        first = self._candidates(vectors, keys)[0]
        centre = first.mean(0)
        first = _apart(first, _SERVED * (first - centre).square().sum(1).mean())
        self.codebook.copy_(torch.cat([first, centre.expand(self.codes - len(first), -1)]))
        table = self.codebook.new_zeros(self.codes, 1 + self.width)
        for _ in range(self.lloyd):
            table = self._statistics(vectors, self.nearest(vectors))
            taken = table[:, 0] > 0
            self.codebook[taken] = table[taken, 1:] / table[taken, :1]
        even = max(float(table[:, 0].sum()) / self.codes, 1e-3)
        self.counts.copy_(table[:, 0].clamp_min(self.dead * even))
        self.sums.copy_(self.codebook * self.counts[:, None])
        self.started.fill_(True)

    def _candidates(self, vectors: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of the global batch with the smallest keys, K or all there are, in order, and their keys."""
        order = keys.argsort(stable=True)[: self.codes]
        vectors, keys = vectors[order], keys[order]
        if _processes() > 1:
            vectors, keys = _gather(vectors), _gather(keys)
            order = keys.argsort(stable=True)[: self.codes]
            vectors, keys = vectors[order], keys[order]
        return vectors, keys


def _apart(vectors: Tensor, least: Tensor) -> Tensor:
    """Those without an earlier one at a squared distance of the least or below, (m, d) -> (k, d)."""
    near = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    size, number = max(1, _CHUNK // max(1, len(vectors))), torch.arange(len(vectors), device=vectors.device)
    for part, own in zip(vectors.split(size), number.split(size), strict=True):
        apart = torch.cdist(part, vectors, compute_mode="donot_use_mm_for_euclid_dist").square()
        near[own] = ((apart <= least) & (number < own[:, None])).any(1)
    return vectors[~near]


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _gather(t: Tensor) -> Tensor:
    """The tensors of all processes, one after the other; every process brings equally many rows."""
    parts = [torch.empty_like(t) for _ in range(_processes())]
    dist.all_gather(parts, t.contiguous())
    return torch.cat(parts)
