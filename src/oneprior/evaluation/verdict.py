"""Is a posterior miscalibrated? One verdict from the ranks of all functions, right in 95 % of exact posteriors.

Three questions are asked of the ranks of each function; z_(r) is the r-th of S + 1 ordered standard normals:

- location: the mean of the normal scores a_1(r) = E z_(r). Posterior biased low or high.
- dispersion: log(mean a_2(r) - (mean a_1(r))^2) with a_2(r) = E z_(r)^2. Posterior too narrow or too wide. Of all tests
  that know only ranks, a_2 finds a small error of a normal posterior's standard deviation best (Capon 1961).
- shape: the sum of squares of up to six components, polynomials of the rank of degree 3 to 8 made orthogonal to a_1,
  a_2 and each other under uniform ranks (a smooth test, Neyman 1937). Skewness, tails, bunches.

Every p-value comes from simulation of exact posteriors, so that it holds for few images and for few draws.

**Dependent functions.** The mean and a projection of one image err together. With `Ranks.exchanged` each simulation
exchanges the truth of every image with a random one of its members, in all functions at once: under an exact posterior
the result has the same law as what was seen, whatever the functions. The least p-value over the functions, compared
with its simulations, is an exact p-value of the question (Westfall and Young 1993, single step). So there are three
p-values, however many functions, and Holm's step-down procedure (1979) corrects these. Without `exchanged` Holm's
procedure goes over all functions and questions: valid under any dependence, but slow to flag many similar functions.
Within a question the error also holds for the functions that are named, if only some of them are at fault.

**Weights.** Errors of spread are the hardest to see (n images determine a mean to 1 / sqrt(n) but a log standard
deviation only to 1 / sqrt(2 n)), so dispersion gets half of the error and the others a quarter each (Holm 1979, section
3). Corrected p-values are p-values over weights, step by step, so that a flag is a corrected p-value of at most 0.05.

A posterior that is not flagged is not proved exact: the verdict says what it would have noticed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation.ranks import Ranks, null_counts

Question = Literal["location", "dispersion", "shape"]

QUESTIONS: tuple[Question, ...] = ("location", "dispersion", "shape")
WEIGHTS = (0.25, 0.5, 0.25)
EXCHANGES = 3999  # simulations behind the p-values of dependent functions
FEWEST_IMAGES = 30
FEWEST_DRAWS = 4
_CHUNK = 1 << 18  # ranks held at once: they stay in the cache


@dataclass(frozen=True)
class Finding:
    """The answer to one question for one function.

    Args:
        functional: name of the function.
        question: "location", "dispersion" or "shape".
        says: "biased low", "biased high", "too narrow", "too wide" or "misshapen": what the posterior would be.
        size: location: estimated bias in posterior standard deviations; dispersion: estimated relative error of the
            posterior's standard deviation (-0.1 is 10 % too narrow); both as if the posterior were normal, for small
            errors (a large bias leaves no rank to tell the spread from); nan for shape.
        p: of this test alone.
        joint: corrected over the functions of the question; equal to p where Holm's procedure goes over all.
        corrected: by Holm's procedure too; the finding is a flag if it is at most the level.
    """

    functional: str
    question: Question
    says: str
    size: float
    p: float
    joint: float
    corrected: float

    def __str__(self) -> str:
        size = {
            "location": f" by {abs(self.size):.2g} posterior standard deviations",
            "dispersion": f" by {100 * abs(self.size):.2g} %",
            "shape": "",
        }[self.question]
        return f"{self.functional} is {self.says}{size}"


@dataclass(frozen=True)
class Verdict:
    """What the ranks say together.

    Args:
        flagged: whether the posterior is miscalibrated, wrong for a share `level` of exact posteriors.
        conclusive: false if nothing was flagged and there are too few images to conclude anything.
        findings: every function and question, the least corrected p-value first.
        level: family-wise error.
        images: n.
        draws: S.
        detectable_bias: bias, in posterior standard deviations, that would be flagged in 4 of 5 repetitions.
        detectable_spread: likewise the relative error of the posterior's standard deviation.
    """

    flagged: bool
    conclusive: bool
    findings: tuple[Finding, ...]
    level: float
    images: int
    draws: int
    detectable_bias: float
    detectable_spread: float

    @property
    def flags(self) -> tuple[Finding, ...]:
        """The findings that are flags."""
        return tuple(finding for finding in self.findings if finding.corrected <= self.level)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        least = f"a bias of {self.detectable_bias:.2g} posterior standard deviations"
        least += f" or a standard deviation wrong by a factor of {1 + self.detectable_spread:.3g}"
        of = f"{self.images} image{'s' * (self.images != 1)} with {self.draws} draws each"
        if self.flagged:
            plain: dict[str, Finding] = {}  # of each function the flag that is easiest to read: location before shape
            for finding in sorted(self.flags, key=lambda f: QUESTIONS.index(f.question)):
                plain.setdefault(finding.functional, finding)
            first = sorted(plain.values(), key=lambda f: f.corrected)[:3]
            more = len(self.flags) - len(first)
            rest = f", and {more} more finding{'s' * (more > 1)}" if more else ""
            least = self.flags[0].corrected
            p = f"p = {least:.2g}" if least > 1e-3 else "p <= 0.001"
            return f"Miscalibrated ({p} after correction, {of}): {', '.join(map(str, first))}{rest}."
        if not self.conclusive:
            return f"Nothing can be concluded from {of}: only {least} would be noticed in 4 of 5 repetitions."
        return f"No miscalibration found in {of}: {least} would be noticed in 4 of 5 repetitions."


def calibration_verdict(ranks: Ranks, rows: Rows, *, level: float = 0.05) -> Verdict:
    """Judge ranks of the truth.

    Args:
        ranks: of n independent images, under k functions.
        rows: n rows, which choose the exchanges where functions depend.
        level: family-wise error.

    Raises:
        ShapeError: if there is not one row for each image.
        InputError: for no image, no function, fewer than 4 draws, or a level outside (0, 1).
    """
    n, k = ranks.values.shape
    if not 0 < level < 1:
        raise InputError(f"level must lie in (0, 1), got {level}")
    if not n or not k:
        raise InputError(f"a verdict needs at least one image and one function, got {n} and {k}")
    if len(rows) != n:
        raise ShapeError("rows for the verdict", (len(rows),), (n,), "Give one row for each image.")
    if ranks.exchanged is not None and k > 1:
        p, joint = exchanged_p_values(ranks.exchanged, rows)
        question_p, weights = joint.amin(0), torch.tensor(WEIGHTS, dtype=torch.float64)
    else:
        p = joint = rank_p_values(ranks.values, ranks.draws)
        question_p, weights = p.flatten(), torch.tensor(WEIGHTS, dtype=torch.float64).repeat(k) / k
    floor, factor = _steps(question_p, weights)
    corrected = torch.maximum(floor.reshape(-1, 3), factor.reshape(-1, 3) * joint).clamp(max=1.0)
    says, sizes = _directions(ranks)
    findings = [
        Finding(name, question, says[j][q], sizes[j][q], float(p[j, q]), float(joint[j, q]), float(corrected[j, q]))
        for j, name in enumerate(ranks.names)
        for q, question in enumerate(QUESTIONS)
    ]
    findings.sort(key=lambda f: (f.corrected, QUESTIONS.index(f.question), f.p, -abs(f.size)))
    flagged = findings[0].corrected <= level
    bias, spread = _detectable(n, k, ranks.draws, level)
    return Verdict(flagged, flagged or n >= FEWEST_IMAGES, tuple(findings), level, n, ranks.draws, bias, spread)


def rank_p_values(ranks: Tensor, draws: int) -> Tensor:
    """p-values of the three questions for each function alone, from simulated independent uniform ranks.

    Args:
        ranks: int64 (n, k), 0 to S.
        draws: S, at least 4.

    Returns:
        (k, 3) float64: location, dispersion, shape; the same for the same ranks.
    """
    n, k = ranks.shape
    _enough(draws)
    members = draws + 1
    index = ranks.cpu() + members * torch.arange(k)
    counts = torch.bincount(index.reshape(-1), minlength=k * members).reshape(k, members)
    found, null = _statistics(counts, n), _null(n, draws)
    both = torch.stack([_tails(found[:, q], null[:, q], two_sided=q < 2) for q in range(3)], 1)
    return ((both + 1) / (len(null) + 1)).clamp(max=1.0)


def exchanged_p_values(exchanged: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """p-values of the three questions from exchanges of truth and draws.

    Args:
        exchanged: rank of each member, the truth first, int64 (S + 1, n, k).
        rows: n rows.

    Returns:
        For each function alone, and corrected over the functions of one question; (k, 3) float64 each.
    """
    members, n, k = exchanged.shape
    _enough(members - 1)
    exchanged = exchanged.cpu()
    who = torch.cat([torch.zeros(n, 1, dtype=torch.int64), rows.to("cpu").integers(members, EXCHANGES)], 1).T
    image, statistics = torch.arange(n), []
    for part in who.split(max(1, _CHUNK // max(n * k, members * k))):
        bins = members * torch.arange(len(part) * k).reshape(-1, 1, k)
        index = exchanged[part, image] + bins  # (b, n, k)
        counts = torch.bincount(index.reshape(-1), minlength=len(part) * k * members)
        statistics.append(_statistics(counts.reshape(-1, k, members), n))
    found = torch.cat(statistics)  # (1 + EXCHANGES, k, 3), what was seen first
    alone, joint = torch.empty(k, 3, dtype=torch.float64), torch.empty(k, 3, dtype=torch.float64)
    for q in range(3):
        pool = found[..., q].flatten()  # every function has the same law of its own
        tails = _tails(pool, pool, two_sided=q < 2).reshape(-1, k)
        alone[:, q] = (tails <= tails[0]).double().mean(0)
        joint[:, q] = (tails.amin(1, keepdim=True) <= tails[0]).double().mean(0)
    return alone, joint


def holm(p: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Corrected p-values of Holm's weighted step-down procedure; family-wise error at most 5 % if those <= 0.05 count.

    The hypotheses in order of p / w; the s-th gets the largest of p_i / w_i times the weights from i on, over i <= s.

    Args:
        p: (..., m).
        weights: (m,), positive; equal by default.

    Returns:
        (..., m), at most 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    w = torch.ones(p.shape[-1], dtype=torch.float64) if weights is None else torch.as_tensor(weights).double()
    if w.shape != p.shape[-1:] or not bool((w > 0).all()):
        raise InputError(
            f"Holm's procedure needs one positive weight for each of {p.shape[-1]} tests, got {w.tolist()}"
        )
    floor, factor = _steps(p, w)
    return torch.maximum(floor, factor * p).clamp(max=1.0)


def _steps(p: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """For each hypothesis the corrected p-value of those before it, and its own factor."""
    p = p.double()
    order = (p / weights).argsort(dim=-1, stable=True)
    w = weights.expand(p.shape).gather(-1, order)
    factor = w.flip(-1).cumsum(-1).flip(-1) / w
    before = (factor * p.gather(-1, order)).cummax(-1).values.roll(1, -1)
    before[..., 0] = 0.0
    return tuple(torch.empty_like(p).scatter_(-1, order, value) for value in (before, factor))  # type: ignore[return-value]


@functools.lru_cache(maxsize=8)
def _scores(draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """a_1 and a_2, (S + 1,) each, and orthonormal shape components, (S + 1, at most 6); for ranks 0 to S."""
    z = torch.linspace(-8.5, 8.5, 3401, dtype=torch.float64)
    rank = torch.arange(draws + 1, dtype=torch.float64)[:, None]
    choose = math.lgamma(draws + 1) - torch.lgamma(rank + 1) - torch.lgamma(draws - rank + 1)
    log = choose + rank * torch.special.log_ndtr(z) + (draws - rank) * torch.special.log_ndtr(-z) - z.square() / 2
    law = log.exp()  # of the (r + 1)-th of S + 1 ordered normals, up to a constant
    law = law / law.sum(1, keepdim=True)
    first, second = law @ z, law @ z.square()
    u = (2 * rank[:, 0] - draws) / draws
    legendre = [torch.ones_like(u), u]
    for degree in range(2, min(8, draws) + 1):
        legendre.append(((2 * degree - 1) * u * legendre[-1] - (degree - 1) * legendre[-2]) / degree)
    columns = torch.stack([legendre[0], first, second, *legendre[3:]], 1)
    return first, second, torch.linalg.qr(columns).Q[:, 3:] * math.sqrt(draws + 1)


def _statistics(counts: Tensor, n: int) -> Tensor:
    """Location and dispersion (with their signs) and shape, of counts of ranks (..., S + 1); (..., 3) float64."""
    first, second, shape = _scores(counts.shape[-1] - 1)
    share = counts.double() / n
    mean = share @ first
    spread = (share @ second - mean.square()).clamp_min(1e-300).log()
    return torch.stack([mean, spread, (share @ shape).square().sum(-1)], -1)


@functools.lru_cache(maxsize=8)
def _null(n: int, draws: int) -> Tensor:
    """The statistics of simulated exact posteriors, (NULLS, 3)."""
    return _statistics(null_counts(n, draws), n)


def _tails(found: Tensor, null: Tensor, *, two_sided: bool) -> Tensor:
    """How many of the null are as extreme, on one side; or twice the smaller of two sides, plus one.

    With one added, over one more than the null, it is a p-value. Numbers that differ by rounding alone count as equal.
    """
    ordered = null.sort().values
    slack = 1e-9 * found.abs() + 1e-12
    above = len(null) - torch.searchsorted(ordered, found - slack)
    if not two_sided:
        return above.double()
    below = torch.searchsorted(ordered, found + slack, right=True)
    return 2.0 * torch.minimum(above, below).double() + 1.0


def _directions(ranks: Ranks) -> tuple[list[list[str]], list[list[float]]]:
    """What each answer would say of the posterior, and by how much; k lists of three."""
    first, second, _ = _scores(ranks.draws)
    values = ranks.values.cpu()
    centre = first[values].mean(0)
    spread = (second[values].mean(0) - centre.square()).log()
    bias = -centre / first.square().mean()
    error = (-spread / second.var(unbiased=False)).exp() - 1
    says = [
        ["biased high" if b > 0 else "biased low", "too wide" if e > 0 else "too narrow", "misshapen"]
        for b, e in zip(bias.tolist(), error.tolist(), strict=True)
    ]
    return says, [[b, e, math.nan] for b, e in zip(bias.tolist(), error.tolist(), strict=True)]


def _detectable(n: int, k: int, draws: int, level: float) -> tuple[float, float]:
    """Bias and relative error of spread seen with probability 0.8, as if the k functions were independent."""
    first, second, _ = _scores(draws)
    normal = torch.distributions.Normal(0.0, 1.0)
    bias, spread = (
        (float(normal.icdf(torch.tensor(1 - level * w / (2 * k)))) + 0.8416) / math.sqrt(n * information)
        for w, information in (
            (WEIGHTS[0], float(first.square().mean())),
            (WEIGHTS[1], float(second.var(unbiased=False))),
        )
    )
    return bias, math.expm1(spread)


def _enough(draws: int) -> None:
    if draws < FEWEST_DRAWS:
        raise InputError(
            f"ranks among {draws} draws tell too little; a verdict needs at least {FEWEST_DRAWS}, better 99"
        )
