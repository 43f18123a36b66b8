"""The loop: players take turns on batches until the budget is spent; an iterator of states.

    for progress in fit(model, data, TrainConfig(images=100_000), "runs/mine"):
        draw(progress)                       # a bar, a web page, an early stop: whoever iterates decides

One step of a player is: its named losses on a share of the global batch, their gradients averaged over the processes
and clipped, one step of its optimiser; after all players, the averages. Every random number is a function of (seed,
number of the image), so that the weights are the same on one process or several, up to rounding, and after any
interruption, exactly. Closing the iterator leaves a checkpoint behind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneprior.core import DivergedError, InputError, Rows, ShapeError
from oneprior.data.batch import Batch, Dataset
from oneprior.models.base import ClosedFormModel, Model
from oneprior.training.averages import Averages
from oneprior.training.card import hardware
from oneprior.training.checkpoint import Checkpoint, Checkpoints, Counters
from oneprior.training.closed_form import fit_in_closed_form
from oneprior.training.config import TrainConfig
from oneprior.training.folder import RunRecord
from oneprior.training.guide import leave_guide
from oneprior.training.held_out import held_out_loss, previews, resting
from oneprior.training.journal import Journal, LossLog
from oneprior.training.latents import CachedLatents
from oneprior.training.numerics import arrange, choose_numerics, decompile
from oneprior.training.order import DataOrder, fetched_ahead, part_of, passes_over, seeded
from oneprior.training.parallel import Team, unbothered, whole
from oneprior.training.players import Losses, Players, recipes
from oneprior.training.progress import Progress
from oneprior.training.residual import fit_moments, leave_laws, write_moments
from oneprior.training.run import write_run
from oneprior.training.schedules import Budget, crossed, decay_factor, warmup_factor

_CHECKPOINT_SECONDS = 300.0
_PREVIEWS, _EVALUATIONS = 10, 20  # of a run, where the user names no number of images
_GPU_READS_EVERY = 16  # steps between looks at a GPU's losses: each look stalls it


def fit(
    model: Model,
    data: Dataset,
    config: TrainConfig,
    folder: str | Path | None = None,
    *,
    held_out: Dataset | None = None,
    about: Mapping[str, Any] | None = None,
    resume: bool = False,
    prepared: bool = False,
    team: Team | None = None,
    budget: Budget | None = None,
) -> Iterator[Progress]:
    """Train a model; yields after every step.

    After the last state the model holds the weights that the run keeps: the averages, or the best of them.

    Args:
        model: any family; it is moved to the team's device.
        data: what it learns.
        config: how.
        folder: the run folder; None to write nothing.
        held_out: data for the held-out loss; needed by keep="best" and by patience.
        about: what config.json says of the data.
        resume: go on from the newest checkpoint in the folder, if there is one.
        prepared: the model's statistics of the data are set already (it starts from trained weights).
        team: the processes that train together; None asks accelerate.
        budget: where it is not the one of `config`: what the first stage of two left over.

    Raises:
        ShapeError: the data are of another shape than the model's.
        InputError: settings that do not go together.
        DivergedError: a loss or a gradient became non-finite; names step and term.
    """
    shape = data.source_shape if isinstance(data, CachedLatents) else data.event_shape
    if tuple(shape) != tuple(model.event_shape):
        raise ShapeError("the data", shape, model.event_shape, "Give --size, or train a new model")
    if len(data) == 0:
        raise InputError("there is nothing to learn from: the data set is empty")
    team = team or Team()
    if config.batch_size % (team.size * config.accumulate):
        raise InputError(
            f"batch_size {config.batch_size} cannot be shared by {team.size} processes in {config.accumulate} parts "
            f"each; take a multiple of {team.size * config.accumulate}"
        )
    measurable = held_out is not None and len(held_out) > 0 and len(model.players) == 1
    if (config.keep == "best" or config.patience) and not measurable:
        raise InputError(
            "keep='best' and patience need a held-out loss: give held_out a share above 0, and a family that minimises "
            "one loss"
        )
    record = RunRecord(
        family=model.family,
        model=model.config_dict(),
        event_shape=tuple(model.event_shape),
        conditions=model.conditions,
        units=data.units,
        geometry=data.geometry,
        train=asdict(config),
        data={"trained_on": len(data), "held_out": len(held_out) if held_out else 0, **(about or {})},
    )
    folder = None if folder is None else Path(folder)
    if isinstance(model, ClosedFormModel):
        return fit_in_closed_form(model, data, held_out, config, folder, record, team)
    fitting = _Fit(model, data, config, folder, held_out if measurable else None, record, team)
    fitting.budget = budget or fitting.budget
    fitting.unseen = held_out if held_out is not None and len(held_out) > 1 else None
    return fitting.states(resume, prepared)


class _Fit:
    """One training: the parts that the loop moves."""

    def __init__(
        self,
        model: Model,
        data: Dataset,
        config: TrainConfig,
        folder: Path | None,
        held_out: Dataset | None,
        record: RunRecord,
        team: Team,
    ) -> None:
        self.model, self.data, self.config, self.folder = model, data, config, folder
        self.unseen: Dataset | None = None
        self.held_out, self.record, self.team = held_out, record, team
        self.budget = Budget.of(config)
        self.checkpoints = None if folder is None else Checkpoints(folder / "checkpoint")
        self.best: dict[str, Tensor] = {}  # where there is no folder to keep them in

    def states(self, resume: bool, prepared: bool) -> Iterator[Progress]:
        """Steps until the budget is spent or patience ends."""
        self._start(resume, prepared)
        batches = fetched_ahead(self.data, self._indices(), pin=self.team.device.type == "cuda")
        at, between = self.at, False
        try:
            while self.budget.fraction(at.images, at.seconds) < 1 and not at.stopped:
                progress = self._move(next(batches))
                between = True
                yield progress
                between = False
            self._finish()
            yield self._progress(finished=True)
        except DivergedError as error:
            raise DivergedError(f"{error}. {self._remedy()}") from None
        finally:
            batches.close()  # type: ignore[attr-defined]
            if between and not self.team.shards:  # the consumer had enough: keep what there is
                self._write_checkpoint()
            self.journal.close()
            self.players.release()
            decompile(self.model)
            self.model.eval()

    def _remedy(self) -> str:
        """What to do after a divergence."""
        try_this = "a smaller learning rate, a larger batch, stronger clipping or precision fp32"
        if self.checkpoints and self.checkpoints.paths():
            return f"The last good checkpoint is kept; train from it (--from {self.folder}) with {try_this}"
        where = "" if self.folder is None else f" (--out another folder, or remove {self.folder})"
        return f"There was no checkpoint yet; train again with {try_this}{where}"

    def _start(self, resume: bool, prepared: bool) -> None:
        """Everything in its place: statistics of the data or the checkpoint, optimisers, averages."""
        config, team, model = self.config, self.team, self.model.to(self.team.device)
        saved = self.checkpoints.newest() if self.checkpoints and resume else None
        self.at = Counters() if saved is None else saved.counters
        self.journal = Journal(self.folder, config, team, self.at.step)
        if self.folder is not None and team.main:
            self.record.write(self.folder)
        if saved is not None:
            model.load_state_dict(dict(saved.model))
        elif not prepared:
            with seeded(config.seed, "prepare", device=team.device):
                rows = Rows(config.batch_size, seed=config.seed, stream="prepare", device=team.device)
                model.prepare(passes_over(self.data, config.batch_size, config.seed, team.device), rows)
        model.train()
        the_recipes = recipes(model, config)
        self.numerics = choose_numerics(config, team.device, model, the_recipes)
        arrange(model, self.numerics, the_recipes)
        self.plain_losses = Losses(model, self.numerics)
        self.losses = team.spread(model, self.plain_losses)
        self.players, self.averages = Players(model, the_recipes), Averages(model, the_recipes)
        if saved is not None:
            self.players.load(saved.optimisers)
            self.averages.load(saved.averages)
        self.log = LossLog(team)
        self.clock = time.perf_counter() - self.at.seconds
        self.session, self.written = (self.at.images, self.at.seconds), self.at.seconds

    def _indices(self) -> Iterator[Tensor]:
        """Our share of every global batch, from where the run stands."""
        order, share = DataOrder(len(self.data), self.config.seed), self.config.batch_size // self.team.size
        start = self.at.images + self.team.rank * share
        while True:
            yield order(start, share)
            start += self.config.batch_size

    def _move(self, batch: Batch) -> Progress:
        """A step, and what is due after it: held-out loss, preview, line of metrics, checkpoint."""
        config, at, team = self.config, self.at, self.team
        before = (at.images, self.budget.fraction(at.images, at.seconds))
        self._step(batch.to(team.device))
        if team.device.type == "cpu" or at.step % _GPU_READS_EVERY == 0:
            at.seconds = team.agree(time.perf_counter() - self.clock)
            self.log.read()
        now = (at.images, self.budget.fraction(at.images, at.seconds))
        measured = self._measure() if _due(config.evaluate_every, before, now, _EVALUATIONS) else None
        picture = self._picture() if _due(config.preview_every, before, now, _PREVIEWS) else None
        progress = self._progress(picture, measured)
        if at.step % config.log_every == 0 or measured is not None:
            self.journal.line(replace(progress, losses=self.log.means()))
        if config.checkpoint_every is None:
            due = at.seconds - self.written > _CHECKPOINT_SECONDS
        else:
            due = crossed(before[0], now[0], config.checkpoint_every)
        if due:
            self._write_checkpoint()
        return progress

    def _step(self, batch: Batch) -> None:
        """All players, one turn each."""
        config, at, team, model = self.config, self.at, self.team, self.model
        share = config.batch_size // team.size
        first, then = at.images + team.rank * share, at.images + config.batch_size
        rows = Rows(torch.arange(first, first + share), seed=config.seed, stream="train", device=team.device)
        model.progress = self.budget.fraction(at.images, at.seconds)
        warm = warmup_factor(then, self.budget.fraction(then, at.seconds), config.warmup_images)
        factor = warm * decay_factor(config.decay, model.progress)
        named: dict[str, Tensor] = {}
        with seeded(config.seed, "step", at.step, team.rank, device=team.device):
            for player in self.players:
                for name, value in self._turn(player, batch, rows.stream(player)).items():
                    named[f"{player}/{name}" if name in named else name] = value
                named[f"metric/gradient/{player}"] = self.players.step(player, factor)
            model.after_step(config.batch_size)
        at.step, at.images = at.step + 1, then
        self.averages.update(config.batch_size, at.images)
        self.log.add(at.step, named)

    def _turn(self, player: str, batch: Batch, rows: Rows) -> dict[str, Tensor]:
        """The gradients of one player, and its named losses."""
        parts, named = self.config.accumulate, {}
        size = len(batch) // parts
        self.players.begin(player)
        for number in range(parts):
            piece = slice(number * size, (number + 1) * size)
            quiet = unbothered() if number == parts - 1 else self.team.alone(self.losses)
            with quiet:
                total, terms = self.losses(part_of(batch, piece, self.numerics.layout), player, rows.take(piece))
                (total / parts).backward()
            for name, value in terms.items():
                named[name] = named.get(name, 0.0) + value / parts
        return named

    def _measure(self) -> float | None:
        """The held-out loss of the averages; remembers the best."""
        if self.held_out is None:
            return None
        at, config = self.at, self.config
        with self.averages.in_place(), self.team.whole_model(self.model):
            value = self.team.agree(held_out_loss(self.plain_losses, self.held_out, config, self.team.device))
        if at.best is not None and not value < at.best:
            at.stale += 1
            at.stopped = config.patience is not None and at.stale >= config.patience
            return value
        at.best, at.best_images, at.stale = value, at.images, 0
        if config.keep == "best":
            kept = self._kept()
            if self.checkpoints is None:
                self.best = {name: tensor.clone() for name, tensor in kept.items()}
            elif self.team.main:
                self.checkpoints.write_best(kept, {"images": at.images, "held_out": value})
        return value

    def _picture(self) -> Path | None:
        """A preview from the averages."""
        with self.averages.in_place(), self.team.whole_model(self.model):
            named = previews(self.model, self.held_out or self.data, self.config, self.team)
        return self.journal.preview(named, self.at.images)

    def _weights(self) -> dict[str, Tensor]:
        """The state of the model as it is trained, whole."""
        return {name: whole(value.detach()) for name, value in self.model.state_dict().items()}

    def _kept(self) -> dict[str, Tensor]:
        """The state of the model with the averages in place, whole."""
        return {**self._weights(), **self.averages.state()}

    def _write_checkpoint(self) -> None:
        """The whole state of the run, unless something in it is not finite."""
        if self.checkpoints is None:
            return
        self.log.read()
        self.written = self.at.seconds
        checkpoint = Checkpoint(self.at, self._weights(), self.averages.state(), self.players.state())
        if self.team.main:
            self.checkpoints.write(checkpoint)

    def _finish(self) -> None:
        """The model takes the weights that the run keeps, and the folder is complete."""
        at, losses = self.at, self.log.means()
        self._write_checkpoint()
        kept = self._kept()
        if self.config.keep == "best" and at.best is not None:
            self.team.wait()
            kept = self.checkpoints.best() if self.checkpoints else self.best
        if not self.team.shards:
            self.model.load_state_dict(kept)
        self.model.progress = 1.0
        result = {
            "images": at.images,
            "steps": at.step,
            "seconds": round(at.seconds, 3),
            "losses": losses,
            "held_out": at.best,
            "best_at_images": at.best_images if self.config.keep == "best" else None,
            "stopped_early": at.stopped,
            "numerics": asdict(self.numerics),
            "recipe": {player: asdict(recipe) for player, recipe in self.players.recipes.items()},
            "hardware": hardware(self.team.device, self.team.size),
        }
        if self.folder is not None and self.team.main:
            self.journal.line(replace(self._progress(), losses=losses))
            self._leave_laws()
            write_run(self.folder, replace(self.record, result=result, finished=True), kept)
        self.team.wait()

    def _leave_laws(self) -> None:
        """The Gaussian of the data and what the decoder cannot say of them, beside the weights: `training.residual`."""
        assert self.folder is not None
        config = self.config
        if not config.residual or isinstance(self.data, CachedLatents):  # latents: left before they were encoded
            return
        if self.team.shards:
            write_moments(self.folder, fit_moments(self.data))
            return
        with resting(self.model, 1.0):
            leave_laws(self.folder, self.model, self.data, self.unseen, config.residual, config.seed)
            leave_guide(self.folder, self.model, self.data, self.unseen, config.seed)

    def _progress(self, picture: Path | None = None, measured: float | None = None, finished: bool = False) -> Progress:
        at, (images, seconds) = self.at, self.session
        pace = (at.images - images) / max(at.seconds - seconds, 1e-9)
        return Progress(
            step=at.step,
            images=at.images,
            fraction=1.0 if finished else self.budget.fraction(at.images, at.seconds),
            seconds=at.seconds,
            seconds_left=0.0 if finished else self.budget.seconds_left(at.images, at.seconds, pace),
            losses=dict(self.log.newest),
            preview=picture,
            held_out=measured,
            finished=finished,
        )


def _due(every: int | None, before: tuple[int, float], now: tuple[int, float], times: int) -> bool:
    """Whether a multiple of `every` images was passed, or else one of `times` equal parts of the budget."""
    if every is None:
        return crossed(before[1], now[1], 1 / times)
    return crossed(before[0], now[0], every)
