"""The n-gram baseline of sequences: a token given the n - 1 before it.

    p(t | h) = (c(h t) + d(h) p(t | h')) / (c(h) + d(h)),

c the counts, d(h) how many different tokens were seen behind h, and h' without its oldest token, down to the even law:
the interpolation of Witten and Bell (1991). Of several voices the tokens of a step follow one another, the lowest
voice first, so that a soprano knows the bass below it. What a network makes of a set has to be better than this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.data.one_hot import likeliest, one_hot

_Counts = dict[tuple[int, ...], np.ndarray]


@dataclass
class NGram:
    """Counts of a set of sequences.

    Args:
        order: n, tokens that are looked at together.
        groups: voices.
        tokens: of a voice.
    """

    order: int
    groups: int
    tokens: int
    counts: _Counts = field(default_factory=dict)

    @classmethod
    def fit(cls, x: Tensor, groups: int = 1, order: int = 5) -> NGram:
        """Count.

        Args:
            x: events of tokens, (n, groups x tokens, steps).
            groups: voices.
            order: n; the context is reckoned in tokens, of which a step has one for each voice.

        Raises:
            InputError: for an order below 1.
        """
        if order < 1:
            raise InputError(f"an n-gram is of order 1 or more, got {order}")
        found = cls(order, groups, x.shape[1] // groups)
        counts: defaultdict[tuple[int, ...], np.ndarray] = defaultdict(lambda: np.zeros(found.tokens))
        for line in found._lines(x):
            for k, token in enumerate(line):
                for length in range(min(order, k + 1)):
                    counts[(k % groups, *line[k - length : k])][token] += 1
        found.counts = dict(counts)
        return found

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-probability of events in nats, (n, groups x tokens, steps) -> (n,) float64."""
        each = [sum(np.log(self._next(line[:k], k)[token]) for k, token in enumerate(line)) for line in self._lines(x)]
        return torch.tensor(each, dtype=torch.float64)

    def sample(self, n: int, steps: int, seed: int = 0) -> Tensor:
        """Draw n events of so many steps, one-hot in [-1, 1]."""
        rng = np.random.default_rng(seed)
        codes = np.zeros((n, steps * self.groups), dtype=np.int64)
        for row in codes:
            for k in range(len(row)):
                row[k] = rng.choice(self.tokens, p=self._next(tuple(row[max(0, k - self.order + 1) : k]), k))
        voices = torch.from_numpy(codes).unflatten(1, (steps, self.groups)).flip(2)
        return one_hot(voices.transpose(1, 2), self.tokens)

    def _lines(self, x: Tensor) -> Iterator[tuple[int, ...]]:
        """The tokens of events, step by step, the lowest voice first."""
        codes = likeliest(x, self.groups).flip(1)
        yield from map(tuple, codes.transpose(1, 2).flatten(1).tolist())

    def _next(self, before: tuple[int, ...], place: int) -> np.ndarray:
        """The law of the token at a place, behind some others, (tokens,)."""
        law = np.full(self.tokens, 1 / self.tokens)
        for length in range(min(self.order, len(before) + 1)):
            seen = self.counts.get((place % self.groups, *(before[len(before) - length :])))
            if seen is None:
                break
            kinds = np.count_nonzero(seen)
            law = (seen + kinds * law) / (seen.sum() + kinds)
        return law
