"""Draw from a prior, walk between two draws, and find the noise behind an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from oneprior.core import IncompatiblePrior, InputError, Rows
from oneprior.nets.codec import Codec
from oneprior.priors.base import NoisePrior, Prior
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.pushforward import Pushforward
from oneprior.training.run import Run


@runtime_checkable
class Encoding(Protocol):
    """A prior that finds the noise behind an event."""

    def encode(self, x: Tensor) -> Tensor:
        """(n, *event_shape) -> (n, *noise_shape)."""
        ...


def synthesise(
    prior: Prior | Run,
    rows: Rows,
    *,
    condition: Mapping[str, Tensor] | None = None,
    batch: int = 64,
    **options: Any,
) -> Iterator[Tensor]:
    """Draws, a batch of rows at a time, (b, *event_shape) in [-1, 1]; row i is the same in any batch.

    Args:
        prior: a prior without conditions bound to rows, or a run.
        rows: one row a draw.
        condition: of a run; one for all rows, or one a row.
        batch: rows at once.
        options: of `run.prior` (`steps`, `cfg_scale`, `truncation` ...).

    Raises:
        InputError: for a condition or options of a prior that is already made.
    """
    if not isinstance(prior, Run) and (condition or options):
        raise InputError("conditions and options are bound when a prior is made: give the run, or run.prior(...)")
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        law = prior
        if isinstance(law, Run):
            told = {k: v[part] if len(v) == len(rows) else v for k, v in condition.items()} if condition else None
            law = law.prior(told, **options)
        yield law.sample(rows.take(part))


def interpolate(prior: Prior, rows: Rows, steps: int = 8) -> Tensor:
    """A walk through the base noise from row to row: (rows - 1) * steps + 1 events, (m, *event_shape).

    Between two noises the walk follows the great circle, so that every stop is as typical as its ends (Shoemake 1985).

    Args:
        prior: a map of noise, or a denoiser (by its ODE).
        rows: the stops, at least two.
        steps: from each stop to the next.

    Raises:
        IncompatiblePrior: for a prior without continuous noise.
        InputError: for fewer than two stops, or no step.
    """
    if len(rows) < 2 or steps < 1:
        raise InputError(f"a walk needs at least 2 rows and 1 step, got {len(rows)} and {steps}")
    prior = _noise_road(prior)
    with torch.no_grad():
        u = rows.to(prior.device).normal(*prior.noise_shape).flatten(1)
        share = torch.linspace(0, 1, steps + 1, device=u.device)[:-1].repeat(len(u) - 1, 1)[..., None]
        a, b = u[:-1, None], u[1:, None]
        angle = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).acos()[..., None].clamp_min(1e-6)
        walk = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
        walk = torch.cat([walk.flatten(0, 1), u[-1:]])
        return prior.decode(walk.reshape(-1, *prior.noise_shape))


def encode(prior: Prior, x: Tensor) -> Tensor:
    """The latent or noise behind events, (n, *shape): a codec's z, or the u of a prior that knows it.

    Raises:
        IncompatiblePrior: where nothing in the prior can encode.
    """
    with torch.no_grad():
        if isinstance(prior, Pushforward):
            if isinstance(prior.decoder, Codec):
                return prior.decoder.encode(x)
        elif isinstance(prior, DenoisingPrior):
            prior = prior.flow()
        if isinstance(prior, Encoding):
            return prior.encode(x)
    raise IncompatiblePrior(
        f"{type(prior).__name__} cannot find the noise behind an event; restore with the identity operator instead"
    )


def truncation_sheet(
    prior_of: Callable[[float], Prior], rows: Rows, values: Sequence[float] = (0.0, 0.5, 0.7, 1.0)
) -> Tensor:
    """The same rows at several truncations, (n, len(values), *event_shape).

    Args:
        prior_of: the prior at one truncation, such as `lambda psi: run.prior(truncation=psi)`.
        rows: the draws.
        values: truncations; 0 is the mean of the latents and 1 the law itself.
    """
    return torch.stack([prior_of(value).sample(rows.stream("sheet")) for value in values], dim=1)


def _noise_road(prior: Prior) -> NoisePrior:
    if isinstance(prior, NoisePrior):
        return prior
    if isinstance(prior, DenoisingPrior):
        return prior.flow()
    raise IncompatiblePrior(f"{type(prior).__name__} has no continuous noise to walk through")
