"""Continuous latents of a run, searched in a trust region.

For a vae these are the means that its encoder gives; for a gan, a diffusion or a ppca the noise that it is made of,
which no event of the data is known to have: such a campaign learns from its own candidates alone, and begins with draws
of the prior.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference.search.objective import Goal
from oneprior.inference.search.trust_region import region_length, trust_region
from oneprior.priors.base import NoisePrior
from oneprior.tasks.campaign.latents import Known, Latents, Proposal, Proposals
from oneprior.tasks.campaign.settings import Settings
from oneprior.training import Run

_ROWS = 64
_FEWEST = 10
"""Scored points before a process is fitted to them."""
_TRIED = 8
"""Candidates for each that is wanted, where some may break a rule."""


class NoiseSpace(Latents):
    """The noise that a run is a map of.

    Args:
        run: of a family whose noise is continuous.

    Raises:
        IncompatiblePrior: for one whose latents are codes.
    """

    def __init__(self, run: Run) -> None:
        law = run.model.surface() or run.prior()
        if not isinstance(law, NoisePrior):
            raise IncompatiblePrior(
                f"{run.name} is a {run.family}, whose latents are neither codes nor "
                "continuous noise: take a vqvae, vae, gan, diffusion or ldm"
            )
        self.run, self.law = run, law
        self.numbers = law.noise_shape.numel()
        sample = torch.zeros(1, *run.event_shape, device=run.model.device)
        self.encodes = run.model.latents(sample) is not None

    def check(self, settings: Settings) -> None:
        super().check(settings)
        usual = Settings()
        for name in ("radius", "apart", "distance", "spread", "realism", "own_share"):
            if getattr(settings, name) != getattr(usual, name):
                flag = f"--{name.replace('_', '-')}"
                raise IncompatiblePrior(f"a {self.run.family} is searched by a trust region: {flag} needs a vqvae")

    def encode(self, x: Tensor) -> np.ndarray:
        parts = [self.run.model.latents(part.to(self.run.model.device)) for part in x.split(_ROWS)]
        found = [part.flatten(1) for part in parts if part is not None]
        if not found:
            return np.full((len(x), self.numbers), np.nan)
        return torch.cat(found).double().cpu().numpy()

    def decode(self, points: np.ndarray) -> Tensor:
        u = torch.from_numpy(points).float().to(self.law.device).reshape(-1, *self.law.noise_shape)
        with torch.no_grad():
            return torch.cat([self.law.decode(part) for part in u.split(_ROWS)]).clamp(-1, 1).cpu()

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        """Of points under N(0, I), in nats, (n,)."""
        return -0.5 * (np.square(points).sum(1) + self.numbers * math.log(2 * math.pi))

    def propose(self, known: Known, settings: Settings, number: int, count: int) -> Proposals:
        there = np.isfinite(known.points).all(1)
        more = count * _TRIED if known.admission else count
        points, scores = known.points[there], known.scores[there]
        if len(points) < _FEWEST:
            drawn = Rows(more, seed=settings.seed, stream=f"round {number}").normal(self.numbers)
            found = drawn.double().numpy()
            prediction = np.full(more, float(scores.mean()) if len(scores) else math.nan)
            told, status = {"r2": math.nan, "error": math.nan, "trees": 0, "points": len(points), "passed": 0}, "drawn"
        else:
            length = region_length(known.rounds, count, self.numbers)
            region = trust_region(
                points, known.goal(scores), more, length, np.random.default_rng([settings.seed, number])
            )
            found, prediction = region.points, self._score(region.prediction, known.goal)
            told = {"r2": region.r2, "error": math.nan, "trees": 0, "points": region.used, "passed": 0}
            status = f"trust region of {length:.3g}"
        broken = known.admission.broken(self.decode(found))
        kept = [k for k, rule in enumerate(broken) if not rule][:count]
        refused = [(found[k], rule) for k, rule in enumerate(broken[: kept[-1] if kept else more]) if rule]
        told["refused"] = len(refused)
        apart = np.linalg.norm(found[:, None] - points[None], axis=2).min(1) if len(points) else np.full(more, np.inf)
        log_prob = self.log_prob(found)
        proposals = [
            Proposal(
                found[k], float(prediction[k]), math.inf, math.inf, status, float(apart[k]), float(log_prob[k]), True, 0
            )
            for k in kept
        ]
        return Proposals(proposals, told, refused)

    @staticmethod
    def _score(merit: np.ndarray, goal: Goal) -> np.ndarray:
        """Merits as scores; of a target the distance to it is known, and not on which side."""
        return goal.sign * merit if goal.target is None else goal.target + merit
