"""The front door: one call from a path to a trained run.

    run = train("diffusion", data="films/", out="runs/films", size=(64, 64), minutes=30)

A setting goes by its name alone to whoever has it: the training (`TrainConfig`), the family (its config), or the data
(`open_dataset`), asked in this order. What nobody has is refused, with the nearest name that somebody has.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from oneprior.core import Geometry, InputError
from oneprior.data import open_dataset
from oneprior.models import FAMILIES
from oneprior.training.commission import Commission, carry_out, check_same
from oneprior.training.config import TrainConfig
from oneprior.training.folder import CONFIG, RunRecord, settings_from
from oneprior.training.material import open_material
from oneprior.training.parallel import Team
from oneprior.training.progress import Progress
from oneprior.training.run import Run, load, refuse_existing
from oneprior.training.two_stage import carry_out_in_two_stages


def train(
    family: str,
    *,
    data: Any,
    out: str | Path,
    progress: Callable[[Progress], None] | None = None,
    device: str | None = None,
    **settings: Any,
) -> Run:
    """Train a family on data and give back the run.

    Args:
        family: "ppca", "vae", "gan", "vqvae", "diffusion" or "ldm".
        data: a path, an array, or a `Dataset`; see `open_dataset`.
        out: a folder for the run.
        progress: called after every step.
        device: where to compute; None for the best there is.
        settings: of `train_iter`.

    Raises:
        InputError: something that was given cannot be used; says what to do.
        DivergedError: a loss became non-finite.
    """
    for state in train_iter(family, data=data, out=out, device=device, **settings):
        if progress is not None:
            progress(state)
    return load(out)


def train_iter(
    family: str,
    *,
    data: Any,
    out: str | Path,
    config: TrainConfig | None = None,
    model: Any = None,
    resume: bool = False,
    start_from: str | Path | None = None,
    autoencoder: str | Path | Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    subject: str | None = None,
    device: str | None = None,
    **settings: Any,
) -> Iterator[Progress]:
    """`train`, as an iterator of states; everything is checked before the first one.

    Args:
        family: as in `train`.
        data: as in `train`.
        out: as in `train`; it must not hold a run, unless `resume`.
        config: how to train; None for the defaults.
        model: the family's settings, its dataclass or a mapping; None for the defaults.
        resume: go on with the run in `out`; where there is none, start it.
        start_from: a run of the same family and shape whose weights are the start (`--from`).
        autoencoder: for "ldm": a trained run, a diffusers folder, or settings of the autoencoder to train first.
        data_options: of `open_dataset`, where a name would be the family's too.
        subject: the subject in a file's name, a regular expression; no subject is then on both sides of the split.
        device: as in `train`.
        settings: single settings of the training, the family or the data, by name (`images=`, `size=`, ...).
    """
    if family not in FAMILIES:
        raise InputError(f"family {family!r} is unknown; it is one of {', '.join(FAMILIES)}")
    folder = Path(out).expanduser()
    before = RunRecord.read(folder) if resume and (folder / CONFIG).exists() else None
    if before is None:
        refuse_existing(folder, resume)
    given = _sort(family, settings, data_options)
    base = config or (TrainConfig(**before.train) if before else TrainConfig())
    config = replace(base, **given.training)
    source = load(start_from) if start_from is not None else None
    model_config = _model_config(family, model, given.model, before or (source.record if source else None), folder)
    if autoencoder is not None and family != "ldm":
        raise InputError(f"an autoencoder is given, and the family is {family}: only ldm stands on one")
    material = open_material(
        data,
        given.data,
        held_out=config.held_out,
        seed=config.seed,
        subject=subject,
        must_hold_out=config.keep == "best" or config.patience is not None,
    )
    if before is None:
        told = model is not None or "prior_start" in given.model
        model_config = _suited(model_config, material.training.geometry, coded=source is not None and not told)
    commission = Commission(family, config, model_config, material, folder, Team(device), before, source)
    if before is not None:
        check_same(commission)
    commission.team.wait()  # every process has looked into the folder before the first one writes there
    if family == "ldm":
        return carry_out_in_two_stages(commission, autoencoder)
    return carry_out(commission)


@dataclass(frozen=True)
class _Given:
    """Settings by whom they belong to."""

    training: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]


def _sort(family: str, settings: Mapping[str, Any], data_options: Mapping[str, Any] | None) -> _Given:
    """Each setting to the first that has its name: the training, the family, the data.

    Raises:
        InputError: nobody has it; names the nearest.
    """
    training = {f.name for f in fields(TrainConfig)}
    kind = FAMILIES[family][0]
    model = {f.name for f in fields(kind)}
    data = set(inspect.signature(open_dataset).parameters) - {"path"}
    given = _Given({}, {}, dict(data_options or {}))
    if strange := sorted(set(given.data) - data):
        raise InputError(f"data options: there is no {_nearest(strange[0], data)}")
    for name, value in settings.items():
        for names, place in ((training, given.training), (model, given.model), (data, given.data)):
            if name in names:
                place[name] = value
                break
        else:
            raise InputError(f"{family} has no setting {_nearest(name, training | model | data)}")
    return given


def _nearest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"{name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}")


def _model_config(family: str, model: Any, single: Mapping[str, Any], known: RunRecord | None, folder: Path) -> Any:
    """The family's settings: those given, on top of the known run's, on top of the defaults."""
    kind = FAMILIES[family][0]
    if known is not None and known.family != family:
        raise InputError(f"the run that is there is of family {known.family}, and {family} was asked for")
    base = settings_from(kind, known.model, f"{folder}/{CONFIG}") if known is not None else kind()
    if isinstance(model, Mapping):
        base = _changed(base, model)
    elif model is not None:
        if not isinstance(model, kind):
            raise InputError(f"settings of {family} are a {kind.__name__}, got a {type(model).__name__}")
        base = model
    return _changed(base, single)


def _suited(config: Any, geometry: Geometry, coded: bool) -> Any:
    """The family's settings, as the data and a start from another run of codes have them, where the family has such.

    Args:
        config: settings of a family.
        geometry: of the data.
        coded: whether the codes have a meaning already; then they keep it.
    """
    if geometry.tokens and hasattr(config, "one_hot"):
        config = replace(config, one_hot=geometry.groups)
    if coded and getattr(config, "prior_start", 1) < 1:
        config = replace(config, prior_start=0.0)
    return config


def _changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """A frozen dataclass with some of its values changed, those of dataclasses inside it too."""
    known = {f.name for f in fields(config)}
    new = {}
    for name, value in changes.items():
        if name not in known:
            raise InputError(f"{type(config).__name__} has no setting {_nearest(name, known)}")
        inner = getattr(config, name)
        if isinstance(value, Mapping) and is_dataclass(inner):
            value = _changed(inner, value)
        new[name] = tuple(value) if isinstance(value, list) else value
    return replace(config, **new)
