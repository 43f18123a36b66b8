"""Samplers of a denoising prior, one paper a file; see `base` for what they share."""

from oneprior.priors.diffusion.samplers.ancestral import DDIM, Ancestral
from oneprior.priors.diffusion.samplers.base import DiffusionSampler, Grid, Path, State
from oneprior.priors.diffusion.samplers.dpm_solver import DPMSolver
from oneprior.priors.diffusion.samplers.heun import Heun

__all__ = ["DDIM", "Ancestral", "DPMSolver", "DiffusionSampler", "Grid", "Heun", "Path", "State", "default_sampler"]


def default_sampler(steps: int = 18) -> DiffusionSampler:
    """What `DenoisingPrior.sample` uses: DPM-Solver++(2M) with `steps` network calls."""
    return DPMSolver(steps=steps)
