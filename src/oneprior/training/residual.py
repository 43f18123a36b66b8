"""What a trained decoder cannot say about real events, measured once and kept with the run (`priors.residual`); and
the Gaussian of the data, by which measurements of something else are known (`tasks.familiarity`).

e = x - f(z), where z explains x as well as the model can: through its encoder where it has one, by search where it has
none. The search is an expectation-maximisation in small: z minimises |u|^2 / 2 + |x - f(u)|^2 / (2 s^2) for all events
at once (Adam, from the best of some draws), while s^2 follows the mean square of what is left. Fitting z takes a little
of e away, about dim(z) of dim(x) degrees of freedom, which the covariance is given back.

Events are held out where the run holds any out; a model that knows its training set by heart would leave too little.
They are few, and their covariance is fitted in the axes of all events (`priors.shrinkage`).

A GAN with a mapping network can be restored with in the spaces w and w+ as well, and what is left is another law in
each: a style for every layer reaches far more than the generator was trained to make. So each has its own residual.
There u is white noise behind a Gaussian, and the degrees of freedom that fitting takes are E |u|^2 at the minimum, as
in a linear Gaussian model: directions that x does not tell stay at 0. (In z they cannot be read off so: the mapping
network brings z to unit length, and |z| is free.) In a small trial (a StyleGAN2 of 8 x 8 digits, 128 held out) the
mean square of what was left was 0.16 in z, 0.13 in w and 0.05 in w+, where |u|^2 was 33 of 64 numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.data.batch import Batch, Dataset
from oneprior.models.base import Model
from oneprior.priors.base import NoisePrior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.moments import HeldOutMoments, Moments
from oneprior.priors.residual import Residual
from oneprior.priors.styles import Space
from oneprior.training.folder import read_tensors, write_tensors
from oneprior.training.material import Material, reopen_material
from oneprior.training.order import some_of
from oneprior.training.run import MOMENTS, RESIDUAL, Run

_BATCH = 64
_MOMENTS, _RANK = 4096, 64  # events behind the Gaussian of the data, and its largest rank
_SEARCHED = 512  # the most events of a search, which costs `_STEPS` gradients each
_STEPS, _STARTS, _RATE = 150, 16, 0.1
_OWN: tuple[Space | None, ...] = (None, "w", "w+")  # each with a residual of its own


def fit_residual(
    model: Model,
    data: Dataset,
    events: int = 1024,
    seed: int = 0,
    space: Space | None = None,
    moments: Moments | None = None,
) -> Residual | None:
    """The law of x - f(z) over some events of the data; None for a family whose law covers all events by itself.

    Args:
        model: trained.
        data: real events, held out if possible.
        events: how many are used at most; 512 where z has to be searched for.
        seed: of the search's first guesses.
        space: of the latents that are searched, for a GAN; its own by default.
        moments: of all events, in whose axes the law is fitted; those of `data` by default.
    """
    if model.surface() is None or len(data) < 2:
        return None
    parts: list[Tensor] = []
    lengths: list[Tensor] = []
    numbers = 0
    for k, batch in enumerate(some_of(data, events, model.device, _BATCH)):
        if lengths and k * _BATCH >= _SEARCHED:
            break
        rows = Rows(range(k * _BATCH, k * _BATCH + len(batch)), seed=seed, stream="residual", device=model.device)
        seen = model.explain(batch.x, rows, batch.condition)
        if seen is None:
            seen, u = _search(_surface(model, batch.condition, space), batch, rows)
            lengths.append(u.square().flatten(1).sum(1))
            numbers = u[0].numel()
        parts.append(batch.x - seen)
    left = torch.cat(parts).cpu()
    rank, size, growth = None if len(left) >= 32 else 0, left[0].numel(), 1.0
    if lengths:
        fitted = numbers if space is None else float(torch.cat(lengths).mean())
        growth = size / max(size - fitted, size / 4)
    return Residual.fit(left, rank, growth, moments or _moments(data).fitted)


def measure_residual(run: Run, data: Dataset | None = None, events: int = 1024) -> Run:
    """Fits the residual of a trained run, writes it into its folder, and returns the run that knows it.

    Args:
        run: finished.
        data: real events; by default the run's own, as at the end of its training.
        events: as in `fit_residual`.

    Raises:
        InputError: for a family that needs none (its law covers all events), data that are no more where they were, or
            an entry of the zoo, which stays as it was published.
    """
    run.refuse_published()
    own = reopen_material(run.record.data) if data is None else Material(data, data, {})
    if run.model.surface() is None or len(own.training) < 2:
        raise InputError(f"a {run.family} has no residual: its law covers every event, or there are no events")
    leave_laws(run.path, run.model, own.training, own.held_out, events, run.record.train.get("seed", 0))
    return run


def leave_laws(folder: Path, model: Model, data: Dataset, unseen: Dataset | None, events: int, seed: int) -> None:
    """The Gaussian of the data and the residual of the model, written into a run folder.

    Args:
        folder: of the run.
        model: trained, in evaluation mode.
        data: what it was trained on.
        unseen: what was held out; None where nothing was.
        events: as in `fit_residual`.
        seed: as there.
    """
    seen = _moments(data)
    write_moments(folder, _gaussian(seen, data.event_shape))
    for space in _OWN:
        if space is None or space in model.spaces:
            law = fit_residual(model, unseen or data, events, seed, space, seen.fitted)
            if law is not None:
                write_residual(folder, law, space)


def fit_moments(data: Dataset) -> LowRankGaussian:
    """The low-rank Gaussian of some events of the data, by which foreign measurements are known.

    Its covariance is that of a new event: n events pull mean and directions towards themselves, and others lie farther
    out, by about (n + 1) / (n - rank - 2) in square (the mean of Hotelling's statistic).
    """
    return _gaussian(_moments(data), data.event_shape)


def _gaussian(moments: HeldOutMoments, event_shape: torch.Size) -> LowRankGaussian:
    """`fit_moments`; afterwards `moments.fitted` are those of all events."""
    mean, basis, variances, noise = (value.float() for value in moments.finish(None, _RANK))
    n = moments.seen
    growth = (n + 1) / max(n - len(variances) - 2, (n + 1) / 4)
    return LowRankGaussian(mean.reshape(event_shape), basis, growth * variances, growth * noise)


def _moments(data: Dataset) -> HeldOutMoments:
    moments = HeldOutMoments(data.event_shape.numel())
    for batch in some_of(data, _MOMENTS):
        moments.update(batch.x.flatten(1))
    return moments


def write_moments(folder: Path, law: LowRankGaussian) -> None:
    """The Gaussian as a file of tensors in the run folder."""
    write_tensors(folder / MOMENTS, _tensors(law), {"rank": law.rank})


def read_moments(folder: Path, device: torch.device) -> LowRankGaussian | None:
    """The Gaussian that lies in a run folder, or None."""
    return _law(read_tensors(folder / MOMENTS)[0]).to(device) if (folder / MOMENTS).exists() else None


def residual_space(folder: Path, space: Space | None) -> Space | None:
    """The space whose residual is believed in for a space: its own where it was measured there, else that of z."""
    return space if (folder / _name(space)).exists() else None


def write_residual(folder: Path, residual: Residual, space: Space | None = None) -> None:
    """The law as a file of tensors in the run folder."""
    tensors = {**_tensors(residual.law), "scale": residual.scale}
    write_tensors(folder / _name(space), tensors, {"rank": residual.law.rank})


def read_residual(folder: Path, device: torch.device, space: Space | None = None) -> Residual | None:
    """The law that lies in a run folder and is believed in for a space (`residual_space`), or None."""
    path = folder / _name(residual_space(folder, space))
    if not path.exists():
        return None
    tensors, _ = read_tensors(path)
    return Residual(_law(tensors), tensors["scale"]).to(device)


def _name(space: Space | None) -> str:
    """The file of the residual of a space."""
    return RESIDUAL if space in (None, "z") else RESIDUAL.replace(".", f".{space}.")


def _tensors(law: LowRankGaussian) -> dict[str, Tensor]:
    return {"mean": law.mean, "basis": law.basis, "variances": law.variances, "noise_variance": law.noise_variance}


def _law(tensors: Mapping[str, Tensor]) -> LowRankGaussian:
    return LowRankGaussian(tensors["mean"], tensors["basis"], tensors["variances"], tensors["noise_variance"])


def _surface(model: Model, condition: Mapping[str, Tensor], space: Space | None) -> NoisePrior:
    """f in one of its spaces."""
    told = dict(condition) or None
    surface = model.surface(told) if space is None else model.prior(told, space=space)  # type: ignore[call-arg]
    assert isinstance(surface, NoisePrior)
    return surface


def _search(surface: NoisePrior, batch: Batch, rows: Rows) -> tuple[Tensor, Tensor]:
    """f(z) of the z that explain a batch best, (n, *event_shape), and their noise."""
    x = batch.x
    with torch.no_grad():
        u = rows.normal(*surface.noise_shape)
        best = (surface.decode(u) - x).square().flatten(1).sum(1)
        for _ in range(_STARTS - 1):
            other = rows.normal(*surface.noise_shape)
            error = (surface.decode(other) - x).square().flatten(1).sum(1)
            u = torch.where((error < best).reshape(-1, *[1] * (u.dim() - 1)), other, u)
            best = torch.minimum(best, error)
        variance = best.mean() / x[0].numel()
    u = u.clone().requires_grad_()
    optimiser = torch.optim.Adam([u], lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
    for _ in range(_STEPS):
        with torch.enable_grad():
            square = (surface.decode(u) - x).square().flatten(1).sum(1)
            loss = 0.5 * u.square().sum() + 0.5 * square.sum() / variance
            (u.grad,) = torch.autograd.grad(loss, u)
        optimiser.step()
        schedule.step()
        variance = (0.9 * variance + 0.1 * square.detach().mean() / x[0].numel()).clamp_min(1e-6)
    u = u.detach()
    with torch.no_grad():
        return surface.decode(u), u
