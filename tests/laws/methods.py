"""Every method with fast settings, and a small problem in the form that each takes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from oneprior.core import AffineMap, IncompatiblePrior, Rows
from oneprior.inference import (
    DAPS,
    DDNM,
    DPS,
    HMC,
    MAP,
    MMPS,
    AnnealedSMC,
    Blind,
    BlindDAPS,
    BlindGaussian,
    ClosedForm,
    DiffPIR,
    EllipticalSlice,
    Guided,
    JacobianCovariance,
    LangevinDAPS,
    Laplace,
    LatentDAPS,
    RandomiseThenOptimise,
    REDDiff,
    ReSample,
    Resampling,
    Sampler,
    Variational,
    bayes,
)
from oneprior.inference.guidance import Langevin
from oneprior.inference.noise.brgm import BRGM, BRGMVariational
from oneprior.inference.tokens import Annealing, Enumeration, Gibbs, Informed, Lookahead
from oneprior.inference.unknown_level import UnknownLevel
from oneprior.likelihoods.noise import UnknownNoise
from oneprior.operators import Operator, parse_operator
from oneprior.priors.base import Prior
from oneprior.priors.diffusion.samplers import Ancestral
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser
from oneprior.priors.pushforward import Pushforward
from oneprior.priors.tokens import TabularTokens
from oneprior.tasks import Measurement

SHAPE = torch.Size((1, 2, 4))
SCHEDULE = EDMSchedule(sigma_max=40.0)
FAST: dict[str, Sampler] = {
    "closed-form": ClosedForm(),
    "unknown-level": UnknownLevel(),
    "daps": DAPS(steps=4),
    "daps:published": LangevinDAPS(Langevin(2, 3), 4),
    "latent-daps": LatentDAPS(4),
    "moment-matching": Guided(sampler=Ancestral(steps=4)),
    "moment-matching:published": Guided(MMPS(JacobianCovariance(steps=1)), Ancestral(steps=4)),
    "dps": DPS(4),
    "dps:published": replace(DPS.published(), steps=4, grid=DPS(4).grid),
    "ddnm": DDNM(4),
    "diffpir": DiffPIR(4),
    "diffpir:published": replace(DiffPIR.published(), steps=4, grid=DiffPIR(4).grid),
    "red-diff": REDDiff(4),
    "red-diff:published": REDDiff.published(4),
    "resample": ReSample(4, 2, 3),
    "hmc": HMC(chains=2, warmup=4, leapfrog=3, thin=1, metric="laplace"),
    "hmc:published": HMC(chains=1, warmup=4, leapfrog=3, thin=1),
    "elliptical-slice": EllipticalSlice(chains=2, warmup=4, thin=1),
    "annealed-smc": AnnealedSMC(particles=16, settle=1),
    "randomise-then-optimise": RandomiseThenOptimise(candidates=4),
    "randomise-then-optimise:published": RandomiseThenOptimise(candidates=4, corrected=True),
    "laplace": Laplace(starts=2, candidates=4),
    "variational": Variational(steps=10),
    "mean-field": Variational(steps=10, family="mean-field"),
    "map": MAP(starts=2, candidates=4),
    "map-norm": MAP(starts=2, candidates=4, norm="sphere"),
    "brgm": BRGM(steps=4),
    "brgm-pytorch": BRGM("pytorch", steps=4),
    "brgm-variational": BRGMVariational(steps=4),
    "enumeration": Enumeration(),
    "gibbs": Annealing(particles=4, levels=4, moves=1, thin=1, move=Gibbs()),
    "informed": Annealing(particles=4, levels=4, moves=1, thin=1, move=Informed(sketch=4, block=4, refresh=3)),
    "annealed-codes": Annealing(particles=4, levels=4, moves=1, thin=1),
    "lookahead-codes": Lookahead(chains=4, rounds=2, warmup=2, thin=2),
    "resampling": Resampling(candidates=64),
    "blind": Blind(HMC(chains=2, warmup=4, leapfrog=3, thin=1)),
    "blind-gaussian": BlindGaussian(),
    "blind-daps": BlindDAPS(steps=4),
}


def law(dtype: torch.dtype = torch.float32) -> LowRankGaussian:
    """Anisotropic: variances 1.02, 0.42, 0.12 and 0.02 for the rest."""
    rows = Rows(8, seed=0)
    basis = torch.linalg.qr(rows.normal(3, dtype=torch.float64))[0].to(dtype)
    mean = 0.3 * rows.normal(1, dtype=torch.float64).to(dtype).reshape(SHAPE)
    return LowRankGaussian(mean, basis, torch.tensor([1.0, 0.4, 0.1], dtype=dtype), 0.02)


_WEIGHT = Rows(1, seed=8).normal(12, 8)[0]


def decoder(event: Tensor) -> Tensor:
    """Three codes on a 2 x 2 grid -> SHAPE."""
    return torch.tanh(0.7 * event.flatten(1) @ _WEIGHT.to(event)).reshape(-1, *SHAPE)


def codes() -> Pushforward:
    """81 grids with probabilities of their own."""
    return Pushforward(TabularTokens(Rows(1, seed=2).normal(3, 3, 3, 3)[0], (2, 2)), decoder, SHAPE)


def forms() -> tuple[Prior, ...]:
    """The same law as itself and as a denoiser, and one of codes."""
    return law(), ClosedFormDenoiser(law(), SCHEDULE), codes()


def instrument(name: str, words: str = "mask:left") -> Operator:
    """What the method called `name` restores from."""
    return parse_operator("unknown-blur:0.8" if name.startswith("blind") else words, SHAPE)


def measured(
    name: str, sigma: float = 0.2, n: int = 3, units: AffineMap | None = None, words: str = "mask:left"
) -> tuple[Prior, Measurement]:
    """A prior in the form that the method takes, and a measurement of n of its draws in these units."""
    units, operator = units or AffineMap(), instrument(name, words)
    for prior in forms():
        y = operator(units.to_units(prior.sample(Rows(n, seed=3))))
        y = y + sigma * units.scale * Rows(n, seed=4).normal(*operator.out_shape)
        noise = UnknownNoise(0.02 * units.scale, 2 * units.scale) if name == "unknown-level" else sigma * units.scale
        given = Measurement(y, operator, noise, units)
        try:
            FAST[name].check(bayes(prior, given.likelihood))
        except IncompatiblePrior:
            continue
        return prior, given
    raise AssertionError(f"no form of the problem serves {name}")
