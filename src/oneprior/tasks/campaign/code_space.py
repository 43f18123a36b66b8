"""Events as codes of a run: what the search sees of them, and what it gives back."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior
from oneprior.inference.search.space import Space
from oneprior.priors.base import TokenPrior
from oneprior.priors.pushforward import Pushforward
from oneprior.training import Run

_ROWS = 256


class CodeSpace:
    """The grid of codes of a run.

    Args:
        run: with a discrete code.

    Raises:
        IncompatiblePrior: for a family without one.
    """

    def __init__(self, run: Run) -> None:
        prior = run.prior()
        if not isinstance(prior, Pushforward) or not isinstance(prior.base, TokenPrior):
            raise IncompatiblePrior(f"{run.name} is a {run.family}, whose latents are no codes: train a vqvae")
        self.run, self._prior, self.law = run, prior, prior.base
        self.space = Space.grid(self.law.grid.numel(), self.law.vocabulary)

    def encode(self, x: Tensor) -> np.ndarray:
        """The points of events, (n, *event_shape) -> (n, positions)."""
        found = [self.run.model.codes(part.to(self.run.model.device)) for part in x.split(_ROWS)]
        codes = torch.cat([part.flatten(1) for part in found if part is not None])
        return codes.cpu().numpy().astype(np.float64)

    def decode(self, points: np.ndarray) -> Tensor:
        """The events of points, (n, positions) -> (n, *event_shape) in [-1, 1]."""
        onehot = torch.nn.functional.one_hot(self._codes(points), self.law.vocabulary).movedim(-1, 1).float()
        with torch.no_grad():
            return torch.cat([self._prior.decoder(part) for part in onehot.split(_ROWS)]).clamp(-1, 1).cpu()

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """The token prior's exact log-probability of points, in nats, (n,)."""
        with torch.no_grad():
            parts = [self.law.log_prob(part) for part in self._codes(points).split(_ROWS)]
        return torch.cat(parts).double().cpu().numpy()

    def _codes(self, points: np.ndarray) -> Tensor:
        codes = torch.from_numpy(points.astype(np.int64)).to(self.law.device)
        return codes.reshape(-1, *self.law.grid)

    @cached_property
    def counted(self) -> int:
        """Positions of the grid."""
        return self.law.grid.numel()


def log_shares(points: np.ndarray, codes: int) -> dict[int, np.ndarray]:
    """The log-probability of each code at each position among some points, one added to every count.

    Args:
        points: (n, positions).
        codes: K.
    """
    found = {}
    for c in range(points.shape[1]):
        count = np.bincount(points[:, c].astype(np.int64), minlength=codes) + 1.0
        found[c] = np.log(count / count.sum())
    return found
