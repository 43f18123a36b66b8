"""A trust region in a continuous latent space (TuRBO: Eriksson, Pearce, Gardner, Turner, Poloczek 2019, algorithm 1).

A Gaussian process is fitted to scores near the best point; candidates lie in a box around it whose sides follow the
length scales and whose size L doubles after `_SUCCESSES` rounds that found something better and halves after as many
failures as there are dimensions; each is the best of many by one draw of the process (Thompson sampling), a few
coordinates changed at a time. When L has become small the region starts anew. Nothing is proven: bounds are infinite.

Latents are about N(0, I): the box of the paper, [0, 1]^d, is [-3, 3]^d here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_SIDE = 6.0
_FIRST, _LEAST, _MOST = 0.8, 0.5**7, 1.6
_SUCCESSES = 3
_GAIN = 1e-3
_STEPS = 60
_LARGEST = 400
"""Points that the process is fitted to: the nearest to the best."""


@dataclass(frozen=True, eq=False)
class Region:
    """What the process says.

    Args:
        points: candidates, (k, d).
        prediction: mean of the process there, in units of the scores, (k,).
        r2: share of the variance of the scores that it explains, each left out in turn.
        length: L, of the region.
        used: points that it was fitted to.
    """

    points: np.ndarray
    prediction: np.ndarray
    r2: float
    length: float
    used: int


def region_length(rounds: Sequence[bool], batch: int, dimensions: int) -> float:
    """L after some rounds, each of which found something better or not.

    Args:
        rounds: in order.
        batch: points of a round.
        dimensions: d.
    """
    length, good, bad = _FIRST, 0, 0
    failures = math.ceil(max(4.0, dimensions) / batch)
    for better in rounds:
        good, bad = (good + 1, 0) if better else (0, bad + 1)
        if good == _SUCCESSES:
            length, good = min(2 * length, _MOST), 0
        elif bad == failures:
            length, bad = length / 2, 0
        if length < _LEAST:
            length, good, bad = _FIRST, 0, 0
    return length


def improved(before: float, after: float) -> bool:
    """Whether a round counts as a success."""
    return after > before + _GAIN * abs(before)


def trust_region(points: np.ndarray, scores: np.ndarray, count: int, length: float, rng: np.random.Generator) -> Region:
    """Candidates around the best point.

    Args:
        points: (n, d), n at least 2.
        scores: the larger the better, (n,).
        count: candidates.
        length: L.
        rng: of all that is drawn.
    """
    best = int(scores.argmax())
    near = np.argsort(np.square(points - points[best]).sum(1), kind="stable")[:_LARGEST]
    x, raw = torch.from_numpy(points[near]).double() / _SIDE, torch.from_numpy(scores[near]).double()
    middle, scale = raw.mean(), raw.std().clamp_min(1e-9)
    process = _Process(x, (raw - middle) / scale)
    d = x.shape[1]
    sides = process.lengths / process.lengths.log().mean().exp()
    half = length / 2 * sides
    tried = min(5000, max(2000, 100 * d))
    centre = x[0]
    drawn = torch.from_numpy(rng.random((tried, d)))
    box = (centre - half + 2 * half * drawn).clamp(-0.5, 0.5)
    moved = torch.from_numpy(rng.random((tried, d)) < min(1.0, 20 / d))
    moved[torch.arange(tried), torch.from_numpy(rng.integers(0, d, tried))] = True
    candidates = torch.where(moved, box, centre)
    chosen = process.thompson(candidates, count, torch.from_numpy(rng.standard_normal((count, tried))))
    found = candidates[chosen]
    mean = process.mean(found) * scale + middle
    return Region((found * _SIDE).numpy(), mean.numpy(), process.left_out_r2(), length, len(x))


class _Process:
    """A Gaussian process with a Matern kernel of 5/2, a length for each dimension; standardised scores.

    Args:
        x: (n, d).
        y: (n,).
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        d = x.shape[1]
        raw = torch.zeros(d + 2, dtype=x.dtype)
        raw[:d] = 0.5 * math.log(d) + math.log(0.3)
        raw[d + 1] = math.log(0.05)
        raw.requires_grad_(True)
        optimiser = torch.optim.Adam([raw], lr=0.1)
        with torch.enable_grad():
            for _ in range(_STEPS):
                optimiser.zero_grad()
                self._loss(raw).backward()
                optimiser.step()
        raw = raw.detach()
        self.lengths, self.variance, self.noise = raw[:d].exp(), raw[d].exp(), raw[d + 1].exp() + 1e-5
        self.factor = torch.linalg.cholesky(self._gram(x, x) + self.noise * torch.eye(len(x), dtype=x.dtype))
        self.weights = torch.cholesky_solve(y[:, None], self.factor)[:, 0]

    def _loss(self, raw: Tensor) -> Tensor:
        """Minus the log marginal likelihood, with broad log-normal priors on the settings."""
        d = self.x.shape[1]
        gram = _matern(self.x, self.x, raw[:d].exp()) * raw[d].exp()
        factor = torch.linalg.cholesky(gram + (raw[d + 1].exp() + 1e-5) * torch.eye(len(self.x), dtype=raw.dtype))
        solved = torch.cholesky_solve(self.y[:, None], factor)[:, 0]
        fit = 0.5 * self.y @ solved + factor.diagonal().log().sum()
        middle = 0.5 * math.log(d) + math.log(0.3)
        return fit + (raw[:d] - middle).square().sum() / 2 + raw[d].square() / 2 + (raw[d + 1] + 3).square() / 8

    def _gram(self, a: Tensor, b: Tensor) -> Tensor:
        return _matern(a, b, self.lengths) * self.variance

    def mean(self, x: Tensor) -> Tensor:
        """Of the process at x, (m,)."""
        return self._gram(x, self.x) @ self.weights

    def thompson(self, x: Tensor, count: int, noise: Tensor) -> Tensor:
        """The best of x by each of `count` draws of the process, different ones, (count,) int64."""
        cross = self._gram(x, self.x)
        half = torch.linalg.solve_triangular(self.factor, cross.T, upper=False)
        covariance = self._gram(x, x) - half.T @ half
        jitter = 1e-6 * torch.eye(len(x), dtype=x.dtype)
        factor = torch.linalg.cholesky(covariance + jitter)
        draws = cross @ self.weights + noise @ factor.T
        chosen: list[int] = []
        for draw in draws:
            draw[chosen] = -torch.inf
            chosen.append(int(draw.argmax()))
        return torch.tensor(chosen)

    def left_out_r2(self) -> float:
        """Share of the variance explained, each point left out in turn (Rasmussen and Williams 2006, eq. 5.12)."""
        inverse = torch.cholesky_inverse(self.factor)
        off = self.weights / inverse.diagonal()
        return float(1 - off.square().mean() / self.y.var(correction=0).clamp_min(1e-12))


def _matern(a: Tensor, b: Tensor, lengths: Tensor) -> Tensor:
    square = (
        (a / lengths).square().sum(1)[:, None] + (b / lengths).square().sum(1) - 2 * (a / lengths) @ (b / lengths).T
    )
    r = (5 * square.clamp_min(1e-12)).sqrt()
    return (1 + r + r.square() / 3) * (-r).exp()
