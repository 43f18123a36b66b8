"""Laws over grids of codes whose conditionals are exact.

The chain rule, p(codes) = prod_i p(code_i | codes before i), makes any network with causal logits an exact law: its
probability is a sum of log-softmaxes, and a draw takes one position after another. Changing the temperature T or
cutting all but the k likeliest codes changes each conditional, and gives another exact law: `log_prob`, `next_logits`
and `sample_codes` speak of the same one. (Sampling softmax(logits / T) position by position is not p^(1/T), the
tempered joint.)

Two small laws stand beside it: codes that are independent, and a whole table of probabilities, which a test can
enumerate.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.priors.base import TokenPrior


class CausalNetwork(Protocol):
    """Logits of each code given those before it; conditions are bound already."""

    def logits(self, codes: Tensor) -> Tensor:
        """(n, L) int64 -> (n, L, K); those at i depend on codes before i alone."""
        ...

    def begin(self, n: int) -> tuple[Tensor, Any]:
        """Logits of the first code of n sequences, (n, K), and a state."""
        ...

    def advance(self, codes: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits of the next code, (n, K), after the codes just chosen, (n,)."""
        ...


class CausalTokenPrior(TokenPrior):
    """The law of a causal network: exact probability, exact conditionals, draws by one cheap step a position.

    Args:
        network: causal logits.
        vocabulary: K.
        grid: shape of the grid; positions run through it in C order.
        temperature: T > 0 of every conditional, softmax(logits / T).
        top_k: keep only the k likeliest codes of every conditional; 0 for all.
        device: where the network lives.
    """

    def __init__(
        self,
        network: CausalNetwork,
        vocabulary: int,
        grid: torch.Size | tuple[int, ...],
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not temperature > 0:
            raise InputError(
                f"the temperature must be positive, got {temperature}; small values take the likeliest code"
            )
        if not 0 <= top_k <= vocabulary:
            raise InputError(f"top_k must lie in 0 .. {vocabulary} (the size of the codebook), got {top_k}")
        self.network, self.vocabulary, self.grid = network, vocabulary, torch.Size(grid)
        self.event_shape = torch.Size((vocabulary, *grid))
        self.temperature, self.top_k = temperature, top_k
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self._device

    def log_prob(self, codes: Tensor) -> Tensor:
        flat = _flat(codes, self.grid)
        logp = self._law(self.network.logits(flat)).log_softmax(-1)
        return logp.gather(-1, flat.unsqueeze(-1)).squeeze(-1).sum(1)

    def next_logits(self, codes: Tensor, position: int) -> Tensor:
        return self.all_logits(codes)[:, position]

    def all_logits(self, codes: Tensor) -> Tensor:
        """`next_logits` of every position at the price of one; (n, *grid) -> (n, L, K)."""
        return self._law(self.network.logits(_flat(codes, self.grid)))

    def sample_codes(self, rows: Rows, temperature: float = 1.0, among: Tensor | None = None) -> Tensor:
        """One grid per row, (n, *grid); `temperature` multiplies the law's own."""
        rows = rows.to(self.device)
        length = math.prod(self.grid)
        codes = torch.empty(len(rows), length, dtype=torch.int64, device=self.device)
        with torch.no_grad():
            logits, state = self.network.begin(len(rows))
            for i in range(length):
                codes[:, i] = rows.categorical(self._law(_among(logits, among, i)) / temperature)
                if i + 1 < length:
                    logits, state = self.network.advance(codes[:, i], state)
        return codes.reshape(-1, *self.grid)

    def begin(self, n: int) -> tuple[Tensor, Any]:
        """Logits of the first code of n grids, (n, K), and a state to go on with; for draws that others steer."""
        logits, state = self.network.begin(n)
        return self._law(logits), state

    def advance(self, codes: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits of the next code, (n, K), after the codes just chosen, (n,); the state may change in place."""
        logits, state = self.network.advance(codes, state)
        return self._law(logits), state

    def _law(self, logits: Tensor) -> Tensor:
        """The network's logits (..., K) after temperature and top-k."""
        logits = logits.float() / self.temperature
        if 0 < self.top_k < self.vocabulary:
            kept = logits.topk(self.top_k, dim=-1).indices
            logits = torch.full_like(logits, -math.inf).scatter(-1, kept, logits.gather(-1, kept))
        return logits


class IndependentTokens(TokenPrior):
    """Codes that know nothing of each other.

    Args:
        logits: (*grid, K), unnormalised log-probabilities of each position.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.vocabulary, self.grid = logits.shape[-1], logits.shape[:-1]
        self.event_shape = torch.Size((self.vocabulary, *self.grid))

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def log_prob(self, codes: Tensor) -> Tensor:
        flat = _flat(codes, self.grid)
        table = self.logits.log_softmax(-1).flatten(0, -2).expand(len(flat), -1, -1)
        return table.gather(-1, flat.unsqueeze(-1)).squeeze(-1).sum(1)

    def next_logits(self, codes: Tensor, position: int) -> Tensor:
        return self.logits.flatten(0, -2)[position].expand(len(codes), -1)

    def sample_codes(self, rows: Rows, temperature: float = 1.0, among: Tensor | None = None) -> Tensor:
        logits = self.logits / temperature
        if among is not None:
            logits = logits.masked_fill(~among.to(self.device).reshape(logits.shape), -math.inf)
        return rows.to(self.device).categorical(logits.expand(len(rows), *logits.shape))


class TabularTokens(TokenPrior):
    """Every grid has a probability of its own: the reference that can be enumerated.

    Args:
        logits: (K,) * L, unnormalised log p(codes); K^L numbers, so small K and L only.
        grid: its shape, L positions; (L,) by default.
    """

    def __init__(self, logits: Tensor, grid: torch.Size | tuple[int, ...] | None = None) -> None:
        self.table = logits.reshape(-1).log_softmax(0).reshape(logits.shape)
        self.vocabulary, self.grid = logits.shape[0], torch.Size(grid or (logits.dim(),))
        if set(logits.shape) != {self.vocabulary} or math.prod(self.grid) != logits.dim():
            raise ShapeError("table of log-probabilities", logits.shape, f"({self.vocabulary},) * {tuple(self.grid)}")
        self.event_shape = torch.Size((self.vocabulary, *self.grid))

    @property
    def device(self) -> torch.device:
        return self.table.device

    def log_prob(self, codes: Tensor) -> Tensor:
        return self.table[tuple(_flat(codes, self.grid).unbind(1))]

    def next_logits(self, codes: Tensor, position: int) -> Tensor:
        marginal = self.table.flatten(position + 1).logsumexp(-1) if position + 1 < self.table.dim() else self.table
        return marginal[tuple(_flat(codes, self.grid)[:, :position].unbind(1))].expand(len(codes), -1)

    def sample_codes(self, rows: Rows, temperature: float = 1.0, among: Tensor | None = None) -> Tensor:
        codes = torch.zeros(len(rows), math.prod(self.grid), dtype=torch.int64, device=self.device)
        rows = rows.to(self.device)
        for i in range(codes.shape[1]):
            logits = _among(self.next_logits(codes.reshape(-1, *self.grid), i), among, i)
            codes[:, i] = rows.categorical(logits / temperature)
        return codes.reshape(-1, *self.grid)


def _among(logits: Tensor, among: Tensor | None, position: int) -> Tensor:
    """The logits of a position, (n, K), without the codes that it may not have."""
    return logits if among is None else logits.masked_fill(~among[position].to(logits.device), -math.inf)


def _flat(codes: Tensor, grid: torch.Size) -> Tensor:
    """(n, *grid) -> (n, L), checked."""
    if tuple(codes.shape[1:]) != tuple(grid):
        raise ShapeError("codes", codes.shape, ("n", *grid))
    return codes.flatten(1)
