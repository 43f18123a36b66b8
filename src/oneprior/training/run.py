"""A trained run: the folder as one object, and the way back to the user's units.

run = load("runs/films")
x = run.prior().sample(Rows(16, seed=0))
run.save(x, "samples/")                    # 16-bit films again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneprior.core import AffineMap, BadRunError, ConditionSpec, Geometry, InputError
from oneprior.models import FAMILIES, family
from oneprior.models.base import Model
from oneprior.priors.base import Prior
from oneprior.priors.diffusion.blended import Blended
from oneprior.priors.diffusion.prior import DiffusionPrior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import GaussianMixturePrior
from oneprior.priors.residual import with_residual
from oneprior.priors.styles import Space
from oneprior.training.card import write_card
from oneprior.training.checkpoint import Checkpoints
from oneprior.training.folder import (
    CONFIG,
    WEIGHTS,
    RunRecord,
    check_tensors,
    read_tensors,
    settings_from,
    write_tensors,
)
from oneprior.training.zoo import located, name_of

RESIDUAL = "residual.safetensors"
"""The law of what the decoder cannot say, where the family has one; see `training.residual`."""

MOMENTS = "moments.safetensors"
"""The Gaussian of the data; see `tasks.familiarity`."""

GUIDE = "guide"
"""The run of a mixture of the data, which lends a denoiser its covariance; see `training.guide`."""

BLEND = "blend.safetensors"
"""How much of it the denoiser itself is blended with, by noise level; see there."""


@dataclass(frozen=True)
class Run:
    """A model with everything its folder knows.

    Args:
        path: the run folder.
        model: with the weights that the run keeps, in evaluation mode.
        record: what config.json says.
    """

    path: Path
    model: Model
    record: RunRecord

    @property
    def name(self) -> str:
        """How the run is called on a page or a command line: its path, or `zoo:NAME`."""
        return name_of(self.path)

    @property
    def published(self) -> bool:
        """Whether it is an entry of the package's zoo, which stays as it is."""
        return self.name != str(self.path)

    def refuse_published(self) -> None:
        """Raises `InputError` for an entry of the zoo, before something is written into its folder."""
        if self.published:
            raise InputError(f"{self.name} stays as it was published; take a run of your own: oneprior zoo get")

    @property
    def family(self) -> str:
        """The name of the family."""
        return self.record.family

    @property
    def config(self) -> Any:
        """The family's settings."""
        return self.model.config

    @property
    def event_shape(self) -> torch.Size:
        """(channels, *space) of one event."""
        return self.model.event_shape

    @property
    def conditions(self) -> tuple[ConditionSpec, ...]:
        """What the model can be told."""
        return self.model.conditions

    @property
    def units(self) -> AffineMap:
        """How x in [-1, 1] reads in the user's units."""
        return self.record.units

    @property
    def geometry(self) -> Geometry:
        """How an event is written back the way it came."""
        return self.record.geometry

    def prior(self, condition: Mapping[str, Any] | None = None, **options: Any) -> Prior:
        """The law that was learned.

        Args:
            condition: tensors with one row each or one for all, of a class its numbers 0 .. K-1; for a class also its
                name (the number 7 is the class named "7" where there is one, else class 7), or a list of such; for a
                vector also a list of numbers.
            options: the family's own (`steps`, `cfg_scale`, ...).
        """
        return self.model.prior(self.told(condition), **options)

    def whole_prior(
        self,
        condition: Mapping[str, Any] | None = None,
        *,
        space: Space | None = None,
        truncation: float | None = None,
    ) -> Prior:
        """The law of real events that inference should believe in: `prior`, or the decoder's surface with the residual
        that was measured around it (`priors.residual`), or the denoiser blended with the mixture that it keeps
        (`priors.diffusion.blended`), where the run has one and no condition is bound.

        Args:
            condition: as of `prior`.
            space: of a GAN, whose residual is believed that was measured in this space (`residual_space`).
            truncation: of a GAN.
        """
        from oneprior.training.residual import read_residual

        told = self.told(condition)
        options = {k: v for k, v in {"space": space, "truncation": truncation}.items() if v is not None}
        law = read_residual(self.path, self.model.device, space)
        if law is None or self.model.surface() is None:
            return self._blended(self.model.prior(told, **options)) if not told else self.model.prior(told, **options)
        surface = self.model.prior(told, **options) if options else self.model.surface(told)
        assert surface is not None
        return with_residual(surface, law)

    def _blended(self, prior: Prior) -> Prior:
        """A denoiser with its mixture, where the run has the weights of both."""
        guide = self.guide() if (self.path / BLEND).exists() else None
        if guide is None or not isinstance(prior, DiffusionPrior):
            return prior
        kept, _ = read_tensors(self.path / BLEND)
        return Blended(prior, guide, kept["levels"], kept["weights"])

    def moments(self) -> LowRankGaussian | None:
        """The Gaussian of the data that the run was trained on, where it is known."""
        from oneprior.training.residual import read_moments

        law = self.model.prior() if not self.conditions and not self.model.players else None
        return law if isinstance(law, LowRankGaussian) else read_moments(self.path, self.model.device)

    def guide(self) -> LowRankGaussian | GaussianMixturePrior | None:
        """The law of the data that lends the run's denoiser its covariance, where the run keeps one; read once."""
        return self._guide

    @cached_property
    def _guide(self) -> LowRankGaussian | GaussianMixturePrior | None:
        if not (self.path / GUIDE / CONFIG).exists():
            return None
        law = load(self.path / GUIDE, self.model.device).prior()
        assert isinstance(law, LowRankGaussian | GaussianMixturePrior)
        return law

    def to_units(self, x: Tensor) -> Tensor:
        """x in [-1, 1] -> the user's units."""
        return self.units.to_units(x)

    def save(self, x: Tensor, path: str | Path, **options: Any) -> list[Path]:
        """Writes events (n, *event_shape) in [-1, 1] to files in the user's units, type and geometry.

        Args:
            x: the events.
            path: a file or a folder; see `oneprior.data.write_events`.
            options: of `write_events`: `names` of the files in a folder, `columns` of a sheet.
        """
        from oneprior.data import write_events

        return write_events(x, path, self.units, self.geometry, **options)

    def told(self, condition: Mapping[str, Any] | None) -> dict[str, Tensor] | None:
        """Conditions as `prior` takes them, as tensors with one row each or one for all."""
        if condition is None:
            return None
        specs = {spec.name: spec for spec in self.conditions}
        if strange := sorted(set(condition) - set(specs)):
            raise InputError(f"the run knows no condition {', '.join(strange)}; it has {', '.join(specs) or 'none'}")
        return {name: _tensor(value, specs[name], self.model.device) for name, value in condition.items()}


