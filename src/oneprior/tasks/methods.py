"""Which method restores: a table over (what the prior is, what the evidence is, what the user wants).

| what is left after peeling | evidence | fast | best | calibrated |
|---|---|---|---|---|
| Gaussian, mixture, or a denoiser made of one | linear, Gaussian noise | closed form | closed form | closed form |
| the same | linear, Gaussian noise of unknown level | closed form, level drawn | the same | the same |
| denoiser that knows its data's covariance | linear, Gaussian noise | moment matching 20 | 40 | daps 30 |
| denoiser, for denoising, or knowing no covariance | linear, Gaussian noise | moment matching 20 | 40 | 30 |
| denoiser of tiles | linear, Gaussian noise | daps 20 | daps 40 | daps 30 |
| denoiser; a mixture as one | behind a decoder, nonlinear, other noise | latent daps 12 | 25 | 50 |
| map of Gaussian noise | differentiable, Gaussian noise | randomise, then optimise | hmc | hmc, longer |
| map of Gaussian noise | differentiable, other noise | hmc, shorter | hmc | hmc, longer |
| map of Gaussian noise | not differentiable | elliptical slice, shorter | elliptical slice | elliptical slice, longer |
| codes, few enough to count | any with noise | enumeration | enumeration | enumeration |
| codes | differentiable, Gaussian noise | lookahead codes | and chains | and longer chains |
| codes | other | annealed codes | annealed codes | annealed codes |
| anything else | any with noise | resampling of 256 draws | of 4,096 | of 4,096 |

An instrument with unknown numbers is inferred together with the image (`inference.blind_choice`). HMC moves in the
metric of a mode (`HMC(metric="laplace")`). The aim sets how much work is done and which of two good methods does it,
nothing else: no method is tuned to a task; the noise level does the work. Moment matching has the smaller error, and
deviations some tenths too small; DAPS is a little behind it, and honest. Both draw in mirrored pairs for "fast" and
"best", whose mean is the more precise, and independently for "calibrated", as rank statistics need it. Every method can
be asked for by name, and `NAME:published` runs it with its paper's settings.

A guide is a Gaussian or a mixture fitted to the same data (`ppca`), which lends a denoiser its covariance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from oneprior.core import IncompatiblePrior, InputError
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
    Laplace,
    LatentDAPS,
    Posterior,
    RandomiseThenOptimise,
    REDDiff,
    ReSample,
    Resampling,
    Sampler,
    TiledCovariance,
    Variational,
    covariance_of,
)
from oneprior.inference.blind import uncertain_operator
from oneprior.inference.blind_choice import choose_blind
from oneprior.inference.noise.brgm import BRGM, BRGMVariational, Perceptual
from oneprior.inference.tokens import Annealing, Enumeration, Gibbs, Informed, Lookahead
from oneprior.inference.unknown_level import UnknownLevel
from oneprior.likelihoods import GaussianLikelihood, MeasuredLikelihood
from oneprior.operators.identity import Identity
from oneprior.operators.words import near
from oneprior.priors.base import NoisePrior, TokenPrior
from oneprior.priors.diffusion.samplers import Ancestral
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.priors.tiled import TiledDenoiser

Aim = Literal["fast", "best", "calibrated"]
Guide = LowRankGaussian | GaussianMixturePrior


@dataclass(frozen=True)
class Method:
    """A method by name.

    Args:
        default: with our settings.
        published: makes it with its paper's; None where there is no paper to follow.
        meaning: what it is, for help pages.
    """

    default: Sampler
    published: Callable[[], Sampler] | None = None
    meaning: str = ""


METHODS: dict[str, Method] = {
    "closed-form": Method(ClosedForm(), None, "exact, for Gaussians and mixtures under linear instruments"),
    "unknown-level": Method(UnknownLevel(), None, "exact too where the noise level is unknown"),
    "daps": Method(DAPS(), DAPS.published, "draw a clean event, noise it again (Zhang et al. 2024)"),
    "latent-daps": Method(LatentDAPS(), LatentDAPS.published, "the same behind a decoder, or under any noise"),
    "moment-matching": Method(Guided(), Guided.published, "the guided denoiser (Rozet et al. 2024, MMPS)"),
    "dps": Method(DPS(), DPS.published, "Chung et al. 2023"),
    "ddnm": Method(DDNM(), DDNM.published, "Wang, Yu, Zhang 2023, DDNM+"),
    "diffpir": Method(DiffPIR(), DiffPIR.published, "Zhu et al. 2023"),
    "red-diff": Method(REDDiff(), REDDiff.published, "Mardani et al. 2023; one answer, repeated"),
    "resample": Method(ReSample(), ReSample.published, "Song et al. 2024, for latent diffusion"),
    "hmc": Method(HMC(metric="laplace"), HMC.published, "Hamiltonian Monte Carlo on the base noise"),
    "elliptical-slice": Method(EllipticalSlice(), EllipticalSlice.published, "without gradients (Murray et al. 2010)"),
    "annealed-smc": Method(AnnealedSMC(), AnnealedSMC.published, "particles, for several modes; gives the evidence"),
    "randomise-then-optimise": Method(
        RandomiseThenOptimise(), RandomiseThenOptimise.published, "one optimisation a draw (Bardsley et al. 2014)"
    ),
    "laplace": Method(Laplace(), Laplace.published, "the Gaussian at the mode"),
    "variational": Method(Variational(), Variational.published, "a low-rank Gaussian by its evidence bound"),
    "mean-field": Method(Variational(family="mean-field"), None, "an independent Gaussian by its evidence bound"),
    "map": Method(MAP(), MAP.published, "the mode; one answer, repeated"),
    "map-norm": Method(MAP(norm="sphere"), None, "the best noise of typical norm (PULSE: Menon et al. 2020)"),
    "brgm": Method(BRGM(), BRGM.published, "Marinescu et al. 2021, the TensorFlow program"),
    "brgm-pytorch": Method(BRGM("pytorch"), lambda: BRGM.published("pytorch"), "the same, the PyTorch program"),
    "brgm-variational": Method(BRGMVariational(), BRGMVariational.published, "its variational samples, as published"),
    "enumeration": Method(Enumeration(), None, "exact, where all grids of codes can be counted"),
    "gibbs": Method(Annealing(move=Gibbs()), None, "cooling, then codes one by one from their exact conditionals"),
    "informed": Method(
        Annealing(move=Informed()), None, "cooling, then many codes at once by gradients (Zanella 2020)"
    ),
    "annealed-codes": Method(Annealing(), Annealing.published, "cooling particles of codes; gives the evidence"),
    "lookahead-codes": Method(Lookahead(), None, "codes drawn with the measurement in view, then exact chains"),
    "resampling": Method(Resampling(), None, "prior draws by weight; serves every prior, badly"),
    "blind": Method(Blind(), None, "image and instrument together, on the noise road"),
    "blind-gaussian": Method(BlindGaussian(), None, "the instrument with the image integrated out"),
    "blind-daps": Method(BlindDAPS(), BlindDAPS.published, "image and instrument in turn, for denoisers"),
}
_WORK: Mapping[str, Mapping[Aim, dict[str, Any]]] = {
    "daps": {
        "fast": {"steps": 20, "mirrored": True},
        "best": {"steps": 40, "mirrored": True},
        "calibrated": {"steps": 30},
    },
    "latent-daps": {
        "fast": {"steps": 12, "mirrored": True},
        "best": {"steps": 25, "mirrored": True},
        "calibrated": {"steps": 50},
    },
    "hmc": {
        "fast": {"warmup": 30, "leapfrog": 4, "thin": 2},
        "best": {"warmup": 40, "leapfrog": 5, "thin": 2},
        "calibrated": {"warmup": 80, "leapfrog": 6, "thin": 4},
    },
    "lookahead-codes": {
        "fast": {"rounds": 4, "warmup": 0, "thin": 1},
        "best": {"warmup": 10, "thin": 10},
        "calibrated": {},
    },
    "elliptical-slice": {"fast": {"warmup": 100, "thin": 5}, "best": {}, "calibrated": {"warmup": 600, "thin": 40}},
    "resampling": {"fast": {"candidates": 256}, "best": {"candidates": 4096}, "calibrated": {"candidates": 4096}},
}
"""How much work each aim is, by method: the whole of what an aim sets."""
_FLOW: Mapping[Aim, int] = {"fast": 8, "best": 16, "calibrated": 16}  # steps of a denoiser's ODE on the noise road


def choose(
    posterior: Posterior,
    aim: Aim = "best",
    method: str | Sampler | None = None,
    guide: Guide | None = None,
) -> tuple[Posterior, Sampler]:
    """The method of the table, and the posterior in the form that it takes.

    Args:
        posterior: what is to be drawn from.
        aim: "fast", "best" or "calibrated".
        method: a name in `METHODS`, perhaps with ":published", or a sampler, in place of the table.
        guide: lends a denoiser its covariance; by default what the prior itself carries.

    Raises:
        InputError: for an unknown aim or method.
        IncompatiblePrior: where the method cannot serve the posterior, or none can.
    """
    if aim not in get_args(Aim):
        raise InputError(f"aim is fast, best or calibrated, got {aim!r}")
    if method is None:
        posterior = _denoised(posterior)
    sampler = named(method) if isinstance(method, str) else method or _from_table(posterior, aim, guide)
    if method is None or isinstance(method, str):
        sampler = _lend(sampler, guide)
    if NoisePrior in _kinds(sampler) and isinstance(posterior.prior, DenoisingPrior):
        posterior = replace(posterior, prior=posterior.prior.flow(_FLOW[aim]))
    sampler.check(posterior)
    return posterior, sampler


def on_surface(method: str | Sampler | None) -> bool:
    """Whether a method works on the decoder's surface alone, as its paper does, and takes no residual."""
    sampler = named(method) if isinstance(method, str) else method
    return isinstance(sampler, BRGM | BRGMVariational)


