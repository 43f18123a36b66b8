"""What is left of a posterior where the noise is very large or very small.

sigma -> infinity gives the prior. Exempt, for they are no posteriors at any noise: points (map, map-norm, red-diff,
brgm), DiffPIR, whose denoised mean is noised again, so that its walk is narrower than the prior, DDNM, which takes the
noise that y brings for the noise of its own steps, so that for one y there is none, and BRGM's variational samples,
which never read the noise level. Mean-field has the prior's own width here, and is not exempt.

sigma -> 0 with an invertible instrument gives the inversion, for priors with density everywhere; and for x = G(z) the z
that minimises |A G(z) - y|. Exempt: those that never read the noise level (brgm; DPS, DAPS and RED-diff as published),
and ReSample, whose optimiser stops at a number of steps.
"""

import pytest
import torch
from laws.methods import SCHEDULE, SHAPE, codes, law

from oneprior.core import IncompatiblePrior, Rows
from oneprior.inference import (
    DAPS,
    DDNM,
    DPS,
    HMC,
    MAP,
    MMPS,
    AnnealedSMC,
    ClosedForm,
    DiffPIR,
    EllipticalSlice,
    Guided,
    JacobianCovariance,
    Laplace,
    LatentDAPS,
    RandomiseThenOptimise,
    ReSample,
    Resampling,
    Variational,
    bayes,
)
from oneprior.inference.tokens import Annealing, Enumeration, Gibbs, Informed, Lookahead
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import Affine, Identity, Matrix, parse_operator
from oneprior.priors.base import StandardNormal
from oneprior.priors.diffusion.samplers import Ancestral
from oneprior.priors.mixture import ClosedFormDenoiser
from oneprior.priors.pushforward import push
from oneprior.tasks.methods import METHODS

DOUBLE = torch.float64
NATIVE = {
    "daps": DAPS(steps=6),
    "latent-daps": LatentDAPS(6),
    "resample": ReSample(60),
}
WALKS = {
    "moment-matching": Guided(sampler=Ancestral(steps=8)),
    "moment-matching:published": Guided(MMPS(JacobianCovariance(steps=1)), Ancestral(steps=8)),
    "dps": DPS(8),
}
"""Of the prior's own ancestral steps, whose error in few steps is not theirs: compared with the walk itself."""
NOISE = {
    "hmc": HMC(chains=40, warmup=30, leapfrog=6, thin=1, metric="laplace"),
    "elliptical-slice": EllipticalSlice(chains=40, warmup=5, thin=3),
    "annealed-smc": AnnealedSMC(particles=1000),
    "randomise-then-optimise": RandomiseThenOptimise(candidates=4),
    "laplace": Laplace(starts=2, candidates=4),
    "variational": Variational(steps=40),
    "mean-field": Variational(steps=40, family="mean-field"),
    "closed-form": ClosedForm(),
    "resampling": Resampling(candidates=1000, batch=500),
}
EXEMPT = {"ddnm", "map", "map-norm", "red-diff", "diffpir", "brgm", "brgm-pytorch", "brgm-variational"}
TOKENS = {
    "enumeration": Enumeration(),
    "gibbs": Annealing(levels=3, moves=1, thin=1, move=Gibbs()),
    "informed": Annealing(levels=3, moves=1, thin=1, move=Informed(sketch=4, block=4, refresh=3)),
    "lookahead-codes": Lookahead(rounds=2, warmup=4, thin=2),
}


def test_no_method_is_missing():
    tested = {name.partition(":")[0] for name in (*NATIVE, *WALKS, *NOISE, *TOKENS, *EXEMPT)}
    assert tested | {"annealed-codes", "blind", "blind-gaussian", "blind-daps", "unknown-level"} == set(METHODS)


@pytest.mark.parametrize("name", [*NATIVE, *NOISE])
def test_much_noise_gives_the_prior(name):
    prior = ClosedFormDenoiser(law(), SCHEDULE) if name in NATIVE else law()
    operator = parse_operator("mask:left", SHAPE)
    likelihood = GaussianLikelihood(torch.full((1, *operator.out_shape), 3.0), operator, 1e4)
    x = (NATIVE | NOISE)[name](bayes(prior, likelihood), 1000, Rows(1, seed=3)).x[:, 0].double()
    variance = law().covariance().diagonal().reshape(SHAPE).double()
    count = 500 if name == "resampling" else 1000  # 1,000 draws with replacement from 1,000
    assert ((x.mean(0) - law().mean) / (variance / count).sqrt()).abs().max() < 4.5
    assert ((x.var(0) / variance - 1) / (2 / count) ** 0.5).abs().max() < 4.5


@pytest.mark.parametrize("name", WALKS)
def test_much_noise_gives_the_walk_without_guidance(name):
    prior, operator = ClosedFormDenoiser(law(), SCHEDULE), parse_operator("mask:left", SHAPE)
    likelihood = GaussianLikelihood(torch.full((1, *operator.out_shape), 3.0), operator, 1e5)
    found = WALKS[name](bayes(prior, likelihood), 2000, Rows(1, seed=3)).x[:, 0]
    alone = Ancestral(steps=8)(prior, Rows(2000, seed=4))
    width = alone.std(0)
    assert ((found.mean(0) - alone.mean(0)) / width).abs().max() < 4.5 / 1000**0.5
    assert (found.std(0) / width - 1).abs().max() < 4.5 / 2000**0.5


