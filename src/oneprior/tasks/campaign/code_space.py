"""Codes of a run, searched exactly (Jung, Schwedhelm, Schillings, Keuper 2023).

A tree ensemble is fitted to scores of grids of codes, and the grid that maximises it is found, within the balls around
the best and beside all that is known; what the token prior holds for unlikely is passed over.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior
from oneprior.inference.search.constraints import Ball, Constraint, Exclude
from oneprior.inference.search.exact import Effort, Search
from oneprior.inference.search.objective import Bonus, nearest
from oneprior.inference.search.space import Space
from oneprior.inference.search.surrogate import Surrogate, fit_surrogate
from oneprior.priors.base import TokenPrior
from oneprior.priors.pushforward import Pushforward
from oneprior.tasks.campaign.latents import Known, Latents, Proposal, Proposals
from oneprior.tasks.campaign.settings import Settings
from oneprior.training import Run

_ROWS = 256
_PASSED_OVER = 20
"""Grids in a round that may be passed over as unlikely before one is taken all the same."""


class CodeSpace(Latents):
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
        self.numbers = self.law.grid.numel()
        self.space = Space.grid(self.numbers, self.law.vocabulary)

    def encode(self, x: Tensor) -> np.ndarray:
        """The points of events, (n, *event_shape) -> (n, positions)."""
        codes = [self.run.model.codes(part.to(self.run.model.device)).flatten(1) for part in x.split(_ROWS)]
        return torch.cat(codes).cpu().numpy().astype(np.float64)

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

    def propose(self, known: Known, settings: Settings, number: int, count: int) -> Proposals:
        order = np.argsort(-known.merit, kind="stable")
        surrogate = self._surrogate(known, settings, number, order)
        least, bonus = self._least_log_prob(known.data, settings), self._bonus(known, settings)
        seen = {point.tobytes() for point in known.every}
        constraints: list[Constraint] = []
        if settings.radius is not None:
            constraints.append(Ball(known.points[order[: settings.centres]], settings.radius))
        found: list[Proposal] = []
        passed = 0
        effort = Effort(seconds=settings.seconds, seed=settings.seed + number)
        search = Search(surrogate.models, self.space, goal=known.goal, bonus=bonus, effort=effort)
        while len(found) < count:
            best = search.best(constraints, known.points[order[:8]])
            if best.point is None:
                break
            log_prob = float(self.log_prob(best.point[None])[0])
            likely = log_prob >= least
            over = not likely and passed < _PASSED_OVER
            if over or best.point.tobytes() in seen:
                passed += over
                constraints.append(Exclude(best.point))
                continue
            constraints.append(Exclude(best.point, settings.apart))
            apart = float(nearest(best.point[None], known.every, self.space.coded)[0])
            searched = (best.prediction, best.bound, best.gap, best.status)
            found.append(Proposal(best.point, *searched, apart, log_prob, likely, best.seconds))
        told = {"r2": surrogate.r2, "error": surrogate.error, "trees": surrogate.trees, "points": surrogate.points}
        return Proposals(found, {**told, "passed": passed})

    def _surrogate(self, known: Known, settings: Settings, number: int, order: np.ndarray) -> Surrogate:
        """Fitted to the best, and to some of the others, drawn anew in every round."""
        rng = np.random.default_rng([settings.seed, number])
        used = np.concatenate([order[: settings.best], rng.permutation(order[settings.best :])[: settings.others]])
        seed = settings.seed + number
        return fit_surrogate(self.space, known.points[used], known.scores[used], settings.trees, seed=seed)

    def _bonus(self, known: Known, settings: Settings) -> Bonus:
        terms = {}
        if settings.realism:
            shares = log_shares(known.data, self.law.vocabulary)
            terms = {c: settings.realism * share for c, share in shares.items()}
        return Bonus(settings.distance, known.every if settings.distance else None, settings.spread, terms)

    def _least_log_prob(self, data: np.ndarray, settings: Settings) -> float:
        """Below it a grid is less likely than all but a small share of the data."""
        if settings.unlikely is None:
            return -np.inf
        some = np.random.default_rng(settings.seed).permutation(len(data))[:1000]
        return float(np.quantile(self.log_prob(data[some]), settings.unlikely))


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