def _tensor(value: Any, spec: ConditionSpec, device: torch.device) -> Tensor:
    """A condition as the tensor that `Model.prior` takes."""
    if isinstance(value, Tensor):
        return value.to(device)
    if spec.kind == "class":
        values = [value] if isinstance(value, int | str) else list(value)
        numbers = [spec.names.index(str(v)) if str(v) in spec.names else _number(v, spec) for v in values]
        return torch.tensor(numbers, device=device)
    tensor = torch.as_tensor(value, dtype=torch.float32, device=device)
    return tensor if tensor.dim() == len(spec.shape) + 1 else tensor.unsqueeze(0)


def _number(value: Any, spec: ConditionSpec) -> int:
    known = f"0 .. {spec.classes - 1}" + (f" ({', '.join(spec.names[:8])})" if spec.names else "")
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise InputError(f"{spec.name} is a class {known}; got {value!r}") from None
    if not 0 <= number < spec.classes:
        raise InputError(f"{spec.name} is a class {known}; got {number}")
    return number


def load(path: str | Path, device: torch.device | str = "cpu") -> Run:
    """Open a run folder.

    An unfinished run gives the averaged weights of its newest checkpoint.

    Args:
        path: the folder that `train` wrote, or `zoo:NAME` for a prior that comes with the package.
        device: where the model is put.

    Raises:
        BadRunError: missing, truncated, foreign, or of a newer version; names the file, the reason and the remedy.
        InputError: the zoo has no entry of this name.
    """
    folder = located(path)
    record = RunRecord.read(folder)
    model = build(record, folder)
    source, state = folder / WEIGHTS, {}
    if not source.exists() and (checkpoint := Checkpoints(folder / "checkpoint").newest()):
        source, state = folder / "checkpoint", checkpoint.kept
    else:
        state, _ = read_tensors(source)
    check_tensors(source, state, model.state_dict())
    model.load_state_dict(state)
    model.progress = 1.0
    return Run(folder, model.to(device).eval(), record)


def build(record: RunRecord, folder: Path) -> Model:
    """The model that a record describes, its weights not read yet."""
    kind, _ = FAMILIES[record.family]
    config = settings_from(kind, record.model, f"{folder}/config.json")
    try:
        return family(record.family)(config, torch.Size(record.event_shape), record.conditions)
    except InputError as error:
        raise BadRunError(f"{folder}/config.json describes no model that can be built: {error}") from None


def save(
    model: Model,
    path: str | Path,
    *,
    units: AffineMap | None = None,
    geometry: Geometry | None = None,
    data: Mapping[str, Any] | None = None,
) -> Run:
    """Write a model that was not trained here (an import, a hand-made one) as a run folder.

    Args:
        model: of a known family.
        path: a folder that holds no run yet.
        units: of the data it was trained on; [-1, 1] where None.
        geometry: of these data.
        data: what the card says of them ("path", "licence").
    """
    folder = Path(path).expanduser()
    refuse_existing(folder)
    record = RunRecord(
        family=model.family,
        model=model.config_dict(),
        event_shape=tuple(model.event_shape),
        conditions=model.conditions,
        units=units or AffineMap(),
        geometry=geometry or Geometry(),
        data=dict(data or {}),
        finished=True,
    )
    write_run(folder, record, model.state_dict())
    return Run(folder, model.eval(), record)


def write_run(folder: Path, record: RunRecord, state: Mapping[str, Tensor]) -> None:
    """The three files of a finished run: weights first, and config.json, which says that it is finished, last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, state, {"family": record.family, "event_shape": list(record.event_shape)})
    write_card(folder, record)
    record.write(folder)


def refuse_existing(folder: Path, resume: bool = False) -> None:
    """Raises `InputError` where a folder holds a run, or files that a run would overwrite.

    Args:
        folder: where a run is to be written.
        resume: whether the first of two stages may be there: it is gone on with.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the run")
    for name in (CONFIG, WEIGHTS) if resume else (CONFIG, WEIGHTS, f"autoencoder/{CONFIG}"):
        if (folder / name).exists():
            raise InputError(
                f"{folder} holds {name} already; give another --out, or --resume to go on with the run that is there"
            )
