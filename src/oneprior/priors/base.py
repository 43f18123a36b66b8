"""Priors: what a trained family knows, in the three forms that inference can use.

One algebra serves every family: a base distribution, and `Pushforward(base, decoder)`. What a prior can do is
said by its type, never by trying: `NoisePrior` is a map of Gaussian noise, `DenoisingPrior` knows the mean of the clean
event given a noisy one, `DensityPrior` can be evaluated, `TokenPrior` lives on a grid of codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from oneprior.core import Rows


class Prior(ABC):
    """A law p(x) over events of shape `event_shape`, x in [-1, 1] where it has a range."""

    event_shape: torch.Size

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return torch.device("cpu")

    @abstractmethod
    def sample(self, rows: Rows) -> Tensor:
        """One draw per row, (n, *event_shape); row i depends on rows.index[i] alone."""


class NoisePrior(Prior):
    """x = decode(u) with u ~ N(0, I)."""

    noise_shape: torch.Size

    @abstractmethod
    def decode(self, u: Tensor) -> Tensor:
        """(n, *noise_shape) -> (n, *event_shape)."""

    def sample(self, rows: Rows) -> Tensor:
        with torch.no_grad():
            return self.decode(rows.to(self.device).normal(*self.noise_shape))


class StandardNormal(NoisePrior):
    """u ~ N(0, I) itself: the base of every decoder."""

    def __init__(self, shape: torch.Size | tuple[int, ...], device: torch.device | str = "cpu") -> None:
        self.noise_shape = self.event_shape = torch.Size(shape)
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self._device

    def decode(self, u: Tensor) -> Tensor:
        return u


class DensityPrior(Prior):
    """A law whose density can be evaluated."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (n, *event_shape) -> (n,)."""


class TokenPrior(Prior):
    """A law over grids of codes; events are one-hot, (vocabulary, *grid); `codes` are int64 (n, *grid).

    Attributes:
        vocabulary: number of codes.
        grid: shape of the grid; positions run through it in C order.
    """

    vocabulary: int
    grid: torch.Size

    @abstractmethod
    def log_prob(self, codes: Tensor) -> Tensor:
        """log p(codes) in nats, exact; (n, *grid) -> (n,)."""

    @abstractmethod
    def next_logits(self, codes: Tensor, position: int) -> Tensor:
        """log p(code at `position` | codes before it), unnormalised; (n, *grid) -> (n, vocabulary)."""

    @abstractmethod
    def sample_codes(self, rows: Rows, temperature: float = 1.0, among: Tensor | None = None) -> Tensor:
        """One grid per row, (n, *grid) int64.

        Args:
            rows: what is drawn.
            temperature: of every conditional.
            among: which codes each position may have, (positions, vocabulary) bool, one at least; each conditional is
                restricted to them, which is not the law given that all are kept: the codes before know nothing of it.
        """

    def sample(self, rows: Rows) -> Tensor:
        codes = self.sample_codes(rows)
        return torch.nn.functional.one_hot(codes, self.vocabulary).movedim(-1, 1).float()
