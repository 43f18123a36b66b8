"""The laws that every prior and every operator must obey, as functions that a user can call on their own.

    from oneprior.laws import check_operator, check_prior
    check_operator(MyScanner(...))
    check_prior(MyPrior(...))

Each checks what the types promise (shapes, determinism, rows independent of their batch, exact adjoints, gradients,
the agreement of a density with itself) and raises `LawBroken` with the law, the measured value and the tolerance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import OnePriorError, Rows, inner, norm
from oneprior.operators.base import LinearOperator, Operator
from oneprior.priors.base import DensityPrior, NoisePrior, Prior, TokenPrior
from oneprior.priors.diffusion.schedule import DenoisingPrior


class LawBroken(OnePriorError, AssertionError):
    """A prior or an operator does not do what its type promises."""


def check_operator(operator: Operator, *, rows: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
    """Shapes, determinism, rows apart; for a linear one: linearity, <A x, y> = <x, A' y>, A A^+ A = A.

    Args:
        operator: any operator.
        rows: number of rows to try it with.
        dtype: float64 for exact checks (relative 1e-10), float32 for 1e-5.
        seed: of the random events.

    Raises:
        LawBroken: names the law, the value and the tolerance.
    """
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    device = next(operator.buffers(), torch.empty(0)).device
    stream = Rows(rows, seed=seed, device=device)
    x = stream.normal(*operator.in_shape, dtype=dtype)
    y = operator(x)
    _shape("operator output", y, (rows, *operator.out_shape))
    _close("operators are deterministic", operator(x), y, 0.0)
    _close("rows do not see each other", operator(x[1:2]), y[1:2], 1e-12 if dtype == torch.float64 else 1e-5)
    if not isinstance(operator, LinearOperator):
        return
    other = stream.normal(*operator.in_shape, dtype=dtype)
    _close("A(2 x - 3 v) = 2 A x - 3 A v", operator(2 * x - 3 * other), 2 * y - 3 * operator(other), tolerance)
    v = stream.normal(*operator.out_shape, dtype=dtype).to(y.dtype)
    if y.is_complex():
        v = torch.complex(v.real, stream.normal(*operator.out_shape, dtype=dtype))
    back = operator.adjoint(v)
    _shape("adjoint", back, (rows, *operator.in_shape))
    gap = (inner(y, v) - inner(x, back)).abs() / (norm(y) * norm(v)).clamp_min(torch.finfo(dtype).tiny)
    if float(gap.max()) > tolerance:
        raise LawBroken(f"<A x, y> = <x, A' y>: relative gap {float(gap.max()):.2e}, tolerance {tolerance:.0e}")
    loose = 1e-6 if dtype == torch.float64 else 1e-3  # pinv may be iterative
    _close("A A^+ A = A", operator(operator.pinv(y)), y, loose)


def check_prior(prior: Prior, *, rows: int = 4, seed: int = 0, tolerance: float = 1e-4) -> None:
    """Shapes, finite values, the same draw for a row in any batch and any order, and the promises of each type.

    Args:
        prior: any prior.
        rows: number of rows to try it with.
        seed: of the draws.
        tolerance: for deterministic maps in different batches (matrix products differ in their last bits).

    Raises:
        LawBroken: names the law, the value and the tolerance.
    """
    with torch.no_grad():
        x = prior.sample(Rows(rows, seed=seed))
        _shape("sample", x, (rows, *prior.event_shape))
        if not bool(torch.isfinite(x).all()):
            raise LawBroken("samples are finite: found NaN or infinity")
        _close("the same rows give the same draws", prior.sample(Rows(rows, seed=seed)), x, tolerance)
        alone = prior.sample(Rows([rows - 1], seed=seed))
        _close("a row's draw does not depend on its batch", alone[0], x[rows - 1], tolerance)
        flipped = prior.sample(Rows(range(rows - 1, -1, -1), seed=seed))
        _close("a row's draw does not depend on the order", flipped.flip(0), x, tolerance)
        if torch.equal(prior.sample(Rows(rows, seed=seed + 1)), x):
            raise LawBroken("two seeds give two draws: they were equal")
        if isinstance(prior, DenoisingPrior):
            _check_denoiser(prior, x, tolerance)
        if isinstance(prior, TokenPrior):
            _check_tokens(prior, Rows(rows, seed=seed))
        elif isinstance(prior, DensityPrior):
            density = prior.log_prob(x)
            _shape("log_prob", density, (rows,))
            _close("a row's density does not depend on its batch", prior.log_prob(x[1:2]), density[1:2], tolerance)
    if isinstance(prior, NoisePrior):
        _check_noise(prior, Rows(rows, seed=seed), tolerance)


def _check_noise(prior: NoisePrior, rows: Rows, tolerance: float) -> None:
    """decode has the right shape, rows apart, and a gradient that finite differences confirm."""
    u = rows.to(prior.device).normal(*prior.noise_shape)
    direction = rows.to(prior.device).stream("direction").normal(*prior.noise_shape)
    u.requires_grad_()
    x = prior.decode(u)
    _shape("decode", x, (len(rows), *prior.event_shape))
    _close("decode: rows do not see each other", prior.decode(u[1:2].detach()).detach(), x[1:2].detach(), tolerance)
    (gradient,) = torch.autograd.grad(x.square().flatten(1).mean(1).sum(), u)
    if not bool(torch.isfinite(gradient).all()):
        raise LawBroken("decode has a finite gradient: found NaN or infinity")
    slope = inner(gradient, direction)
    with torch.no_grad():
        size = 1e-2
        up, down = (
            prior.decode(u + sign * size * direction).square().flatten(1).mean(1).double() for sign in (1.0, -1.0)
        )
    numeric = ((up - down) / (2 * size)).to(slope.dtype)
    scale = (norm(gradient) * norm(direction)).max().clamp_min(1e-6)
    gap = float(((numeric - slope).abs() / scale).max())
    if gap > 0.05:
        raise LawBroken(f"decode's gradient agrees with finite differences: relative gap {gap:.2e}, tolerance 5e-2")


def _check_denoiser(prior: DenoisingPrior, x: Tensor, tolerance: float) -> None:
    """denoise keeps the shape, takes one time or one per row, and leaves an almost clean event almost alone."""
    schedule = prior.schedule
    times = torch.linspace(0.1, 0.9, len(x), device=x.device)
    alpha = schedule.alpha(times).reshape(-1, *[1] * (x.dim() - 1))
    x_t = alpha * x
    estimate = prior.denoise(x_t, times)
    _shape("denoise", estimate, tuple(x.shape))
    _close("denoise: rows do not see each other", prior.denoise(x_t[1:2], times[1:2]), estimate[1:2], tolerance)
    _close("denoise: a time for all is a time for each", prior.denoise(x_t, times[0]),
           prior.denoise(x_t, times[0].expand(len(x))), tolerance)  # fmt: skip
    levels = schedule.noise_level(torch.linspace(0.01, 0.99, 33, dtype=torch.float64))
    if not bool((levels.diff() > 0).all()):
        raise LawBroken("the noise level grows with t: it does not")
    _close("time inverts noise_level", schedule.noise_level(schedule.time(levels)), levels, 1e-3)


def _check_tokens(prior: TokenPrior, rows: Rows) -> None:
    """Exact conditionals: log p(codes) is the sum of the log conditionals, position by position."""
    codes = prior.sample_codes(rows)
    _shape("codes", codes, (len(rows), *prior.grid))
    if int(codes.min()) < 0 or int(codes.max()) >= prior.vocabulary:
        raise LawBroken(f"codes lie in [0, {prior.vocabulary}): found {int(codes.min())} .. {int(codes.max())}")
    flat = codes.flatten(1)
    total = torch.zeros(len(rows), dtype=torch.float64, device=codes.device)
    for position in range(flat.shape[1]):
        logits = prior.next_logits(codes, position).double().log_softmax(-1)
        total = total + logits.gather(1, flat[:, position, None]).squeeze(1)
    _close("log p(codes) is the sum of its conditionals", prior.log_prob(codes).double(), total, 1e-3)


def _shape(what: str, value: Tensor, needed: tuple[int, ...]) -> None:
    if tuple(value.shape) != tuple(needed):
        raise LawBroken(f"{what} has shape {tuple(value.shape)}, needed {tuple(needed)}")


def _close(law: str, a: Tensor, b: Tensor, tolerance: float) -> None:
    """|a - b| <= tolerance * max(1, |b|), in the largest entry."""
    gap = float((a - b).abs().max() / b.abs().max().clamp_min(1.0)) if b.numel() else 0.0
    if not gap <= tolerance:
        raise LawBroken(f"{law}: relative gap {gap:.2e}, tolerance {tolerance:.0e}")
