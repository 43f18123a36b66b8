"""The noise road: inference of the base noise u of x = decode(u), for every family whose noise is continuous."""

from oneprior.inference.noise.diagnostics import effective_sample_size, split_r_hat
from oneprior.inference.noise.elliptical_slice import EllipticalSlice
from oneprior.inference.noise.hmc import HMC

__all__ = ["HMC", "EllipticalSlice", "effective_sample_size", "split_r_hat"]
