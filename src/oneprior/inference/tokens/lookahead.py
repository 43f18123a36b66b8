"""Codes drawn along the grid with the measurement in view: where chains over many codes begin.

A draw of the prior is nowhere near a sharp posterior, and one code at a time it takes very long to get there. But the
walk along the grid can look ahead. About an event z (soft: a mean of one-hot events, which decoders take as well) the
measurement is nearly linear, and what the codes after position j will add to it nearly Gaussian, so that

    p(y | codes up to j)  ~  N(r;  changes up to j + sum_(i > j) m_i,  (1 + e^2) I + sum_(i > j) C_i)

where r is the residual at z in units of sigma, and m_i and C_i are mean and covariance of the change at position i
under the prior's marginal. Each code is drawn from its exact conditional times this lookahead, which is the twisted
proposal of Guarniero, Johansen, Lee (2017) with Gaussian twists. Measurements of more than S numbers are
sketched by random signs; e^2 is the error of the linear model on the draws of the round before, for each problem.

After each round z moves to the mean of the draws, weighed by p L / q with weights tempered so that some of them always
count: an iterated Kalman filter over codes. Nothing here need be exact: the draws are starts of exact chains.

Starts are wider than the posterior, and chains over many codes under little noise mix slowly. Measured on Fashion-MNIST
(256 codes, 7 x 7, sigma 5 %, 4 images, 19 chains of 100 moves): `r_hat` is about 4. Such draws are not those of the
posterior yet, however plausible they look, and what they cover says nothing of it. With `warmup` 0 they are the starts
after a few moves, and `exact` is False.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from oneprior.core import InputError, Rows
from oneprior.inference.noise.diagnostics import effective_sample_size, split_r_hat
from oneprior.inference.posterior import Draws, Needs, Posterior, Sampler
from oneprior.inference.tokens.informed import Informed
from oneprior.inference.tokens.target import Calls, Target, check_finite, measured
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.priors.base import TokenPrior

_POOL = 32
_COUNT = 3.0  # draws of a round that count in the mean about which the next one is made


@dataclass(frozen=True)
class Lookahead(Sampler):
    """Draws with the measurement in view, then exact chains from them.

    Args:
        chains: of each problem; by default as many as draws, but at least 8 and at most 32.
        rounds: of draws; each chain begins at one of its own, chosen by p L / q.
        sketch: S, numbers that stand for the measurement.
        warmup: moves that are thrown away.
        thin: moves between two kept draws of a chain.
        move: the kernel of the chains.

    Source: the lookahead of Guarniero, Johansen, Lee 2017 with Gaussian twists; the moves of `informed`.
    """

    name: ClassVar[str] = "lookahead codes"
    needs: ClassVar[Needs] = Needs(prior=TokenPrior, gaussian=True, differentiable=True, density=True)
    chains: int | None = None
    rounds: int = 6
    sketch: int = 128
    warmup: int = 50
    thin: int = 50
    move: Informed = field(default_factory=Informed)

    def __post_init__(self) -> None:
        if min(1 if self.chains is None else self.chains, self.rounds, self.sketch, self.thin) < 1 or self.warmup < 0:
            raise InputError("lookahead needs chains, rounds, sketch and thin >= 1 and warmup >= 0")

    def iterate(self, posterior: Posterior, draws: int, rows: Rows) -> Iterator[Draws]:
        assert isinstance(posterior.prior, TokenPrior)
        rows = rows.to(posterior.prior.device)
        copies = self.chains or min(max(draws, 8), 32)
        target = Target.of(posterior, copies, Calls(), self.move.width(posterior.prior.vocabulary))
        steps = self.warmup + -(-draws // copies) * self.thin
        total = steps + self.rounds
        codes = None
        for done, codes in enumerate(begin(target, rows, self.rounds, self.sketch), 1):
            yield Draws(target.events(codes)[:draws], self.name, False, target.calls.rows, done=done / total)
        assert codes is not None
        beta = torch.ones(target.size, dtype=torch.float64, device=codes.device)
        chains = self.move.chains(target, codes, rows.stream("moves").repeat(copies))
        kept: list[Tensor] = []
        trace: list[Tensor] = []
        chance: list[Tensor] = []
        best = torch.full((target.n,), -torch.inf, dtype=torch.float64, device=codes.device)
        best_codes = codes[: target.n].clone()
        for step in range(steps):
            accepted = chains.step(beta)
            density = (chains.value + chains.log_prior).reshape(copies, -1)
            value, at = density.max(0)
            there = chains.codes.reshape(copies, target.n, -1)[at, torch.arange(target.n, device=at.device)]
            best_codes = torch.where((value > best)[:, None], there, best_codes)
            best = torch.maximum(best, value)
            if step < self.warmup:
                continue
            trace.append(density)
            chance.append(accepted.reshape(copies, -1).mean(0))
            if (step - self.warmup) % self.thin == self.thin - 1:
                kept.append(target.events(chains.codes))
                states, x = torch.stack(trace), torch.cat(kept)
                diagnostics = {
                    "acceptance": torch.stack(chance).mean(0),
                    "r_hat": split_r_hat(states),
                    "effective_sample_size": effective_sample_size(states),
                    "map_codes": best_codes.reshape(-1, *target.prior.grid),
                    "log_map_density": best,
                }
                done = (self.rounds + step + 1) / total
                yield Draws(
                    x[:draws],
                    self.name,
                    self.warmup > 0,
                    target.calls.rows,
                    done=done,
                    diagnostics=diagnostics,
                    centre=x.mean(0),
                )


def begin(target: Target, rows: Rows, rounds: int, size: int) -> Iterator[Tensor]:
    """Codes for every copy, better from round to round, (M * n, L).

    The code of a copy is chosen from those that it drew in all rounds, by p L / q.
    """
    likelihood, n, K = target.posterior.likelihood, target.n, target.prior.vocabulary
    assert isinstance(likelihood, GaussianLikelihood)
    pool = Target.of(target.posterior, _POOL, target.calls)
    codes = pool.sample(rows.stream("pool").repeat(_POOL))
    frequency = one_hot(codes.reshape(_POOL, n, -1), K).float().mean((0, 2))  # of a code at any position
    marginal = (0.9 * frequency + 0.1 / K)[:, None].expand(-1, target.length, -1)
    sketch = sketches(likelihood, size, rows.stream("sketch"))
    aim = torch.einsum("nsm,nm->ns", sketch, measured_y(likelihood))
    z = marginal.mT.reshape(n, K, *target.prior.grid)
    streams, race = rows.stream("draws").repeat(target.copies), rows.stream("race").repeat(target.copies)
    held, best = codes, None
    for step in range(rounds):
        model = linear_model(target, z, sketch)
        error = (aim - predictions(target, codes, sketch)) - model.predicted(codes.reshape(-1, n, target.length))
        check_finite(error.square().sum(-1).flatten(), Lookahead.name, n, step)
        variance = 1 + error.square().mean(-1).median(0).values
        codes, gap = draw(target, model, marginal, variance, streams)
        weight = target.log_likelihood(codes) + gap
        check_finite(weight, Lookahead.name, n, step)
        # Gumbel's race: the largest weight + Gumbel noise is a draw by weight.
        score = weight - (-race.uniform(dtype=torch.float64).log()).log()
        wins = torch.ones_like(score, dtype=torch.bool) if best is None else score > best
        held = codes if best is None else torch.where(wins[:, None], codes, held)
        best = score if best is None else torch.maximum(score, best)
        yield held
        share = _tempered(weight.reshape(-1, n)).float()
        soft = one_hot(codes.reshape(target.copies, n, -1), K).float()
        z = torch.einsum("mn,mnlk->nkl", share, soft).reshape(z.shape)


def predictions(target: Target, codes: Tensor, sketch: Tensor) -> Tensor:
    """What codes (m * n, L) predict of y / sigma, sketched; (m, n, S)."""
    target.calls.rows += len(codes)
    parts = []
    for piece in target.pieces(codes):
        copies = len(piece) // target.n
        with torch.no_grad():
            seen = measured(target.many(copies).likelihood, target.onehot(piece)).unflatten(0, (copies, -1))
        parts.append(torch.einsum("nsm,knm->kns", sketch, seen))
    return torch.cat(parts)


def _tempered(weight: Tensor) -> Tensor:
    """Shares of (M, n) log weights, raised to the largest power <= 1 at which three of them count."""
    low, high = (torch.full((weight.shape[1],), v, dtype=torch.float64, device=weight.device) for v in (-23.0, 0.0))
    enough = _counting(weight) >= _COUNT
    for _ in range(30):
        middle = 0.5 * (low + high)
        many = _counting(middle.exp() * weight) >= _COUNT
        low, high = torch.where(many, middle, low), torch.where(many, high, middle)
    return (torch.where(enough, 0.0, low).exp() * weight).softmax(0)


def _counting(log_weight: Tensor) -> Tensor:
    return (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp().nan_to_num(1.0)


@dataclass(frozen=True)
class Model:
    """The linear model of the residual about soft events z, sketched.

    Args:
        residual: at z, (n, S).
        change: of the prediction when position j becomes code k, (n, L, S, K).
    """

    residual: Tensor
    change: Tensor

    def predicted(self, codes: Tensor) -> Tensor:
        """The residual at codes (M, n, L); (M, n, S)."""
        n, L, S, _ = self.change.shape
        total = self.residual.expand(len(codes), n, S).clone()
        for j in range(L):
            at = codes[:, :, j].T[:, None].expand(n, S, -1)
            total -= self.change[:, j].gather(2, at).permute(2, 0, 1)
        return total


def sketches(likelihood: GaussianLikelihood, size: int, rows: Rows) -> Tensor:
    """R with |R v|^2 ~ |v|^2 for measurements v: the identity, or S rows of random signs; (n, S, numbers)."""
    numbers = measured_y(likelihood).shape[1]
    if numbers <= size:
        return torch.eye(numbers, device=rows.device).expand(len(rows), -1, -1)
    return (rows.integers(2, size, numbers).float() * 2 - 1) / size**0.5


def measured_y(likelihood: GaussianLikelihood) -> Tensor:
    """y / sigma, complex numbers as pairs; (n, numbers)."""
    y = likelihood.y / likelihood.noise(likelihood.y)
    return (torch.view_as_real(y) if y.is_complex() else y).flatten(1).float()


def linear_model(target: Target, z: Tensor, sketch: Tensor) -> Model:
    """The model about soft events z (n, K, *grid); S backward passes."""
    likelihood = target.posterior.likelihood
    assert isinstance(likelihood, GaussianLikelihood)
    target.calls.rows += len(z)
    with torch.enable_grad():
        event = z.detach().requires_grad_()
        scaled = measured(likelihood, event)
        seen = torch.einsum("nsm,nm->ns", sketch, scaled)
        slopes = torch.stack(
            [torch.autograd.grad(seen[:, s].sum(), event, retain_graph=True)[0] for s in range(seen.shape[1])], 1
        )
    slopes = slopes.flatten(3).transpose(1, 3).transpose(2, 3)  # (n, L, S, K)
    weight = z.flatten(2).mT[:, :, None]  # (n, L, 1, K)
    residual = torch.einsum("nsm,nm->ns", sketch, measured_y(likelihood)) - seen.detach()
    return Model(residual, slopes - (slopes * weight).sum(-1, keepdim=True))


def lookahead(model: Model, marginal: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What each position needs: Cholesky factors, whitened changes, and the mean of what is to come.

    Args:
        model: about z.
        marginal: of each code at each position, (n, L, K).
        variance: 1 + e^2, (n,).

    Returns:
        (n, L, S, S), (n, L, S, K) and (n, L, S).
    """
    weighed = model.change * marginal[:, :, None]
    mean = weighed.sum(-1)
    spread = weighed @ model.change.mT - mean[..., None] * mean[..., None, :]
    later, coming = _after(spread), _after(mean)
    identity = torch.eye(later.shape[-1], device=later.device)
    whole = later + variance[:, None, None, None].float() * identity
    # Under very little noise the 1 is below the rounding of the sum; what is lost there is taken for noise.
    lost = 1e-5 * later.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * identity
    factor, failed = torch.linalg.cholesky_ex(whole)
    factor = torch.where(failed[..., None, None] > 0, torch.linalg.cholesky_ex(whole + lost)[0], factor)
    return factor, torch.linalg.solve_triangular(factor, model.change, upper=False), coming


