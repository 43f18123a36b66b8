"""Codes of a run, searched exactly (Jung, Schwedhelm, Schillings, Keuper 2023).

A tree ensemble is fitted to scores of grids of codes, and the grid that maximises it is found, within the balls around
the best and beside all that is known; what the token prior holds for unlikely is passed over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, Rows
from oneprior.inference.search.constraints import Ball, Constraint, Exclude, Linear
from oneprior.inference.search.exact import Best, Effort, Search
from oneprior.inference.search.objective import Bonus, nearest
from oneprior.inference.search.space import Space
from oneprior.inference.search.surrogate import Surrogate, fit_surrogate
from oneprior.priors.base import TokenPrior
from oneprior.priors.pushforward import Pushforward
from oneprior.tasks.campaign.admission import learned_bound
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
        self._measured: tuple[bytes, np.ndarray] | None = None

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
        starts = known.points[np.argsort(-known.merit, kind="stable")[: max(8, settings.centres)]]
        splits, surrogate = self._surrogate(known, settings, number)
        effort = Effort(seconds=settings.seconds, exact=settings.exact, seed=settings.seed + number)
        bonus = self._bonus(known, settings)
        search = Search(surrogate.models, surrogate.space, goal=known.goal, bonus=bonus, effort=effort)
        now = _Round(self, known, settings, surrogate.space, starts[: settings.centres])
        while len(now.found) < count and max(len(now.refused), now.repeated) < _REFUSED:
            best = search.best(now.constraints, starts[:8])
            if best.point is not None:
                now.take(best, *self._likeliest(best.point, best.alike, settings, number))
            elif now.ground.floor:  # so likely nothing is that is allowed
                now.ground.give_up()
            else:
                break
        told = {name: getattr(surrogate, name) for name in ("r2", "error", "trees", "points")}
        return Proposals(now.found, {**told, "splits": splits, **now.told}, now.refused)

    def check(self, settings: Settings) -> None:
        if settings.where is not None:
            self.places(settings.where)
        if settings.apart is not None and settings.apart > self.numbers:
            raise InputError(f"apart is {settings.apart}, and an event has {self.numbers} codes")

    def fewest(self, settings: Settings) -> int:
        return settings.trees.fewest

    def balls(self, centres: np.ndarray, settings: Settings) -> list[Constraint]:
        """How far from some points one may go, and where, as the settings say."""
        where = None if settings.where is None else self.places(settings.where)
        radius = self.numbers if settings.radius is None else settings.radius
        return [] if where is None and radius >= self.numbers else [Ball(centres, radius, where)]

    def places(self, part: Sequence[tuple[int, int]]) -> list[int]:
        """The positions of the codes of a part of an event.

        Args:
            part: of each spatial axis, the first entry and that behind the last; a code that stands for any entry of
                the part belongs to it.

        Raises:
            InputError: for a part that is none of the event.
        """
        grid, shape = tuple(self.law.grid), tuple(self.run.event_shape)[1:]
        if len(part) != len(shape) or any(not 0 <= a < b <= n for (a, b), n in zip(part, shape, strict=True)):
            told, size = ",".join(f"{a}:{b}" for a, b in part), " x ".join(map(str, shape))
            raise InputError(f"{told} is no part of an event of {size}: needed FIRST:END, within it, for each axis")
        inside = np.ones(grid, dtype=bool)
        for axis, ((a, b), n, count) in enumerate(zip(part, shape, grid, strict=True)):
            size = -(-n // count)
            kept = np.zeros(count, dtype=bool)
            kept[a // size : -(-b // size)] = True
            inside &= kept.reshape([-1 if k == axis else 1 for k in range(len(grid))])
        return np.flatnonzero(inside).tolist()

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

    def rules(
        self, known: Known, space: Space, settings: Settings, refused: Sequence[tuple[np.ndarray, str]]
    ) -> list[Constraint]:
        """What an ensemble has learned of the rules from the data, from what was asked and what was refused."""
        if not known.admission:
            return []
        some = np.random.default_rng(settings.seed).permutation(len(known.data))[: settings.best]
        points = np.concatenate([known.data[some], known.every[len(known.data) :], *(p[None] for p, _ in refused)])
        margins = known.admission.margins(self.decode(points))[0].numpy()
        return [*learned_bound(space, points, margins, settings.trees, settings.seed, len(refused) / _REFUSED)]

    def other_event(self, point: np.ndarray, own: bytes) -> Constraint:
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

    def floors(self, data: np.ndarray) -> Iterator[Constraint]:
        """Ever more likely ground: the sum of the codes' log-probabilities at their places is at least that of some
        share of the data. It is part of the program, which then takes the likely one of codes that the trees cannot
        tell apart; the token prior has the last word."""
        shares = log_shares(data, self.law.vocabulary)
        weights: dict[int | str, np.ndarray | float] = {**shares}
        some = data[:: -(-len(data) // _SAMPLE)].astype(np.int64)
        sums = np.sum([share[some[:, c]] for c, share in shares.items()], 0)
        for level in _FLOORS:
            yield Linear(weights, low=float(np.quantile(sums, level)))

    def least_log_prob(self, data: np.ndarray, settings: Settings) -> float:
        """Below it a grid is less likely than all but a small share of the data."""
        if settings.unlikely is None:
            return -np.inf
        some = data[np.random.default_rng(settings.seed).permutation(len(data))[:_SAMPLE]]
        own = hashlib.sha256(some.tobytes()).digest()
        if self._measured is None or self._measured[0] != own:  # the data's own do not change from round to round
            self._measured = own, self.log_prob(some)
        return float(np.quantile(self._measured[1], settings.unlikely))


class _Round:
    """What becomes of the grids that a round comes upon: taken, passed over as unlikely, refused, or known already.

    Args:
        latents: where they are.
        known: of the campaign.
        settings: of the campaign.
        space: as the trees see it.
        centres: of balls, if the settings have a radius, (centres, positions).
    """

    def __init__(self, latents: CodeSpace, known: Known, settings: Settings, space: Space, centres: np.ndarray) -> None:
        self._latents, self._known, self._settings, self._space = latents, known, settings, space
        self._least = latents.least_log_prob(known.data, settings)
        self._away = settings.apart or max(1, latents.numbers // 16)
        self._seen, self._taken = {point.tobytes() for point in known.every}, set(known.taken)
        self._own: list[Constraint] = latents.balls(centres, settings)
        self._rules = latents.rules(known, space, settings, [])
        self.ground = _Ground(latents.floors(known.data))
        self.found: list[Proposal] = []
        self.refused: list[tuple[np.ndarray, str]] = []
        self.repeated = 0

    @property
    def constraints(self) -> list[Constraint]:
        """Of the next grid."""
        return [*self._own, *self._rules, *self.ground.floor]

    @property
    def told(self) -> dict[str, int]:
        """How many grids were not taken, and why."""
        return {"passed": self.ground.passed, "repeated": self.repeated, "refused": len(self.refused)}

    def take(self, best: Best, point: np.ndarray, log_prob: float) -> None:
        """A grid, as a proposal if it is one; it is not found again.

        Args:
            best: what the search says of it.
            point: the grid, or one that the search cannot tell from it, (positions,).
            log_prob: by the token prior.
        """
        likely = log_prob >= self._least
        if not likely and self.ground.passed < _PASSED_OVER:
            risen = self.ground.rise()  # on the highest, a neighbour is as unlikely
            self._own.append(Exclude(point, 1 if risen else self._away))
            return
        if point.tobytes() in self._seen:
            self._own.append(Exclude(point))
            return
        event = self._latents.decode(point[None])
        own = identities(self._latents.run, event)[0]
        if own in self._taken:  # other codes of an event that is known
            self.repeated += 1
            self._own.append(self._latents.other_event(point, own))
            return
        self._taken.add(own)
        self._own.append(Exclude(point, self._away))
        if broken := self._known.admission.broken(event)[0]:
            self.refused.append((point, broken))
            if len(self.refused) % _LEARNED == 0:
                self._rules = self._latents.rules(self._known, self._space, self._settings, self.refused)
            return
        apart = float(nearest(point[None], self._known.every, self._latents.space.coded)[0])
        searched = (best.prediction, best.bound, best.gap, best.status)
        self.found.append(Proposal(point, *searched, apart, log_prob, likely, best.seconds))


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
