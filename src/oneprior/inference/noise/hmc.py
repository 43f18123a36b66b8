"""Hamiltonian Monte Carlo on the base noise: exact in the limit, for every prior that is a map of Gaussian noise.

The target is log p(u) + log L(decode(u)), whose prior part is N(0, I) whatever the family, so that one metric, the
identity, serves all. Each row (each problem) runs `chains` chains from its own draws of the prior. Its step size is
adapted by dual averaging on the acceptance of its own chains (Hoffman and Gelman 2014, algorithm 5) and then frozen:
a row's law does not depend on the rows beside it.

The path length is jittered, because a fixed one resonates with the periods of near-Gaussian targets and then does not
mix at all (Neal 2011, section 5.4.2.2): the number of leapfrog steps is uniform on 1 .. 2 `leapfrog` - 1, shared by all
chains and drawn from the seed alone, and each chain scales its step by its own factor in [0.8, 1.2].

Sharp evidence makes the posterior of u narrow along some directions and as wide as the prior along others, and the
identity then has to take the small steps of the narrow ones. `metric="laplace"` runs the chains in w, u = H^-1/2 w,
with H the curvature at the row's best mode (`curvature`). Twice as many descents as chains are made, and each chain
starts at one of their ends, drawn by its density, and spread by H^-1/2. It changes the cost and not the law. Measured
on eight correlated numbers of which three are seen (../shared/field/inverse.md, section 4.1), effective draws of the
worst coordinate for 1000 gradients, identity and metric: sigma 0.05, paths of 10 steps: 3 and 63, of 3 steps: 0.6 and
327; sigma 0.01: 0.1 and 59, 0.3 and 327.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from oneprior.core import DivergedError, InputError, Rows, inner, per_row
from oneprior.inference.noise.curvature import Curvature
from oneprior.inference.noise.diagnostics import effective_sample_size, split_r_hat
from oneprior.inference.noise.laplace import sharpened
from oneprior.inference.noise.map import best, drawn_modes, find_modes
from oneprior.inference.noise.target import Target, lost, precision, stop_where_lost
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.priors.base import NoisePrior

_SMALLEST = 1e-7
_RANK = 128  # directions of the metric


@dataclass(frozen=True)
class HMC(Sampler):
    """Parallel chains for all rows at once; the mean is that of every state after the warm-up.

    Args:
        chains: chains of each row, at most one for each draw.
        warmup: iterations that adapt the step and are thrown away.
        leapfrog: mean number of leapfrog steps of a path.
        thin: iterations between two kept draws of a chain.
        acceptance: the acceptance that the step size is adapted to, between 0 and 1.
        step_size: of the first iteration.
        metric: "identity", or "laplace" for the curvature at a mode.

    Source: Neal 2011; Hoffman and Gelman 2014, algorithm 5 (gamma .05, t0 10, kappa .75).
    """

    name: ClassVar[str] = "hmc"
    needs: ClassVar[Needs] = Needs(prior=NoisePrior, differentiable=True, density=True)
    chains: int = 4
    warmup: int = 150
    leapfrog: int = 10
    thin: int = 4
    acceptance: float = 0.8
    step_size: float = 0.1
    metric: Literal["identity", "laplace"] = "identity"

    def __post_init__(self) -> None:
        if min(self.chains, self.leapfrog, self.thin, self.warmup) < 1 or not 0 < self.acceptance < 1:
            raise InputError("HMC needs chains, warmup, leapfrog and thin >= 1, and an acceptance between 0 and 1")
        if self.metric not in ("identity", "laplace"):
            raise InputError(f"the metric of HMC is identity or laplace, got {self.metric!r}")

    @classmethod
    def published(cls) -> Self:
        """The adaptation of the paper: 1,000 iterations, target acceptance 0.65, nothing thinned."""
        return cls(chains=1, warmup=1000, leapfrog=20, thin=1, acceptance=0.65)

    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        prior, n = posterior.prior, posterior.n
        assert isinstance(prior, NoisePrior)
        chains = min(self.chains, draws)
        each = -(-draws // chains)
        many, streams = posterior.repeat(chains), rows.to(prior.device).repeat(chains)
        paths = Rows([0], seed=rows.seed, stream=f"{rows.name}/paths")
        dtype = precision(posterior.likelihood)
        start, bend, calls = streams.normal(*prior.noise_shape, dtype=dtype), None, many.n
        if self.metric == "laplace":
            start, bend, before = _around_modes(posterior, start, chains, rows)
            calls += before
        point = _evaluate(many, start)
        if not bool(torch.isfinite(point.value).all()):
            bad = (~torch.isfinite(point.value.reshape(chains, n))).any(0).nonzero().flatten().tolist()
            raise DivergedError(f"hmc: the log density of rows {bad} is not finite at step 0")
        adapted = _DualAveraging(n, self.step_size, self.acceptance, prior.device)
        tally = _Tally(posterior, prior, chains)
        total = self.warmup + each * self.thin
        for step in range(total):
            warm = step < self.warmup
            length = 1 + int(paths.integers(2 * self.leapfrog - 1)[0])
            size = (adapted.step if warm else adapted.settled).repeat(chains) * (0.8 + 0.4 * streams.uniform())
            momentum = streams.normal(*prior.noise_shape, dtype=dtype)
            other, arrived, gone = _leapfrog(many, point, momentum, size, length, bend)
            stop_where_lost(gone, self.name, n, step)
            energy = other.value - 0.5 * inner(arrived, arrived) - point.value + 0.5 * inner(momentum, momentum)
            chance = energy.nan_to_num(-torch.inf, posinf=-torch.inf).exp().clamp_max(1.0)
            point = point.replace(other, streams.uniform() < chance)
            calls += many.n * length
            if warm:
                adapted.update(chance.reshape(chains, n).mean(0))
                if bool((adapted.step < _SMALLEST).any()):
                    bad = (adapted.step < _SMALLEST).nonzero().flatten().tolist()
                    raise DivergedError(f"hmc: the step size of rows {bad} fell below {_SMALLEST} at step {step}")
                continue
            calls += many.n
            kept = (step - self.warmup) % self.thin == self.thin - 1
            tally.add(point, chance, kept)
            if kept:
                yield tally.draws(draws, calls, (step + 1) / total, adapted.settled)


@dataclass(frozen=True)
class _Point:
    """Where the chains stand: u (N, *noise_shape), log density (N,) and its gradient."""

    u: Tensor
    value: Tensor
    slope: Tensor

    def replace(self, other: _Point, move: Tensor) -> _Point:
        """`other` in the rows that move."""
        wide = move.reshape(-1, *[1] * (self.u.dim() - 1))
        return _Point(
            torch.where(wide, other.u, self.u),
            torch.where(move, other.value, self.value),
            torch.where(wide, other.slope, self.slope),
        )


def _evaluate(posterior: Posterior, u: Tensor) -> _Point:
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        value = posterior.log_density(u)
        (slope,) = torch.autograd.grad(value.sum(), u)
    return _Point(u.detach(), value.detach(), slope)


def _leapfrog(
    posterior: Posterior, point: _Point, momentum: Tensor, size: Tensor, length: int, bend: Curvature | None
) -> tuple[_Point, Tensor, Tensor]:
    """`length` leapfrog steps; the new point and its momentum (Neal 2011, equations 2.28 to 2.30), both in w, and where
    the network was lost on the way."""
    step, gone = per_row(size, momentum), torch.zeros_like(point.value, dtype=torch.bool)
    momentum = momentum + 0.5 * step * _scaled(bend, point.slope)
    for k in range(length):
        point = _evaluate(posterior, point.u + step * _scaled(bend, momentum))
        gone = gone | lost(point.u, point.value)
        momentum = momentum + (1.0 if k < length - 1 else 0.5) * step * _scaled(bend, point.slope)
    return point, momentum, gone


def _scaled(bend: Curvature | None, v: Tensor) -> Tensor:
    """H^-1/2 v, for events of noise."""
    return v if bend is None else bend.power(v.flatten(1), -0.5).reshape(v.shape)


def _around_modes(posterior: Posterior, noise: Tensor, chains: int, rows: Rows) -> tuple[Tensor, Curvature, int]:
    """Where the chains start, the curvature at each row's best mode, and the network calls that both took."""
    target, n = Target(posterior), posterior.n
    found = find_modes(target, rows, HMC.name, starts=2 * chains, candidates=16 * chains, steps=60)
    around = rows.to(target.device).stream("around")
    _, bend = sharpened(target, best(found, n)[0], around, _RANK)
    start = drawn_modes(found, n, around.repeat(chains)) + bend.power(noise.flatten(1), -0.5)
    return start.reshape(noise.shape), bend, target.calls


