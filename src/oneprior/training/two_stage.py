"""Latent diffusion's two trainings: the autoencoder as a run of its own, then the diffusion on cached latents.

The autoencoder comes from a run, from a folder of diffusers, or is trained first, in `autoencoder/` inside the run
folder, on three tenths of the budget. The data are then encoded once, and the diffusion spends the rest on latents.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from oneprior.core import InputError, Rows, ShapeError
from oneprior.models.base import Model
from oneprior.models.ldm import LatentDiffusion
from oneprior.models.vae import VAE
from oneprior.models.vqvae import VQVAE
from oneprior.training.checkpoint import Checkpoints
from oneprior.training.commission import Commission, carry_out, check_same, finished, states, take_over
from oneprior.training.folder import CONFIG, RunRecord, settings_from
from oneprior.training.latents import CachedLatents, encode_dataset
from oneprior.training.order import passes_over, seeded
from oneprior.training.progress import Progress
from oneprior.training.residual import leave_laws
from oneprior.training.run import load
from oneprior.training.schedules import Budget

SHARE = 0.3  # of the budget, for an autoencoder that is trained here


def carry_out_in_two_stages(
    commission: Commission, autoencoder: str | Path | Mapping[str, Any] | None = None
) -> Iterator[Progress]:
    """Train a latent diffusion; an iterator of states, those of the first stage included.

    Args:
        commission: of family "ldm".
        autoencoder: a run, a folder of diffusers, or changes to the training settings of the first stage; None for
            what the family's settings say.
    """
    if commission.before is not None and commission.before.finished:
        yield finished(commission.before)
        return
    inner, spent, share = commission.folder / "autoencoder", 0.0, 0.0
    place = commission.model_config.autoencoder if isinstance(autoencoder, Mapping | None) else str(autoencoder)
    saved = Checkpoints(commission.folder / "checkpoint").newest() if commission.before is not None else None
    if saved is None and commission.source is None and not place:
        first_stage = _first_stage(commission, autoencoder if isinstance(autoencoder, Mapping) else {})
        for progress in carry_out(first_stage):
            left = None if progress.seconds_left is None else progress.seconds_left / SHARE
            share = SHARE * progress.fraction
            yield replace(progress, fraction=share, seconds_left=left, stage="autoencoder", finished=False)
    if (inner / CONFIG).exists():
        spent, share = RunRecord.read(inner).result["seconds"], SHARE
    if saved is not None or commission.source is not None:
        first = None
    else:
        first = _given(str(place or inner), commission)
    model = _model(commission, first)
    if saved is not None:
        model.load_state_dict(dict(saved.model))
    elif first is not None:
        _prepare(model, commission)
    else:
        take_over(model, commission)
    for progress in _second_stage(commission, model, spent, share):
        fraction = share + (1 - share) * progress.fraction
        yield replace(progress, fraction=1.0 if progress.finished else fraction, seconds=spent + progress.seconds)


def _prepare(model: LatentDiffusion, commission: Commission) -> None:
    """The scale of the latents, and what the diffusion wants to know of them."""
    config, device = commission.config, commission.team.device
    model.to(device).eval()
    with seeded(config.seed, "prepare", device=device):
        rows = Rows(config.batch_size, seed=config.seed, stream="prepare", device=device)
        model.prepare(passes_over(commission.material.training, config.batch_size, config.seed, device), rows)


def _second_stage(commission: Commission, model: LatentDiffusion, spent: float, share: float) -> Iterator[Progress]:
    """Encode the data, then learn the latents."""
    config, team, cached = commission.config, commission.team, []
    start = time.perf_counter()
    model.to(team.device).eval()
    for name, data in (("training", commission.material.training), ("held_out", commission.material.held_out)):
        folder = commission.folder / "latents" / name
        if data is not None and team.main:
            for done in encode_dataset(model.latents, data, folder, config.batch_size, team.device):
                seconds = time.perf_counter() - start
                yield Progress(0, 0, 0.0, seconds, stage="encoding", losses={"metric/encoded": done})
        team.wait()
        cached.append(None if data is None else CachedLatents(folder, data))
    if config.residual and team.main:  # of the codec, which is learned already
        material = commission.material
        leave_laws(commission.folder, model, material.training, material.held_out, config.residual, config.seed)
    whole, encoding = Budget.of(config), team.agree(time.perf_counter() - start)
    if whole.images is None:
        budget = Budget(seconds=max(1.0, (whole.seconds or 0.0) - spent - encoding))
    else:
        steps = max(1, round(whole.images * (1 - share) / config.batch_size))
        budget = Budget(images=steps * config.batch_size)
    for progress in states(commission, model, cached[0], cached[1], True, budget=budget):
        yield replace(progress, seconds=encoding + progress.seconds)


def _first_stage(commission: Commission, changes: Mapping[str, Any]) -> Commission:
    """The training of the autoencoder: the same data without conditions, a share of the budget."""
    config, folder = commission.config, commission.folder / "autoencoder"
    budget = Budget.of(config)
    mine: dict[str, Any] = {"learning_rate": None, "learning_rate_scale": 1.0, "ema": None, "clip": None}
    mine |= {"keep": "last", "patience": None}
    if budget.images is None:
        mine["minutes"] = (budget.seconds or 0.0) / 60 * SHARE
    else:
        mine["images"] = max(1, round(budget.images * SHARE))
    if changes and ("images" in changes or "minutes" in changes):
        mine |= {"images": None, "minutes": None}
    try:
        config = replace(config, **(mine | dict(changes)))
    except TypeError as error:
        raise InputError(f"autoencoder: {error}; give settings of the training, and the rest with model=") from None
    settings = commission.model_config
    first = replace(
        commission,
        family=settings.autoencoder_family,
        model_config=settings.first_stage,
        config=config,
        folder=folder,
        before=RunRecord.read(folder) if (folder / CONFIG).exists() else None,
        material=commission.material.unlabelled(),
    )
    if first.before is not None:
        check_same(first)
    return first


def _model(commission: Commission, first: VAE | VQVAE | None) -> LatentDiffusion:
    """A latent diffusion on its first stage, or on the one that its settings describe."""
    config, conditions, before = commission.model_config, commission.conditions, commission.before
    with seeded(commission.config.seed, "init"):
        if first is not None:
            return LatentDiffusion.from_autoencoder(config, first, conditions)
        if before is not None:
            config = settings_from(type(config), before.model, str(commission.folder))
        return LatentDiffusion(config, commission.material.training.event_shape, conditions)


def _given(place: str, commission: Commission) -> VAE | VQVAE:
    """The autoencoder of a run, or of a folder of diffusers."""
    shape = commission.material.training.event_shape
    if _of_diffusers(Path(place)):
        from oneprior.models.diffusers_format import import_diffusers

        if len(shape) != 3:
            raise InputError(f"{place} is an autoencoder of pictures, and the data have shape {tuple(shape)}")
        model: Model = import_diffusers(place, size=(shape[1], shape[2]))
    else:
        model = load(place, commission.team.device).model
    if not isinstance(model, VAE | VQVAE):
        raise InputError(f"{place} is a {model.family}; latent diffusion stands on a vae (--spatial) or a vqvae")
    if tuple(model.event_shape) != tuple(shape):
        raise ShapeError(f"the autoencoder {place}", model.event_shape, shape, "Give its --size")
    if model.conditions:
        raise InputError(f"{place} was trained with conditions; train the autoencoder with labels=False (--no-labels)")
    return model


def _of_diffusers(folder: Path) -> bool:
    """Whether a folder was written by diffusers: its config.json names a class."""
    config = folder / CONFIG
    return config.is_file() and b'"_class_name"' in config.read_bytes()
