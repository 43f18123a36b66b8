"""From a trained run to an entry of the zoo (`training.zoo`), and back to a run of one's own.

An entry is shared, so it is made small and honest. Weights are stored in half precision (IEEE 754 binary16: 11 bits, so
each is rounded by up to 2^-12 of itself) and used in single; tensors of few numbers stay as they are, since they cost
nothing and variances are among them, which binary16 loses below 6e-8. Whether the prior notices is measured: the same
random rows are drawn through both sets of weights, and the typical row must move by less than `MOST_ERROR` of the
deviation of the draws. What only the training needs (checkpoints, optimisers, paths of another machine) is left out,
and so is a latent diffusion's first stage, whose weights are among its own.

An entry without a known licence of its data is refused, as is one that is too large for a repository.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.models.base import Model
from oneprior.models.ppca import PPCA
from oneprior.training.card import zoo_card
from oneprior.training.folder import (
    CARD,
    CONFIG,
    WEIGHTS,
    RunRecord,
    read_tensors,
    write_tensors,
    write_text,
)
from oneprior.training.recipe import recipe_of
from oneprior.training.run import GUIDE, Run, load
from oneprior.training.zoo import (
    EXAMPLES,
    FACTS,
    PREFIX,
    Entry,
    Facts,
    Figure,
    checksum,
    names,
    share_alike,
    zoo_folder,
)
from oneprior.training.zoo import entry as entry_of

MOST_MEGABYTES, MOST_IN_ALL = 20.0, 100.0
"""Of one entry and of the zoo, in millions of bytes: a repository is cloned whole."""
MOST_ERROR = 0.02
"""How far the typical draw may move, in deviations of the draws: a fiftieth is seen nowhere."""
_FEW = 1024
_DRAWS = 16


def publish(
    run: Run,
    name: str,
    facts: Facts,
    zoo: str | Path | None = None,
    *,
    first: RunRecord | None = None,
    figures: Sequence[Figure] = (),
    cpu_minutes: float | None = None,
    examples: Tensor | None = None,
) -> Entry:
    """Write a trained run as an entry; one of the same name is replaced.

    Args:
        run: finished, with the weights in single precision.
        name: of the entry: small letters, digits and dashes.
        facts: of the data.
        zoo: a folder of entries; the package's own where None.
        first: the record of the run of its autoencoder, for a latent diffusion that stands on one.
        figures: what was measured, the telling one first.
        cpu_minutes: what the training cost, its first stage included.
        examples: a few events to try it on, not seen in training, (n, *event_shape) in [-1, 1], of pictures.

    Returns:
        The entry as it was written.

    Raises:
        InputError: the run is unfinished, the licence unknown, the entry or the zoo too large, or half precision
            changes the prior.
    """
    place = Path(zoo).expanduser() if zoo is not None else zoo_folder()
    _check(run, name, facts)
    recipe = recipe_of(run.record, first)
    partial = place / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        error = _write_run(run, partial, _shared(run.record, facts, name))
        if examples is not None:
            shown = [f"{k:02d}" for k in range(len(examples))]
            run.save(examples, partial / EXAMPLES, names=shown)
        result = run.record.result
        cost = {
            "images": result.get("images"),
            "seconds": result.get("seconds"),
            "cpu_minutes": cpu_minutes,
            "hardware": result.get("hardware", {}),
        }
        made = Entry(
            folder=place / name,
            facts=facts,
            recipe=recipe,
            event_shape=tuple(run.event_shape),
            seed=run.record.train.get("seed", 0),
            cost=cost,
            figures=tuple(figures),
            relative_error=error,
            files={},
        )
        write_text(partial / CARD, zoo_card(RunRecord.read(partial), made))
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        made = replace(made, files={path.relative_to(partial).as_posix(): checksum(path) for path in files})
        write_text(partial / FACTS, made.to_json())
        _check_size(replace(made, folder=partial), name, place)
        shutil.rmtree(place / name, ignore_errors=True)
        partial.rename(place / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Entry.read(place / name)


def get(name: str, out: str | Path, zoo: str | Path | None = None) -> Run:
    """An entry as a run folder of one's own, with weights in single precision and its examples.

    Args:
        name: of the entry, with or without `zoo:`.
        out: a folder that holds no run yet.
        zoo: a folder of entries; the package's own where None.

    Raises:
        InputError: no such entry, or a folder that is taken.
        BadRunError: a file of the entry is not as it was published.
    """
    known, folder = entry_of(name, Path(zoo) if zoo is not None else None), Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and holds something; give a new or an empty folder")
    known.check()
    for file in known.files:
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".safetensors":
            tensors, about = read_tensors(known.folder / file)
            write_tensors(target, tensors, about)
        elif file != CONFIG:
            shutil.copyfile(known.folder / file, target)
    RunRecord.read(known.folder).write(folder)  # last: it says that the run is whole
    return load(folder)


def half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are stored: large ones of numbers in half precision.

    Raises:
        InputError: a number is too large for it.
    """
    stored = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        small = tensor.numel() < _FEW or not tensor.is_floating_point()
        stored[name] = tensor if small else tensor.half()
        if not small and not bool(stored[name].isfinite().all()):
            raise InputError(f"{name} holds {float(tensor.abs().max()):.3g}, and half precision ends at 65504")
    return stored