@pytest.mark.parametrize("name", TOKENS)
def test_much_noise_gives_the_prior_over_codes(name):
    prior, operator = codes(), parse_operator("mask:left", SHAPE)
    likelihood = GaussianLikelihood(torch.full((20, *operator.out_shape), 3.0), operator, 1e4)
    x = TOKENS[name](bayes(prior, likelihood), 40, Rows(20, seed=3)).x.double()
    truth = prior.sample(Rows(4000, seed=9)).double()
    means = x.mean(0)  # of 20 independent problems
    error = (means.var(0) / 20 + truth.var(0) / 4000).sqrt()
    assert ((means.mean(0) - truth.mean(0)) / error).abs().max() < 5  # Student's t with 19 degrees of freedom


# No noise -----------------------------------------------------------------------------------------------------------

BLUR = parse_operator("blur:gaussian:0.5", SHAPE)


@pytest.mark.parametrize("operator", [Identity(SHAPE), BLUR], ids=["identity", "blur"])
@pytest.mark.parametrize(
    "sampler",
    [ClosedForm(), DAPS(steps=4), LatentDAPS(4, products=12), Guided(sampler=Ancestral(steps=6)), DDNM(6), DiffPIR(6)],
    ids=lambda s: s.name,
)
def test_no_noise_and_an_invertible_instrument_give_the_inversion(sampler, operator):
    prior = law() if isinstance(sampler, ClosedForm) else ClosedFormDenoiser(law(), SCHEDULE)
    x = 0.5 * Rows(3, seed=3).normal(*SHAPE)  # not of the prior, which has density everywhere
    found = sampler(bayes(prior, GaussianLikelihood(operator(x), operator, 0.0)), 2, Rows(3, seed=1))
    assert (found.x - x).abs().max() < (1e-2 if isinstance(sampler, LatentDAPS) else 2e-3)  # its least noise is 1e-3


@pytest.mark.parametrize(
    "sampler",
    [
        MAP(starts=2, candidates=4, steps=300),
        Laplace(starts=2, candidates=4),
        RandomiseThenOptimise(candidates=4),
        RandomiseThenOptimise(candidates=4, corrected=True),
        Variational(steps=20),
        HMC(chains=2, warmup=40, leapfrog=4, thin=1, metric="laplace"),
        AnnealedSMC(particles=32),
    ],
    ids=lambda s: f"{s.name}{'-corrected' if getattr(s, 'corrected', False) else ''}",
)
def test_little_noise_gives_the_latent_that_fits_best(sampler):
    """x = W z + c with fewer latents than pixels: no z fits, and the best is that of least squares."""
    W, c = Rows(1, seed=1).normal(8, 3, dtype=DOUBLE)[0], Rows(1, seed=2).normal(*SHAPE, dtype=DOUBLE)[0]
    prior = push(StandardNormal((3,)), Affine(Matrix(W, (3,), SHAPE), c), SHAPE)
    operator = parse_operator("blur:gaussian:0.5", SHAPE)
    y = Rows(2, seed=3).normal(*SHAPE, dtype=DOUBLE)
    found = sampler(bayes(prior, GaussianLikelihood(y, operator, 1e-3)), 4, Rows(2, seed=1))
    z = torch.linalg.lstsq(operator.dense() @ W, (y - operator(c[None])).flatten(1).T).solution
    best = (W @ z).T.reshape(2, *SHAPE) + c
    assert (found.x - best).abs().max() < 2e-2


def test_no_noise_behind_a_linear_decoder_is_least_squares():
    W = Rows(1, seed=1).normal(8, 3, dtype=DOUBLE)[0]
    prior = push(StandardNormal((3,)), Affine(Matrix(W, (3,), SHAPE), torch.zeros(SHAPE, dtype=DOUBLE)), SHAPE)
    y = Rows(2, seed=3).normal(*SHAPE, dtype=DOUBLE)
    found = ClosedForm()(bayes(prior, GaussianLikelihood(y, Identity(SHAPE), 0.0)), 2, Rows(2, seed=1))
    best = (W @ torch.linalg.lstsq(W, y.flatten(1).T).solution).T.reshape(2, *SHAPE)
    assert (found.x - best).abs().max() < 1e-4


@pytest.mark.parametrize(
    "sampler",
    [ClosedForm(), DAPS(steps=4), LatentDAPS(4, products=12), Guided(sampler=Ancestral(steps=6)), DDNM(6), DiffPIR(6)],
    ids=lambda s: s.name,
)
def test_known_pixels_are_kept_without_noise(sampler):
    prior = law() if isinstance(sampler, ClosedForm) else ClosedFormDenoiser(law(), SCHEDULE)
    operator = parse_operator("mask:random:0.5:seed=2", SHAPE)
    y = operator(0.5 * Rows(3, seed=3).normal(*SHAPE))
    found = sampler(bayes(prior, GaussianLikelihood(y, operator, 0.0)), 2, Rows(3, seed=1))
    for draw in found.x:
        assert (operator(draw) - y).abs().max() < (5e-3 if isinstance(sampler, LatentDAPS) else 1e-5)
    assert found.x.std(0).amax() > 0.01  # and the others are drawn


@pytest.mark.parametrize("name", NOISE)
def test_a_constraint_is_refused_where_a_density_is_needed(name):
    likelihood = GaussianLikelihood(torch.zeros(1, *SHAPE), Identity(SHAPE), 0.0)
    if name == "closed-form":
        return
    with pytest.raises(IncompatiblePrior, match="noise level of 0"):
        NOISE[name].check(bayes(law(), likelihood))
