"""The noise road: inference of the base noise u of x = decode(u), for every family whose noise is continuous."""

from oneprior.inference.noise.curvature import Curvature, curvature
from oneprior.inference.noise.diagnostics import effective_sample_size, split_r_hat
from oneprior.inference.noise.elliptical_slice import EllipticalSlice
from oneprior.inference.noise.hmc import HMC
from oneprior.inference.noise.laplace import Laplace
from oneprior.inference.noise.lbfgs import Descent
from oneprior.inference.noise.map import MAP
from oneprior.inference.noise.randomise_then_optimise import RandomiseThenOptimise
from oneprior.inference.noise.smc import AnnealedSMC
from oneprior.inference.noise.target import Target
from oneprior.inference.noise.variational import Variational

__all__ = [
    "HMC",
    "MAP",
    "AnnealedSMC",
    "Curvature",
    "Descent",
    "EllipticalSlice",
    "Laplace",
    "RandomiseThenOptimise",
    "Target",
    "Variational",
    "curvature",
    "effective_sample_size",
    "split_r_hat",
]
