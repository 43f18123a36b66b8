"""How wide each method's posterior is, over the true one, where everything is known (../shared/field/inverse.md, 4.1).

x ~ N(0, S) in 8 dimensions with S_ij = .9^|i - j|, entries 0, 3 and 5 observed with sigma = .05, the exact denoiser in
place of a network, 4,000 draws. A method is judged by the ratio of its standard deviations to the exact ones, averaged
over the observed and the unobserved entries, and by the bias of its mean. Beside them stand the ratios printed before,
by other code that is lost. That code's conventions were searched for, so that agreement is a reconstruction and no
independent confirmation: the observed entries among all 56 triples, by the two ratios of DiffPIR; the levels, Euler and
Langevin steps, rates and forms of DAPS among some 1,300 settings, by their ratios in closed form (lines marked
"searched": 50 Langevin steps where 100 are published, and rate 1e-3 with tau = sigma); the walk of MMPS among five.
Of DPS nothing was searched once the entries were fixed. As published, DAPS's loop does not give the printed ratios.

The errors are the jackknife's over 20 blocks of draws; the printed ratios have as many draws and so about the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness import Figure, Options, record
from oneprior.core import Rows
from oneprior.inference import (
    DAPS,
    DDNM,
    DPS,
    MMPS,
    ClosedForm,
    DiffPIR,
    Guided,
    IsotropicCovariance,
    JacobianCovariance,
    LangevinDAPS,
    LatentDAPS,
    REDDiff,
    ReSample,
    Sampler,
    bayes,
    exact_posterior,
)
from oneprior.inference.guidance import Langevin
from oneprior.inference.guidance.walk import DDPM, table_grid
from oneprior.inference.noise.randomise_then_optimise import RandomiseThenOptimise
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators.mask import Mask
from oneprior.priors.diffusion.samplers import Ancestral
from oneprior.priors.diffusion.schedule import Schedule
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser

CLAIM = "Deviations of every method's draws over the exact ones, on a Gaussian with an exact denoiser."
OBSERVED, SIGMA, RHO = (0, 3, 5), 0.05, 0.9
BLOCKS = 20
TABLE = "the DDPM table"
_EDM = EDMSchedule(sigma_max=100.0)


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Args:
        name: of the method and its setting.
        sampler: it.
        printed: ratios printed before, (observed, unobserved), where there are any.
        setting: "exact", "published", "ours", or "searched" for what the printed ratios belong to.
        schedule: of the denoiser.
    """

    name: str
    sampler: Sampler
    printed: tuple[float, float] | None = None
    setting: str = "published"
    schedule: Schedule = _EDM


def entries() -> list[Entry]:
    """All methods, exact ones first."""
    walk = Ancestral(1000, table_grid(1000))

    def langevin(tau: float | None, divisor: float, rate: float, steps: int) -> Sampler:
        return LangevinDAPS(Langevin(tau=tau, divisor=divisor, rate=rate, steps=steps), 200)

    return [
        Entry("exact", ClosedForm(), (0.99, 1.00), "exact"),
        Entry("randomise, then optimise", RandomiseThenOptimise(), (1.00, 1.00), "exact"),
        Entry("daps, data covariance, 50 levels (default)", DAPS(), setting="ours"),
        Entry("daps, data covariance, 5 levels", DAPS(steps=5), setting="ours"),
        Entry("latent daps, 25 levels (default)", LatentDAPS(), setting="ours"),
        Entry("daps, isotropic, 50 levels", DAPS(covariance=IsotropicCovariance()), setting="ours"),
        Entry(f"mmps, data covariance, 1000 steps of {TABLE}", Guided(MMPS(), walk), (0.93, 0.98), "searched", DDPM),
        Entry("mmps, data covariance, 1000 Karras steps", Guided(MMPS(), Ancestral(1000)), setting="ours"),
        Entry("mmps, data covariance, 50 steps (default)", Guided(), setting="ours"),
        Entry("mmps, Jacobian, 1 product, 100 steps (published)", Guided.published()),
        Entry(
            "mmps, Jacobian, 5 products, 100 steps", Guided(MMPS(JacobianCovariance()), Ancestral(100)), setting="ours"
        ),
        Entry(
            "daps, langevin, InverseBench, 50 Langevin steps", langevin(0.01, 2.0, 1e-4, 50), (1.01, 0.93), "searched"
        ),
        Entry("daps, langevin, InverseBench, 100 (published)", LangevinDAPS.published(2.0)),
        Entry("daps, langevin, repository, 50 Langevin steps", langevin(0.01, 1.0, 1e-4, 50), (0.46, 0.93), "searched"),
        Entry("daps, langevin, repository, 100 (published)", LangevinDAPS.published()),
        Entry("daps, langevin, tau = sigma, rate 1e-3, 50", langevin(None, 2.0, 1e-3, 50), (2.18, 1.02), "searched"),
        Entry("dps, zeta .3 (published)", DPS.published(), (1.87, 0.92)),
        Entry("dps, zeta 1", DPS.published(1.0), (4.57, 0.90), "published"),
        Entry("dps, noise level, 100 steps (default)", DPS(), setting="ours"),
        Entry("diffpir, lambda 8, zeta .3 (published)", DiffPIR.published(), (2.38, 1.25)),
        Entry("diffpir, lambda 8, zeta 1", DiffPIR.published(zeta=1.0), (1.75, 0.77)),
        Entry("diffpir, noise level (default)", DiffPIR(), setting="ours"),
        Entry("ddnm (published)", DDNM.published()),
        Entry("ddnm (default)", DDNM(), setting="ours"),
        Entry("red-diff, 100 steps (published; a point)", REDDiff.published(100)),
        Entry("red-diff, noise level (default; a point)", REDDiff(), setting="ours"),
        Entry("resample (default)", ReSample(), setting="ours"),
    ]


