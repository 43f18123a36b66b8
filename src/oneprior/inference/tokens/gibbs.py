"""Gibbs sampling of codes: every position in turn, from its exact conditional (Geman and Geman 1984).

    p(code_i = k | all other codes, y)  ~  p(codes with k at i) L(codes with k at i)^beta.

All K candidates are decoded and weighed, so a sweep of L positions costs 2 K L network calls (a decoder's and a
prior's each); nothing is proposed and nothing rejected, and neither prior nor instrument need a derivative. It is the
method for small codebooks; for large ones see `informed`. Every chain of every problem visits the positions in an order
that is drawn from the seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.inference.tokens.target import Chains, Target, check_finite


@dataclass(frozen=True)
class Gibbs:
    """A sweep over all positions; see the module."""

    name: ClassVar[str] = "gibbs"

    @classmethod
    def published(cls) -> Self:
        """Nothing to set."""
        return cls()

    def width(self, vocabulary: int) -> int:
        """Arrays of the size of the events that a copy needs at once."""
        return 2

    def chains(self, target: Target, codes: Tensor, streams: Rows) -> Chains:
        """Chains at codes (N, L); `streams` has a row for each."""
        return _Sweeps(target, codes, streams)


class _Sweeps(Chains):
    """Chains under way."""

    def __init__(self, target: Target, codes: Tensor, streams: Rows) -> None:
        self.target, self.streams = target, streams
        self.plan = Rows([0], seed=streams.seed, stream=f"{streams.name}/sweeps", device=codes.device)
        self.codes, self.moves = codes.clone(), 0
        self.value, self.log_prior = target.log_likelihood(codes), target.log_prior(codes)
        check_finite(self.value, Gibbs.name, target.n, 0)

    def take(self, index: Tensor) -> None:
        self.codes, self.value, self.log_prior = self.codes[index], self.value[index], self.log_prior[index]

    def step(self, beta: Tensor) -> Tensor:
        self.moves += 1
        K, (N, L) = self.target.prior.vocabulary, self.codes.shape
        for site in self.plan.uniform(L)[0].argsort(stable=True).tolist():
            candidates = self.codes.repeat(K, 1)  # candidate-major: each candidate is N whole rows
            candidates[:, site] = torch.arange(K, device=candidates.device).repeat_interleave(N)
            value = self.target.log_likelihood(candidates)
            check_finite(value, Gibbs.name, self.target.n, self.moves)
            value, prior = value.reshape(K, N).T, self.target.log_prior(candidates).reshape(K, N).T
            # An impossible grid stays so at any power of the likelihood, and beta may be 0.
            score = prior + torch.where(value == -torch.inf, value, beta[:, None] * value)
            stuck = score.amax(1, keepdim=True) == -torch.inf  # nothing but impossible grids: stay
            score = torch.where(stuck, torch.nn.functional.one_hot(self.codes[:, site], K).double().log(), score)
            new = self.streams.categorical(score)
            self.codes[:, site] = new
            self.value, self.log_prior = (t.gather(1, new[:, None]).squeeze(1) for t in (value, prior))
        return torch.ones(N, dtype=torch.float64, device=self.codes.device)
