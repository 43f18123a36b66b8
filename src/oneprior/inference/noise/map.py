"""The most probable noise: a picture without an error bar, and two remedies for its being atypical.

MAP minimises -log p(u | y) = 0.5 |u|^2 - log L(decode(u)) over u, here by L-BFGS of all rows and starts at once.

In d dimensions N(0, I) lives on a shell of radius about sqrt(d), while its density is largest at u = 0, where no draw
ever is; where the evidence is weak the MAP shrinks there, and a generator shows a bland mean it was never trained on.
`norm` offers what is done about it:

- "free": the objective above, the classical MAP.
- "sphere": u = sqrt(d) v / |v|, and -log L alone: the search stays where the mass is (Menon et al. 2020, PULSE).
- "radial": 0.5 |u|^2 - (d - 1) log |u| - log L: the density of radius and direction, which has its mode at
  |u| = sqrt(d - 1) where nothing is measured (the chi law of |u|; MAP is not invariant under a change of coordinates,
  and this is the change). It lets evidence move the radius.

Starts are the best of some draws of the prior, which saves many a start in the wrong basin. It is a point: every draw
is that point, the deviation is 0, and no interval is meant by it.

Measured bias (20 measurements of a fixed tanh network of two latents, sigma 0.3 / 0.1, against quadrature): as a
posterior mean it is off by 0.39 / 0.33 posterior deviations ("radial" 0.37 / 0.29, "sphere" 0.63 / 1.98).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.inference.noise.lbfgs import Descent
from oneprior.inference.noise.target import Target, differentiated
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.priors.base import NoisePrior

Norm = Literal["free", "sphere", "radial"]


@dataclass(frozen=True)
class MAP(Sampler):
    """The best of several descents.

    Args:
        starts: descents of each row.
        candidates: prior draws of each row, the best of which are the starts; at least `starts`.
        steps: the most evaluations of a descent.
        norm: what is done about the norm of u; see the module.
        every: steps between two states shown.

    Source: Menon et al. 2020 (PULSE) for "sphere"; Liu and Nocedal 1989 for the optimiser.
    """

    name: ClassVar[str] = "map"
    needs: ClassVar[Needs] = Needs(prior=NoisePrior, differentiable=True, density=True)
    starts: int = 4
    candidates: int = 64
    steps: int = 150
    norm: Norm = "free"
    every: int = 25

    def __post_init__(self) -> None:
        if min(self.starts, self.steps, self.every) < 1 or self.candidates < self.starts:
            raise InputError("map needs starts, steps and every >= 1, and at least as many candidates as starts")
        if self.norm not in get_args(Norm):
            raise InputError(f"norm is free, sphere or radial, got {self.norm!r}")

    @classmethod
    def published(cls) -> Self:
        """PULSE: one start on the sphere, 100 steps (of Adam there, of L-BFGS here)."""
        return cls(starts=1, candidates=1, steps=100, norm="sphere")

    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        target = Target(posterior)
        u = first_points(target, rows, self.starts, self.candidates)
        descent = Descent(_objective(target, self.norm), u, self.name, target.n)
        while True:
            descent.run(self.every)
            u, _ = best(descent, target.n)
            u = _placed(u, self.norm)
            ended = descent.count >= self.steps or bool(descent.resting.all())
            with torch.no_grad():
                log_density = target.log_density(u)
            centre = target.events(u)
            diagnostics = {
                "log_density": log_density,
                "radius": u.norm(dim=1) / target.d**0.5,
                "spread_of_starts": descent.value.reshape(-1, target.n).std(0, correction=0),
                "converged": descent.converged.reshape(-1, target.n).any(0),
            }
            yield Draws(
                centre.expand(draws, *centre.shape[1:]).clone(),
                self.name,
                exact=False,
                network_calls=target.calls,
                done=1.0 if ended else descent.count / self.steps,
                diagnostics=diagnostics,
                centre=centre[0],
                spread=torch.zeros_like(centre[0]),
            )
            if ended:
                return


def first_points(target: Target, rows: Rows, starts: int, candidates: int) -> Tensor:
    """The `starts` most likely of `candidates` prior draws of each row, (starts n, d), the best first."""
    streams = rows.to(target.device).stream("starts").repeat(candidates)
    u = target.normal(streams)
    if candidates == starts:
        return u
    with torch.no_grad():
        value = torch.cat([target.log_likelihood(part) for part in u.split(16 * target.n)])
    order = value.nan_to_num(-torch.inf).reshape(candidates, target.n).argsort(0, descending=True)[:starts]
    return u.reshape(candidates, target.n, -1).gather(0, order[..., None].expand(-1, -1, target.d)).flatten(0, 1)


def best(descent: Descent, n: int) -> tuple[Tensor, Tensor]:
    """The point of the lowest objective of each problem, (n, d), and which start it came from, (n,)."""
    value, index = descent.value.reshape(-1, n).min(0)
    return descent.u.reshape(-1, n, descent.u.shape[1])[index, torch.arange(n, device=value.device)], index


def find_modes(target: Target, rows: Rows, name: str, *, starts: int, candidates: int, steps: int) -> Descent:
    """Where the descents of each problem ended, for the methods that begin there."""
    return Descent(target.energy, first_points(target, rows, starts, candidates), name, target.n).run(steps)


def drawn_modes(found: Descent, n: int, rows: Rows) -> Tensor:
    """One of the ends of its problem for each of S n rows, drawn by its density, or poor ones would count as much."""
    height = -found.value.reshape(-1, n).T
    choice = rows.categorical(height.repeat(len(rows) // n, 1)).reshape(-1, n)
    return found.u.reshape(-1, n, found.u.shape[1])[choice, torch.arange(n, device=choice.device)].flatten(0, 1)


def _objective(target: Target, norm: Norm) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    if norm == "free":
        return target.energy
    if norm == "sphere":
        return lambda v: differentiated(lambda w: -target.log_likelihood(_placed(w, "sphere")), v)

    def radial(u: Tensor) -> Tensor:
        square = u.square().sum(1)
        return 0.5 * square - 0.5 * (target.d - 1) * square.log() - target.log_likelihood(u)

    return lambda u: differentiated(radial, u)


def _placed(v: Tensor, norm: Norm) -> Tensor:
    """v on the sphere of radius sqrt(d), where it belongs there."""
    return v * (v.shape[1] ** 0.5 / v.norm(dim=1, keepdim=True)) if norm == "sphere" else v
