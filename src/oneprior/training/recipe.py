"""A run's recipe: what has to be told to `oneprior.train` to train its like again, and the training by it.

Only settings that are not the defaults are kept, so that a recipe is as short as the command that a person would type.
The budget is the number of images that were drawn: minutes mean another training on every machine. A latent diffusion
has two trainings; its recipe tells both, and the first stage is trained again within the second's run
(`training.two_stage`), which gives three tenths of the budget to it unless it is told its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from oneprior.core import InputError
from oneprior.data.batch import Dataset
from oneprior.models import FAMILIES
from oneprior.training.config import TrainConfig
from oneprior.training.folder import RunRecord
from oneprior.training.progress import Progress
from oneprior.training.zoo import PREFIX, Entry, Recipe

_NOT_THE_RECIPE = {
    "images", "minutes", "seed", "checkpoint_every", "preview_every", "previews", "log_every", "tracker",
}  # fmt: skip
"""The budget is told in images, the seed beside the recipe; the others change no weight."""
_ELSEWHERE = {"autoencoder", "pretrained"}
"""Paths of another machine."""


def recipe_of(record: RunRecord, first: RunRecord | None = None) -> Recipe:
    """The recipe of a finished run.

    Args:
        record: of the run.
        first: of the run of its autoencoder, for a latent diffusion that stands on one.

    Raises:
        InputError: the run was not trained here.
    """
    if not record.train:
        raise InputError(f"this {record.family} was not trained by OnePrior (an import?), so it has no recipe")
    settings = _training(record.train) | changed_from_defaults(FAMILIES[record.family][0], record.model)
    images = record.result.get("images") if _learns(record) else None
    if record.family == "ldm":
        settings.pop("vqvae" if record.model["autoencoder_family"] == "vae" else "vae", None)
        if first is not None:
            from oneprior.training.two_stage import SHARE

            settings["autoencoder"] = {**_training(first.train), "images": first.result["images"]}
            images = None if images is None else round(images / (1 - SHARE))
    if images is not None:
        settings["images"] = images
    channels = {1: "grey", 3: "rgb"}.get(record.event_shape[0], "") if len(record.event_shape) == 3 else ""
    return Recipe(
        family=record.family,
        settings=settings,
        size=tuple(record.event_shape[1:]),
        channels=channels,
        labels=bool(record.conditions),
        subject=(record.data.get("split") or {}).get("subject") or "",
    )


def train_again(
    entry: Entry,
    data: Any,
    out: str | Path,
    *,
    images: int | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    subject: str | None = None,
    device: str | None = None,
    resume: bool = False,
    **settings: Any,
) -> Iterator[Progress]:
    """Train by the recipe of an entry, on its own data or others; an iterator of states.

    Args:
        entry: of the zoo.
        data: what `open_dataset` takes; events are brought to the size and the channels of the entry's.
        out: a folder for the run, whose record names the recipe and what was changed in it.
        images: another budget, in images.
        minutes: another budget, in minutes.
        seed: another seed than the entry's.
        subject: another rule for the subject in a file's name.
        device: where to compute; None for the best there is.
        resume: go on with the run in `out`.
        settings: others of `train_iter`, such as `preview_every`.

    Raises:
        InputError: something that was given cannot be used.
    """
    from oneprior.training.entry import train_iter

    recipe = entry.recipe
    told = {**recipe.settings, **with_budget(recipe, images, minutes), **settings}
    told = {name: value for name, value in told.items() if value is not None}
    options: dict[str, Any] = {"labels": None if recipe.labels else False}
    if not isinstance(data, Dataset):  # what is open already has its size
        options |= {"size": recipe.size, "channels": recipe.channels or None}
    yield from train_iter(
        recipe.family,
        data=data,
        out=out,
        data_options={name: value for name, value in options.items() if value is not None},
        subject=subject or recipe.subject or None,
        device=device,
        seed=entry.seed if seed is None else seed,
        resume=resume,
        **told,
    )
    changes = {"images": images, "minutes": minutes, "seed": seed, "subject": subject, **settings}
    _note(Path(out).expanduser(), entry, {name: value for name, value in changes.items() if value is not None})


def with_budget(recipe: Recipe, images: int | None, minutes: float | None) -> dict[str, Any]:
    """The settings that another budget changes; an autoencoder keeps its share of images.

    Raises:
        InputError: both budgets are given, or the family is fitted in closed form.
    """
    if images is None and minutes is None:
        return {}
    if images is not None and minutes is not None:
        raise InputError("give a budget in images or in minutes, not in both")
    if "images" not in recipe.settings:
        raise InputError(f"a {recipe.family} is fitted in closed form: it has no budget of images or minutes")
    changed: dict[str, Any] = {"images": images, "minutes": minutes}
    if first := recipe.settings.get("autoencoder"):
        scaled = None if images is None else max(1, round(first["images"] * images / recipe.settings["images"]))
        changed["autoencoder"] = {k: v for k, v in {**first, "images": scaled}.items() if v is not None}
    return changed


def changed_from_defaults(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not a dataclass's defaults; of a dataclass within, those of its own."""
    default, changed = asdict(kind()), {}
    for name, value in values.items():
        usual = default.get(name)
        if isinstance(value, Mapping) and isinstance(usual, Mapping):
            inner = {k: v for k, v in value.items() if _plain(v) != _plain(usual.get(k)) and k not in _ELSEWHERE}
            if inner:
                changed[name] = inner
        elif name not in _ELSEWHERE and _plain(value) != _plain(usual):
            changed[name] = value
    return changed


def _training(train: Mapping[str, Any]) -> dict[str, Any]:
    """What a training was told."""
    known = {f.name for f in fields(TrainConfig)} - _NOT_THE_RECIPE
    return changed_from_defaults(TrainConfig, {k: v for k, v in train.items() if k in known})


def _learns(record: RunRecord) -> bool:
    """Whether it was trained by steps, and not fitted in closed form."""
    return "steps" in record.result


def _note(folder: Path, entry: Entry, changes: Mapping[str, Any]) -> None:
    """Writes into a finished run by which recipe it was trained."""
    from oneprior.training.card import write_card

    record = RunRecord.read(folder)
    about = {"recipe": f"{PREFIX}{entry.name}", "changes": dict(changes)}
    record = replace(record, data={**record.data, **about})
    write_card(folder, record)
    record.write(folder)


def _plain(value: Any) -> Any:
    """Lists as tuples, as JSON has no tuples."""
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple) else value