def _after(values: Tensor) -> Tensor:
    """Sums over the positions after each, (n, L, ...)."""
    return values.flip(1).cumsum(1).flip(1) - values


def draw(target: Target, model: Model, marginal: Tensor, variance: Tensor, streams: Rows) -> tuple[Tensor, Tensor]:
    """Codes with the measurement in view, and log p - log q of them; (M * n, L) and float64 (M * n,)."""
    M, n = target.copies, target.n
    factor, white, coming = lookahead(model, marginal, variance)
    norms = 0.5 * white.square().sum(2)
    left = model.residual.expand(M, n, -1).clone()
    gap = torch.zeros(target.size, dtype=torch.float64, device=left.device)

    def choose(j: int, logp: Tensor, codes: Tensor) -> None:
        goal = torch.linalg.solve_triangular(factor[:, j], (left - coming[:, j]).permute(1, 2, 0), upper=False)
        gain = (goal.mT @ white[:, j]).transpose(0, 1) - norms[:, j]
        logq = (logp.double() + gain.flatten(0, 1).double()).log_softmax(-1)
        new = streams.categorical(logq)
        codes[:, j] = new
        gap.add_((logp.double() - logq).gather(1, new[:, None]).squeeze(1))
        at = new.reshape(M, n).T[:, None].expand(n, left.shape[2], M)
        left.sub_(model.change[:, j].gather(2, at).permute(2, 0, 1))

    codes = torch.zeros(target.size, target.length, dtype=torch.int64, device=left.device)
    target.walk(codes, choose)
    return codes, gap
