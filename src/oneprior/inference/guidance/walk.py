"""What the guided walks share: the schedule that a paper walks on, the watch for divergence, and the state they yield.

A method written for x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise takes steps in those coordinates, and a gradient step
changes where they do. So a walk names its schedule, and a prior that was trained on another one is spoken to in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oneprior.core import DivergedError
from oneprior.inference.posterior import Draws, Posterior
from oneprior.priors.diffusion.rescheduled import Rescheduled
from oneprior.priors.diffusion.samplers import Grid
from oneprior.priors.diffusion.schedule import DenoisingPrior, Schedule
from oneprior.priors.diffusion.schedules import LinearSchedule

DDPM = LinearSchedule()
"""The 1,000 steps that the papers of 2022 and 2023 walk on."""


def table_grid(steps: int) -> Grid:
    """`steps` of the 1,000 of `DDPM`, evenly spread from the last to the first."""
    index = torch.linspace(999, 0, steps, dtype=torch.float64).round()
    return Grid(times=tuple((index / 999).tolist()))


def on_schedule(prior: DenoisingPrior, schedule: Schedule | None) -> DenoisingPrior:
    """The prior, spoken to in a schedule; in its own for None."""
    return prior if schedule is None or schedule == prior.schedule else Rescheduled(prior, schedule)


def watched(x: Tensor, method: str, step: int, n: int) -> Tensor:
    """x, known to be finite.

    Args:
        x: (draws * n, ...), draw-major.
        method: its name, for the error.
        step: of the walk.
        n: number of problems.

    Raises:
        DivergedError: names the step and the problems.
    """
    if bool(torch.isfinite(x).all()):
        return x
    bad = (~torch.isfinite(x.flatten(1))).any(1).nonzero().flatten() % n
    raise DivergedError(
        f"{method}: rows {sorted(set(bad.tolist()))} are not finite at step {step}: give a noise level nearer to the "
        "measurement's own, or look whether operator and measurement belong together"
    )


@dataclass(frozen=True)
class Tally:
    """Turns a walk's rows into states that say what was truly called.

    Args:
        posterior: of one draw each.
        draws: of every problem.
        method: its name.
    """

    posterior: Posterior
    draws: int
    method: str

    @property
    def decoding(self) -> bool:
        """Whether a network stands between the prior and x, so that looking at y calls it."""
        return not self.posterior.affine

    def state(self, z: Tensor, denoised: int, looked: int, done: float, **diagnostics: Any) -> Draws:
        """The draws so far, of a method that does not claim to be exact.

        Args:
            z: (draws * n, *shape of z), draw-major.
            denoised: calls of the denoiser made for each row.
            looked: evaluations of the likelihood made for each row: calls of the decoder, where there is one.
            done: the finished share.
            diagnostics: what the method says of itself.
        """
        posterior, rows = self.posterior, self.draws * self.posterior.n
        decoded = looked + 1 if self.decoding else 0  # and once for the draw itself
        return Draws(
            posterior.events(z.detach().unflatten(0, (self.draws, posterior.n))),
            self.method,
            exact=False,
            network_calls=(denoised + decoded) * rows,
            done=done,
            diagnostics={"denoiser_calls": denoised * rows, "decoder_calls": decoded * rows, **diagnostics},
        )
