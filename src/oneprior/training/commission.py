"""A training that was asked for, everything checked; and carrying it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oneprior.core import ConditionSpec, InputError, ShapeError
from oneprior.data.batch import Dataset
from oneprior.models import family as family_of
from oneprior.models.base import Model
from oneprior.training.config import TrainConfig
from oneprior.training.folder import RunRecord, settings_from, write_text
from oneprior.training.loop import fit
from oneprior.training.material import Material
from oneprior.training.order import seeded
from oneprior.training.parallel import Team
from oneprior.training.progress import Progress
from oneprior.training.run import Run

SKIPPED = "skipped.txt"
_FIRST_STAGE = {"autoencoder", "autoencoder_family", "vae", "vqvae"}  # a run of its own, checked as such


@dataclass(frozen=True)
class Commission:
    """What is to be trained.

    Args:
        family: its name.
        config: of the training.
        model_config: of the family.
        material: the data.
        folder: of the run.
        team: who trains.
        before: the record of the run that is resumed; None for a new one.
        source: the run whose weights are the start; None for fresh ones.
    """

    family: str
    config: TrainConfig
    model_config: Any
    material: Material
    folder: Path
    team: Team
    before: RunRecord | None = None
    source: Run | None = None

    @property
    def conditions(self) -> tuple[ConditionSpec, ...]:
        """What the model is told."""
        return self.material.training.conditions

    @property
    def about(self) -> Mapping[str, Any]:
        """What config.json says of the data and of the start."""
        if self.source is None:
            return self.material.about
        licence = self.source.record.data.get("licence")
        start = {"from": self.source.name, "from_licence": licence}
        return {**self.material.about, **{name: value for name, value in start.items() if value}}


def carry_out(commission: Commission) -> Iterator[Progress]:
    """Train; an iterator of states."""
    if commission.before is not None and commission.before.finished:
        return iter([finished(commission.before)])
    model = new_model(commission)
    prepared = take_over(model, commission)
    return states(commission, model, commission.material.training, commission.material.held_out, prepared)


def states(
    commission: Commission, model: Model, training: Dataset, held_out: Dataset | None, prepared: bool, **options: Any
) -> Iterator[Progress]:
    """`fit` with what the commission says."""
    write_skipped(commission)
    return fit(
        model,
        training,
        commission.config,
        commission.folder,
        held_out=held_out,
        about=commission.about,
        resume=commission.before is not None,
        prepared=prepared,
        team=commission.team,
        **options,
    )


def new_model(commission: Commission) -> Model:
    """The model with its first weights, a function of the seed."""
    with seeded(commission.config.seed, "init"):
        kind = family_of(commission.family)
        return kind(commission.model_config, commission.material.training.event_shape, commission.conditions)


def take_over(model: Model, commission: Commission) -> bool:
    """Copies the weights of the run to start from; False where there is none.

    Raises:
        InputError: that run has another family, shape, conditions or settings.
    """
    run = commission.source
    if run is None:
        return False
    if tuple(run.event_shape) != tuple(model.event_shape):
        raise ShapeError(f"the run {run.name} to start from", run.event_shape, model.event_shape, "Give its --size")
    theirs, ours = run.model.state_dict(), model.state_dict()
    wrong = [name for name in ours if name not in theirs or theirs[name].shape != ours[name].shape]
    wrong += [name for name in theirs if name not in ours]
    if wrong:
        raise InputError(
            f"the run {run.name} cannot be started from: its {wrong[0]} (of {len(wrong)} such) does not fit; "
            "leave the family's settings and the conditions as they are there"
        )
    model.load_state_dict(theirs)
    return True


def check_same(commission: Commission) -> None:
    """That a run to be resumed is the one that was asked for.

    Raises:
        InputError: names every setting that differs.
    """
    before = commission.before
    assert before is not None
    told = settings_from(type(commission.model_config), before.model, str(commission.folder))
    mine, theirs = asdict(commission.model_config), asdict(told)
    apart = _FIRST_STAGE if commission.family == "ldm" else set()
    differ = {name: (mine[name], theirs[name]) for name in set(mine) - apart if mine[name] != theirs[name]}
    differ |= commission.config.differences(TrainConfig(**before.train))
    for name in ("n", "options", "split"):
        now, then = commission.material.about[name], before.data.get(name)
        if _listed(now) != _listed(then):
            differ[f"data {name}"] = (now, then)
    now, then = commission.material.about["fingerprint"], before.data.get("fingerprint")
    if then is not None and now != then and not differ:
        differ["data"] = (f"{commission.material.about['path']}, whose events or ranges are others", "not")
    if tuple(before.event_shape) != tuple(commission.material.training.event_shape):
        differ["event_shape"] = (tuple(commission.material.training.event_shape), before.event_shape)
    if differ:
        said = "; ".join(f"{name} is {ours}, and was {theirs}" for name, (ours, theirs) in sorted(differ.items()))
        raise InputError(
            f"{commission.folder} cannot be resumed, since it was started otherwise: {said}. Give the same settings, "
            "or start a new run --from it"
        )


def finished(record: RunRecord) -> Progress:
    """The last state of a run that is finished already."""
    result = record.result
    return Progress(
        step=result.get("steps", 0),
        images=result.get("images", 0),
        fraction=1.0,
        seconds=result.get("seconds", 0.0),
        seconds_left=0.0,
        losses=result.get("losses", {}),
        finished=True,
    )


def write_skipped(commission: Commission) -> None:
    """The files that were left out, a line each, where there are any."""
    skipped = commission.material.about["skipped"]
    if skipped and commission.team.main:
        write_text(commission.folder / SKIPPED, "".join(f"{name}\t{reason}\n" for name, reason in skipped))


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {name: _listed(inner) for name, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value