def difference(model: Model, other: Model, draws: int = _DRAWS) -> float:
    """How far the same random rows lie apart under two sets of weights: the median over rows of the root mean square
    difference, in deviations of the draws."""
    with torch.no_grad():
        x, y = (one.prior().sample(Rows(draws, seed=0, device=one.device)).double().cpu() for one in (model, other))
    deviation = (x - x.mean(0)).square().mean().sqrt().clamp_min(1e-12)
    return float(((x - y).flatten(1).square().mean(1).sqrt() / deviation).median())


def _check(run: Run, name: str, facts: Facts) -> None:
    """Raises where a run must not be shared."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise InputError(f"{name!r} is no name of an entry: take small letters, digits and dashes")
    if not run.record.finished:
        raise InputError(f"{run.path} is not finished; go on with oneprior train ... --resume, and publish it then")
    if not facts.licence or facts.licence.lower() in ("unknown", "other", "none"):
        raise InputError(f"the licence of the data of {run.path} is not known: find it before the weights are shared")
    own = str(run.record.data.get("licence", ""))
    if share_alike(own) and facts.licence.upper() != own.upper():
        raise InputError(
            f"{run.path} was trained on data under {own}, which asks that what is made of it is shared alike: publish "
            f"it under {own}, not {facts.licence}"
        )
    if missing := [key for key, value in asdict(facts).items() if not value and key != "examples"]:
        raise InputError(f"{name}: the facts lack {', '.join(missing)}; say them, a card without them helps nobody")


def _shared(record: RunRecord, facts: Facts, name: str) -> RunRecord:
    """The record without paths of another machine, and with the licence."""
    data = {key: record.data[key] for key in ("n", "trained_on", "held_out", "fingerprint") if key in record.data}
    about = {"path": facts.data, "licence": facts.licence, "credit": facts.credit, **data, "zoo": f"{PREFIX}{name}"}
    model = {**record.model, **{key: "" for key in ("autoencoder", "pretrained") if key in record.model}}
    return replace(record, model=model, data=about)


def _write_run(run: Run, folder: Path, record: RunRecord) -> float:
    """The files of the run in half precision; returns how far that moves the prior, or its guide if that is more."""
    model = run.model
    if isinstance(model, PPCA):
        model = model.trimmed()
        record = replace(record, model=model.config_dict())
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"family": record.family, "event_shape": list(record.event_shape)}
    write_tensors(folder / WEIGHTS, half(model.state_dict()), facts)
    for path in sorted(run.path.glob("*.safetensors")):  # the laws beside it
        if path.name != WEIGHTS:
            tensors, about = read_tensors(path)
            write_tensors(folder / path.name, half(tensors), about)
    record.write(folder)
    error = difference(model, load(folder).model)
    if error > MOST_ERROR:
        raise InputError(f"half precision moves the draws of {run.path} by {error:.1%} of their deviation: train it on")
    if (run.path / GUIDE / CONFIG).exists():
        lender = load(run.path / GUIDE)
        about = {**record.data, "trained_on": lender.record.data.get("trained_on")}
        error = max(error, _write_run(lender, folder / GUIDE, replace(lender.record, data=about)))
    return error


def _check_size(made: Entry, name: str, zoo: Path) -> None:
    """Raises where an entry is too large by itself, or for the zoo."""
    own = made.megabytes
    others = sum(entry_of(one, zoo).megabytes for one in names(zoo) if one != name)
    if own > MOST_MEGABYTES:
        raise InputError(
            f"{name} has {own:.1f} MB, and an entry has {MOST_MEGABYTES:g} at most: train a smaller network"
        )
    if own + others > MOST_IN_ALL:
        raise InputError(
            f"with {name} ({own:.1f} MB) the zoo has {own + others:.1f} MB, and {MOST_IN_ALL:g} is the most: remove one"
        )