def looking(method: str | None, perceptual: Perceptual) -> Sampler:
    """A method of BRGM by name, with a perceptual distance in its objective.

    Raises:
        InputError: for any other method: no other looks at pictures.
    """
    sampler = None if method is None else named(method)
    if not isinstance(sampler, BRGM | BRGMVariational):
        asked = "the method of an aim" if method is None else repr(method)
        raise InputError(
            f"features are for the perceptual term of brgm, brgm-pytorch and brgm-variational, and {asked} has none: "
            "the likelihood is all that it compares pictures by"
        )
    return replace(sampler, perceptual=perceptual)


def named(words: str) -> Sampler:
    """The method of "daps" or "daps:published".

    Raises:
        InputError: for a name or settings that there are not.
    """
    name, colon, settings = words.partition(":")
    if name not in METHODS:
        raise InputError(f"no method is called {name!r}{near(name, METHODS)}")
    method = METHODS[name]
    if not colon or settings == "default":
        return method.default
    if settings != "published" or method.published is None:
        raise InputError(f"the settings of {name!r} are {name} and {name}:published; got {words!r}")
    return method.published()


def _denoised(posterior: Posterior) -> Posterior:
    """A mixture under evidence that has no closed form, as the perfect denoiser that it is."""
    law, likelihood = posterior.prior, posterior.likelihood
    if not isinstance(law, GaussianMixturePrior) or _is_blind(posterior):
        return posterior
    exact = serves(ClosedForm(), posterior) or serves(UnknownLevel(), posterior)
    if exact or not isinstance(likelihood, MeasuredLikelihood) or not likelihood.differentiable:
        return posterior
    return replace(posterior, prior=ClosedFormDenoiser(law, EDMSchedule(), law.moments()))


