"""Codes of a run, searched exactly (Jung, Schwedhelm, Schillings, Keuper 2023).

A tree ensemble is fitted to scores of grids of codes, and the grid that maximises it is found, within the balls around
the best and beside all that is known; what the token prior holds for unlikely is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference.search.constraints import AtLeast, Ball, Constraint, Exclude, Linear
from oneprior.inference.search.exact import Effort, Search
from oneprior.inference.search.objective import Bonus, nearest
from oneprior.inference.search.space import Space
from oneprior.inference.search.surrogate import Surrogate, fit_surrogate
from oneprior.priors.base import TokenPrior
from oneprior.priors.pushforward import Pushforward
from oneprior.tasks.campaign.latents import Known, Latents, Proposal, Proposals
from oneprior.tasks.campaign.presented import identities, settled
from oneprior.tasks.campaign.settings import Settings
from oneprior.training import Run

_ROWS = 256
_PASSED_OVER = 12
"""Grids in a round that may be passed over as unlikely before one is taken all the same."""
_FLOORS = (0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
"""Shares of the data below whose likelihood, place by place, the program does not look after each unlikely grid."""
_ALIKE, _BOLDNESS = 32, 0.3
"""Grids that are drawn where the ensemble cannot tell codes apart, and the temperature at which they are."""
_NOTHING = 1e-3
"""Share of the variance of a codebook that is next to nothing."""
_SAMPLE = 1000
"""Events of the data that tell how likely the data are."""
_TRIES = 3
"""Other codes of each place by which it is found whether the place matters."""
_OWN = 40.0
"""Events of the data that one that a campaign has measured itself counts for, at most."""
_KEEPING = 0.1
"""Share of the points that keep the rules, by an ensemble's word, that its bound may exclude."""
_REFUSED, _LEARNED = 60, 6
"""Grids in a round that may break a rule or repeat an event, and after how many of them the rules are learned anew."""


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
            x = torch.cat([self._prior.decoder(part) for part in onehot.split(_ROWS)]).clamp(-1, 1).cpu()
        return settled(self.run, x)

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """The token prior's exact log-probability of points, in nats, (n,)."""
        with torch.no_grad():
            parts = [self.law.log_prob(part) for part in self._codes(points).split(_ROWS)]
        return torch.cat(parts).double().cpu().numpy()

    def _codes(self, points: np.ndarray) -> Tensor:
        codes = torch.from_numpy(points.astype(np.int64)).to(self.law.device)
        return codes.reshape(-1, *self.law.grid)

    def propose(self, known: Known, settings: Settings, number: int, count: int) -> Proposals:
        least, bonus = self._least_log_prob(known.data, settings), self._bonus(known, settings)
        effort = Effort(seconds=settings.seconds, exact=settings.exact, seed=settings.seed + number)
        starts = known.points[np.argsort(-known.merit, kind="stable")[: max(8, settings.centres)]]
        seen = {point.tobytes() for point in known.every}
        constraints: list[Constraint] = []
        if settings.radius is not None:
            constraints.append(Ball(starts[: settings.centres], settings.radius))
        away = settings.apart or max(1, self.numbers // 16)
        found: list[Proposal] = []
        refused: list[tuple[np.ndarray, str]] = []
        repeated, taken = 0, set(known.taken)
        ground = _Ground(self._floors(known.data))
        splits, surrogate = self._surrogate(known, settings, number)
        space = surrogate.space
        search = Search(surrogate.models, space, goal=known.goal, bonus=bonus, effort=effort)
        rules = self._rules(known, space, settings, [])
        while len(found) < count and max(len(refused), repeated) < _REFUSED:
            best = search.best([*constraints, *rules, *ground.floor], starts[:8])
            if best.point is None and not ground.floor:
                break
            if best.point is None:  # so likely nothing is that is allowed
                ground.give_up()
                continue
            point, log_prob = self._likeliest(best.point, best.alike, settings, number)
            likely = log_prob >= least
            if not likely and ground.passed < _PASSED_OVER:
                risen = ground.rise()  # on the highest, a neighbour is as unlikely
                constraints.append(Exclude(point, 1 if risen else away))
                continue
            if point.tobytes() in seen:
                constraints.append(Exclude(point))
                continue
            event = self.decode(point[None])
            own = identities(self.run, event)[0]
            if own in taken:  # other codes of an event that is known
                repeated += 1
                constraints.append(self._other_event(point, own))
                continue
            taken.add(own)
            if broken := known.admission.broken(event)[0]:
                refused.append((point, broken))
                constraints.append(Exclude(point, away))
                if len(refused) % _LEARNED == 0:
                    rules = self._rules(known, space, settings, refused)
                continue
            constraints.append(Exclude(point, away))
            apart = float(nearest(point[None], known.every, self.space.coded)[0])
            searched = (best.prediction, best.bound, best.gap, best.status)
            found.append(Proposal(point, *searched, apart, log_prob, likely, best.seconds))
        told = {name: getattr(surrogate, name) for name in ("r2", "error", "trees", "points")}
        told |= {"splits": splits, "passed": ground.passed, "repeated": repeated, "refused": len(refused)}
        return Proposals(found, told, refused)

    def _likeliest(
        self, point: np.ndarray, alike: Sequence[np.ndarray], settings: Settings, number: int
    ) -> tuple[np.ndarray, float]:
        """The likeliest, by the token prior, of some grids of codes that ensemble and constraints cannot tell from a
        point's, and its log-probability: the optimum is a set, and its first point is any of it."""
        points = point[None]
        if not settings.realism and any(len(codes) > 1 for codes in alike):  # a reward of codes has chosen
            among = torch.zeros(self.numbers, self.law.vocabulary, dtype=torch.bool)
            for place, codes in enumerate(alike):
                among[place, torch.from_numpy(codes)] = True
            rows = Rows(_ALIKE, seed=settings.seed, stream=f"alike {number}")
            drawn = self.law.sample_codes(rows, _BOLDNESS, among).flatten(1)
            points = np.concatenate([points, drawn.double().cpu().numpy()])
        log_probs = self.log_prob(points)
        k = int(log_probs.argmax())
        return points[k], float(log_probs[k])

    def _rules(
        self, known: Known, space: Space, settings: Settings, refused: Sequence[tuple[np.ndarray, str]]
    ) -> list[Constraint]:
        """What an ensemble has learned of the rules, once some point broke one: they are not to be broken, or no more
        than nine in ten that keep them are said to, and fewer, the more was refused in this round: of rules that count,
        such as of rings, most of what keeps them is at their bound. An ensemble that does not see most of what broke
        them is of no use."""
        if not known.admission:
            return []
        some = np.random.default_rng(settings.seed).permutation(len(known.data))[: settings.best]
        points = np.concatenate([known.data[some], known.every[len(known.data) :], *(p[None] for p, _ in refused)])
        margins = known.admission.margins(self.decode(points))[0].numpy()
        sure = np.isfinite(margins)
        told = np.abs(margins[sure & (margins != 0)])
        wide = max(float(np.median(told)), 1e-9) if len(told) else 0.0
        margins, kept = np.clip(margins, -wide, wide), margins >= 0
        if kept.all() or np.ptp(margins) == 0:  # kept or broken by all alike: nothing to learn, and each is looked at
            return []
        learned = fit_surrogate(space, points, margins, settings.trees, seed=settings.seed)
        said = learned.predict(points)
        if not kept.any():
            return [AtLeast(learned.models[0], learned.error * len(refused) / (2 * _LEARNED))]
        lost = _KEEPING + (0.5 - _KEEPING) * len(refused) / _REFUSED
        first, now = np.quantile(said[kept], [_KEEPING, lost])
        low = min(0.0, float(first)) + float(now - first)
        return [] if (said[~kept] < low).mean() < 0.5 else [AtLeast(learned.models[0], low)]

    def _other_event(self, point: np.ndarray, own: bytes) -> Constraint:
        """Not the codes of a point where they matter: those whose change makes another event (of a sequence, none
        behind its end)."""
        codes = self.law.vocabulary
        every = np.arange(self.numbers)
        changed = point + np.zeros((_TRIES, self.numbers, self.numbers))
        for k in range(_TRIES):
            changed[k, every, every] = (point + 1 + (k * codes) // _TRIES) % codes
        found = identities(self.run, self.decode(changed.reshape(-1, self.numbers)))
        matters = np.array([one != own for one in found]).reshape(_TRIES, self.numbers).any(0)
        if not matters.any():
            return Exclude(point)
        there = np.flatnonzero(matters)
        weights: dict[int | str, np.ndarray | float] = {int(c): (np.arange(codes) == point[c]) * 1.0 for c in there}
        return Linear(weights, high=float(matters.sum() - 1))

    def _seen(self, settings: Settings) -> dict[str, Space]:
        """The space as trees may see it: codes as they are, by themselves or behind a table that all places share, or
        as their vectors in the codebook, along its own axes (of 32 numbers of a code five vary, in one of ours)."""
        seen = {"codes": self.space, "shared": self.space}
        vectors = self.run.model.codebook
        if vectors is not None:
            axes = principal_axes(vectors.detach().double().cpu().numpy())
            seen["codebook"] = Space.grid(self.numbers, self.law.vocabulary, axes)
        if settings.splits == "better":
            return seen
        if settings.splits not in seen:
            raise IncompatiblePrior(f"a {self.run.family} has no vectors of its codes: split on the codes")
        return {settings.splits: seen[settings.splits]}

    def _surrogate(self, known: Known, settings: Settings, number: int) -> tuple[str, Surrogate]:
        """What its trees see, and the ensemble that predicts held-out scores best; fitted to the best events, to all
        that the campaign has measured (most of all where it was wrong), and to some of the others, drawn anew in every
        round."""
        order, data = np.argsort(-known.merit, kind="stable"), len(known.points) - known.own
        best, rest = order[: settings.best], order[settings.best :]
        others = np.random.default_rng([settings.seed, number]).permutation(rest[rest < data])
        used = np.concatenate([best, rest[rest >= data], others[: settings.others]])
        points, scores, seed = known.points[used], known.scores[used], settings.seed + number
        own = used >= data
        share = settings.own_share / (1 - settings.own_share) * (~own).sum() / max(1, own.sum())
        weights = np.where(own, np.clip(share, 1.0, _OWN), 1.0)
        fitted = {
            splits: fit_surrogate(
                space, points, scores, settings.trees, seed=seed, shared=splits == "shared", weights=weights
            )
            for splits, space in self._seen(settings).items()
        }
        return max(fitted.items(), key=lambda one: one[1].r2)

    def _bonus(self, known: Known, settings: Settings) -> Bonus:
        terms = {}
        if settings.realism:
            shares = log_shares(known.data, self.law.vocabulary)
            terms = {c: settings.realism * share for c, share in shares.items()}
        return Bonus(settings.distance, known.every if settings.distance else None, settings.spread, terms)

    def _floors(self, data: np.ndarray) -> Iterator[Constraint]:
        """Ever more likely ground: the sum of the codes' log-probabilities at their places is at least that of some
        share of the data. It is part of the program, which then takes the likely one of codes that the trees cannot
        tell apart; the token prior has the last word."""
        shares = log_shares(data, self.law.vocabulary)
        weights: dict[int | str, np.ndarray | float] = {**shares}
        some = data[:: -(-len(data) // _SAMPLE)].astype(np.int64)
        sums = np.sum([share[some[:, c]] for c, share in shares.items()], 0)
        for level in _FLOORS:
            yield Linear(weights, low=float(np.quantile(sums, level)))

    def _least_log_prob(self, data: np.ndarray, settings: Settings) -> float:
        """Below it a grid is less likely than all but a small share of the data."""
        if settings.unlikely is None:
            return -np.inf
        some = np.random.default_rng(settings.seed).permutation(len(data))[:_SAMPLE]
        return float(np.quantile(self.log_prob(data[some]), settings.unlikely))


class _Ground:
    """How likely grids must be, place by place, in a round: the more after each that was passed over as unlikely.

    Args:
        floors: from the lowest to the highest.
    """

    def __init__(self, floors: Iterator[Constraint]) -> None:
        self._floors, self.floor, self.passed = floors, list[Constraint](), 0

    def rise(self) -> bool:
        """Pass a grid over; whether there is a higher floor."""
        self.passed += 1
        higher = next(self._floors, None)
        self.floor = self.floor if higher is None else [higher]
        return higher is not None

    def give_up(self) -> None:
        """Take grids however unlikely they are."""
        self.floor, self.passed = [], _PASSED_OVER


def principal_axes(vectors: np.ndarray) -> np.ndarray:
    """Vectors along the principal axes of their cloud, (K, d) -> (K, axes), without those that hold next to nothing of
    its variance."""
    centred = vectors - vectors.mean(0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    variance = spread**2
    kept = 1 + int((np.cumsum(variance) < (1 - _NOTHING) * variance.sum()).sum())
    return centred @ axes[:kept].T


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