class _DualAveraging:
    """Step sizes, one for each row, that reach the wanted acceptance (Hoffman and Gelman 2014, equation 6)."""

    def __init__(self, n: int, step: float, acceptance: float, device: torch.device) -> None:
        self.step = torch.full((n,), step, device=device)
        self.settled = self.step.clone()
        self.target, self.count = acceptance, 0
        self.centre = (10 * self.step).log()
        self.gap = torch.zeros(n, device=device)

    def update(self, acceptance: Tensor) -> None:
        self.count += 1
        share = 1 / (self.count + 10)
        self.gap = (1 - share) * self.gap + share * (self.target - acceptance)
        log_step = self.centre - self.count**0.5 / 0.05 * self.gap
        weight = self.count**-0.75
        log_settled = weight * log_step + (1 - weight) * self.settled.log()
        self.step, self.settled = log_step.exp(), log_settled.exp()


class _Tally:
    """What is kept of the chains: draws, running means over all states, and the traces behind the diagnostics."""

    def __init__(self, posterior: Posterior, prior: NoisePrior, chains: int) -> None:
        self.posterior, self.prior, self.chains = posterior, prior, chains
        self.kept: list[Tensor] = []
        self.trace: list[Tensor] = []
        self.chance: list[Tensor] = []
        self.total = torch.zeros(())
        self.square = torch.zeros(())

    def add(self, point: _Point, chance: Tensor, keep: bool) -> None:
        shape = (self.chains, self.posterior.n)
        with torch.no_grad():
            x = self.posterior.events(self.prior.decode(point.u).unflatten(0, shape))
        self.total = self.total.to(x.device) + x.mean(0, dtype=torch.float64)
        self.square = self.square.to(x.device) + x.double().square().mean(0)
        self.trace.append(point.value.reshape(shape))
        self.chance.append(chance.reshape(shape).mean(0))
        if keep:
            self.kept.append(x)

    def draws(self, wanted: int, calls: int, done: float, step: Tensor) -> Draws:
        """The draws so far: draw s is state s // chains of chain s % chains."""
        count = len(self.trace)
        x = torch.cat(self.kept)[:wanted]
        centre = self.total / count
        trace = torch.stack(self.trace)
        diagnostics = {
            "acceptance": torch.stack(self.chance).mean(0),
            "step_size": step,
            "r_hat": split_r_hat(trace),
            "effective_sample_size": effective_sample_size(trace),
        }
        return Draws(
            x,
            HMC.name,
            exact=True,
            network_calls=calls,
            done=done,
            diagnostics=diagnostics,
            centre=centre.to(x),
            spread=(self.square / count - centre.square()).clamp_min(0.0).sqrt().to(x),
        )
