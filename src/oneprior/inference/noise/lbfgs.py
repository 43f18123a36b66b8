"""Limited-memory BFGS for many problems at once, no row waiting for another (Liu and Nocedal 1989).

All rows are evaluated together, once a step. A row whose trial point lowers its objective enough (Armijo) takes it,
stores its own pair (s, y) and gets a new direction from its own history; any other row shortens its step by quadratic
interpolation and tries again at the next evaluation. A row that has converged, or cannot move any more, stands still.
Pairs of no positive curvature are not stored, so that every direction descends.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from oneprior.core import DivergedError

_ARMIJO = 1e-4
_FAILURES = 25


class Descent:
    """The state of a minimisation; `step` advances it.

    Args:
        objective: (N, d) -> values (N,) and gradients (N, d), each row on its own.
        u: where to start, (N, d).
        name: of the method, for errors.
        n: number of problems; row i belongs to problem i % n.
        history: pairs kept for each row.
        tolerance: a row stops when no entry of its gradient is larger; the objective is in nats.
        whitened: whether the Hessian is near the identity, so that the first step is the gradient itself.

    Raises:
        DivergedError: where the objective is not finite at the start, or `step` finds no finite value any more.
    """

    def __init__(
        self,
        objective: Callable[[Tensor], tuple[Tensor, Tensor]],
        u: Tensor,
        name: str,
        n: int,
        *,
        history: int = 10,
        tolerance: float = 1e-4,
        whitened: bool = False,
    ) -> None:
        self.objective, self.name, self.n, self.tolerance = objective, name, n, tolerance
        self.u, self.count, self.whitened = u, 0, whitened
        self.value, self.slope = objective(u)
        self._finite_or_diverged(torch.isfinite(self.value) & torch.isfinite(self.slope).all(1))
        many, d = u.shape
        self._s, self._y = u.new_zeros(history, many, d), u.new_zeros(history, many, d)
        self._rho = u.new_zeros(history, many)
        self._direction = -self.slope
        self._length = self._first_length()
        self._failures = torch.zeros(many, dtype=torch.int64, device=u.device)
        self._stuck = torch.zeros(many, dtype=torch.bool, device=u.device)

    @property
    def converged(self) -> Tensor:
        """Which rows have a gradient within the tolerance, (N,)."""
        return self.slope.abs().amax(1) <= self.tolerance

    @property
    def resting(self) -> Tensor:
        """Which rows move no more, (N,)."""
        return self.converged | self._stuck

    def run(self, steps: int) -> Descent:
        """At most so many steps."""
        for _ in range(steps):
            if bool(self.resting.all()):
                break
            self.step()
        return self

    def step(self) -> None:
        """One evaluation of every row."""
        self.count += 1
        moving = ~self.resting
        length = torch.where(moving, self._length, 0.0)
        trial = self.u + length[:, None] * self._direction
        value, slope = self.objective(trial)
        finite = torch.isfinite(value) & torch.isfinite(slope).all(1)
        descent = (self.slope * self._direction).sum(1)
        slack = 4 * torch.finfo(value.dtype).eps * self.value.abs()
        taken = moving & finite & (value <= self.value + _ARMIJO * length * descent + slack)
        failed = moving & ~taken
        self._shorten(failed, finite, value, descent)
        self._remember(taken, trial - self.u, slope - self.slope)
        wide = taken[:, None]
        self.u, self.slope = torch.where(wide, trial, self.u), torch.where(wide, slope, self.slope)
        self.value = torch.where(taken, value, self.value)
        self._failures = torch.where(taken, 0, self._failures + failed)
        hopeless = self._failures >= _FAILURES
        self._finite_or_diverged(~(hopeless & ~finite & moving))
        empty = (self._rho != 0).sum(0) == 0
        self._stuck = self._stuck | (hopeless & empty)
        restart = hopeless & ~empty  # once more from the gradient alone
        self._rho = torch.where(restart, 0.0, self._rho)
        self._failures = torch.where(restart, 0, self._failures)
        fresh = taken | restart
        self._direction = torch.where(fresh[:, None], self._newton(), self._direction)
        start = restart | (fresh & ((self._rho != 0).sum(0) == 0))
        self._length = torch.where(fresh, 1.0, self._length)
        self._length = torch.where(start, self._first_length(), self._length)

    def _first_length(self) -> Tensor:
        """Steps along the gradient, of length 1 at most, until there is curvature to go by."""
        size = self.slope.norm(dim=1)
        return torch.ones_like(size) if self.whitened else 1 / size.clamp_min(1.0)

    def _shorten(self, failed: Tensor, finite: Tensor, value: Tensor, descent: Tensor) -> None:
        t = self._length
        excess = value - self.value - t * descent
        best = torch.where(finite & (excess > 0), -0.5 * descent * t * t / excess.clamp_min(1e-30), 0.1 * t)
        self._length = torch.where(failed, best.nan_to_num(0.0).clamp(0.1 * t, 0.5 * t), t)

    def _remember(self, taken: Tensor, s: Tensor, y: Tensor) -> None:
        """The pair of each row that moved, in place of its oldest."""
        along = (s * y).sum(1)
        good = taken & (along > 1e-8 * s.norm(dim=1) * y.norm(dim=1))
        if not bool(good.any()):
            return
        rho = torch.where(good, 1 / torch.where(good, along, 1.0), 0.0)
        wide = good[None, :, None]
        self._s = torch.where(wide, torch.cat([self._s[1:], s[None]]), self._s)
        self._y = torch.where(wide, torch.cat([self._y[1:], y[None]]), self._y)
        self._rho = torch.where(good[None], torch.cat([self._rho[1:], rho[None]]), self._rho)

    def _newton(self) -> Tensor:
        """-B g by the two loops (Nocedal and Wright 2006, algorithm 7.4)."""
        q = self.slope
        shares: list[Tensor] = []
        for k in reversed(range(len(self._rho))):
            share = self._rho[k] * (self._s[k] * q).sum(1)
            q = q - share[:, None] * self._y[k]
            shares.append(share)
        last = self._y[-1].square().sum(1)
        known = self._rho[-1] != 0
        scale = torch.where(known, 1 / torch.where(known, self._rho[-1] * last, 1.0), 1.0)
        r = q * scale[:, None]
        for k, share in zip(range(len(self._rho)), reversed(shares), strict=True):
            back = self._rho[k] * (self._y[k] * r).sum(1)
            r = r + (share - back)[:, None] * self._s[k]
        downhill = (r * self.slope).sum(1) > 0
        return -torch.where(downhill[:, None], r, self.slope)

    def _finite_or_diverged(self, fine: Tensor) -> None:
        if not bool(fine.all()):
            bad = sorted({i % self.n for i in (~fine).nonzero().flatten().tolist()})
            raise DivergedError(f"{self.name}: the log density of rows {bad} is not finite at step {self.count}")