def problem() -> tuple[LowRankGaussian, GaussianLikelihood]:
    """The law and one measurement of it."""
    place = torch.arange(8)
    values, vectors = torch.linalg.eigh(RHO ** (place[:, None] - place).abs().double())
    least = float(values[0])
    law = LowRankGaussian(torch.zeros(1, 8), vectors[:, 1:].float(), (values[1:] - least).float(), least)
    keep = torch.zeros(8, dtype=torch.bool)
    keep[list(OBSERVED)] = True
    operator = Mask(keep, (1, 8))
    y = operator(law.sample(Rows(1, seed=3))) + SIGMA * Rows(1, seed=4).normal(len(OBSERVED))
    return law, GaussianLikelihood(y, operator, SIGMA)


def ratios(x: Tensor, exact: Tensor) -> tuple[list[float], list[float]]:
    """Mean ratio over the observed and the unobserved entries of draws (S, 8), and their jackknife errors."""
    seen = torch.zeros(8, dtype=torch.bool)
    seen[list(OBSERVED)] = True

    def both(part: Tensor) -> Tensor:
        ratio = part.std(0) / exact
        return torch.stack([ratio[seen].mean(), ratio[~seen].mean()])

    block = torch.arange(len(x)) % BLOCKS
    left = torch.stack([both(x[block != k]) for k in range(BLOCKS)])
    error = ((left - left.mean(0)).square().sum(0) * (BLOCKS - 1) / BLOCKS).sqrt()
    return both(x).tolist(), error.tolist()


def run(options: Options) -> None:
    """Measure all, and compare with what was printed."""
    draws = 200 if options.quick else 4000
    law, likelihood = problem()
    reference = exact_posterior(law, likelihood)
    exact, centre = reference.covariance_diag()[0].flatten().sqrt().double(), reference.mean()[0].flatten().double()
    table, figures, gaps = [], {}, []
    for entry in entries():
        start = time.perf_counter()
        prior = law if isinstance(entry.sampler, RandomiseThenOptimise) else ClosedFormDenoiser(law, entry.schedule)
        done = entry.sampler(bayes(prior, likelihood), draws, Rows(1, seed=7))
        x = done.x[:, 0].flatten(1).double()
        ratio, error = ratios(x, exact)
        bias = float(((x.mean(0) - centre) / exact).square().mean().sqrt())
        printed = entry.printed or (None, None)
        if entry.printed:
            gaps += [(a - b) / (2**0.5 * e) for a, b, e in zip(ratio, entry.printed, error, strict=True)]
        table.append(
            {
                "method": entry.name,
                "setting": entry.setting,
                "observed": ratio[0],
                "error": error[0],
                "printed": printed[0],
                "unobserved": ratio[1],
                "error of unobserved": error[1],
                "printed unobserved": printed[1],
                "bias of the mean, deviations": bias,
                "calls a draw": done.network_calls / draws,
                "seconds": time.perf_counter() - start,
            }
        )
    worst = max(abs(gap) for gap in gaps)
    within = sum(abs(gap) < 2 for gap in gaps) / len(gaps)
    figures["share of printed ratios within two standard errors"] = Figure(within, target=(">=", 0.8))
    figures["largest gap to a printed ratio, standard errors"] = Figure(worst, target=("<=", 3.5))
    record(
        "posterior_ratios",
        figures,
        options,
        table=table,
        claim=CLAIM,
        draws=draws,
        conventions={
            "covariance": "rho^|i - j|, rho .9",
            "observed": OBSERVED,
            "mmps, dps, diffpir": "the 1,000 (100) steps of the linear DDPM table in variance-preserving coordinates",
            "daps": "200 levels from 100 to .1 with rho 7, 5 Euler steps, rate 1e-4 falling linearly to 1 %, "
            "50 Langevin steps; with tau = sigma rate 1e-3",
        },
    )