def _kinds(method: Sampler) -> tuple[type, ...]:
    return method.needs.prior if isinstance(method.needs.prior, tuple) else (method.needs.prior,)


def _lend(method: Sampler, guide: Guide | None) -> Sampler:
    """The method, with the guide's covariance where it takes one."""
    if guide is None:
        return method
    if isinstance(method, DAPS):
        return replace(method, covariance=covariance_of(guide))
    if isinstance(method, Guided):
        return replace(method, guidance=MMPS(covariance_of(guide)))
    return method


def _work(name: str, aim: Aim, **settings: Any) -> Sampler:
    """A method's default with the work of an aim."""
    return replace(METHODS[name].default, **{**_WORK[name][aim], **settings})  # type: ignore[type-var]


def _from_table(posterior: Posterior, aim: Aim, guide: Guide | None) -> Sampler:
    prior, likelihood = posterior.prior, posterior.likelihood
    gaussian = isinstance(likelihood, GaussianLikelihood) and likelihood.white
    linear = isinstance(likelihood, GaussianLikelihood) and gaussian and likelihood.linear
    if _is_blind(posterior):
        return choose_blind(posterior)
    for exact in (ClosedForm(), UnknownLevel()):
        if serves(exact, posterior):
            return exact
    if linear and isinstance(prior, DenoisingPrior):
        assert isinstance(likelihood, GaussianLikelihood)
        return _guided(prior, aim, guide, isinstance(likelihood.operator, Identity))
    if isinstance(prior, DenoisingPrior) and isinstance(likelihood, MeasuredLikelihood) and likelihood.differentiable:
        return _work("latent-daps", aim)
    if isinstance(prior, NoisePrior | DenoisingPrior):
        if not likelihood.differentiable:
            return _work("elliptical-slice", aim)
        if gaussian and aim == "fast" and not isinstance(prior, DenoisingPrior):
            return RandomiseThenOptimise()
        return _work("hmc", aim)
    if isinstance(prior, TokenPrior):
        return _codes(posterior, aim)
    method = _work("resampling", aim)
    try:
        method.check(posterior)
    except IncompatiblePrior as error:
        raise IncompatiblePrior(f"no method restores a {type(prior).__name__} under this evidence: {error}") from None
    return method


def serves(method: Sampler, posterior: Posterior) -> bool:
    """Whether a method can draw from a posterior."""
    try:
        method.check(posterior)
    except InputError:  # another prior or evidence, or too many grids to count
        return False
    return True


def _guided(prior: DenoisingPrior, aim: Aim, guide: Guide | None, denoising: bool) -> Sampler:
    """Of a denoiser under a linear instrument with Gaussian noise."""
    if isinstance(prior, TiledDenoiser) and not denoising:
        return _work("daps", aim, covariance=TiledCovariance())
    if aim == "calibrated" and (guide or prior.moments) is not None and not denoising:
        return _work("daps", aim)
    work = dict(_WORK["daps"][aim])
    return Guided(MMPS(), Ancestral(steps=work.pop("steps")), **work)


def _codes(posterior: Posterior, aim: Aim) -> Sampler:
    """Of codes on a grid."""
    if serves(Enumeration(), posterior):
        return Enumeration()
    gaussian = isinstance(posterior.likelihood, GaussianLikelihood) and posterior.likelihood.differentiable
    return _work("lookahead-codes", aim) if gaussian else METHODS["annealed-codes"].default


def _is_blind(posterior: Posterior) -> bool:
    """Whether the instrument has unknown numbers."""
    try:
        uncertain_operator(posterior)
    except IncompatiblePrior:
        return False
    return True
