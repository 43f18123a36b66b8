"""Families that are fitted by passes over the data: seconds, no schedule, no checkpoints."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from oneprior.core import DivergedError, Rows
from oneprior.data.batch import Dataset
from oneprior.models.base import ClosedFormModel
from oneprior.training.card import hardware
from oneprior.training.config import TrainConfig
from oneprior.training.folder import RunRecord
from oneprior.training.guide import WIDENED
from oneprior.training.held_out import previews
from oneprior.training.journal import Journal
from oneprior.training.order import passes_over, seeded, some_of
from oneprior.training.parallel import Team
from oneprior.training.progress import Progress
from oneprior.training.residual import fit_moments, write_moments
from oneprior.training.run import write_run


def fit_in_closed_form(
    model: ClosedFormModel,
    data: Dataset,
    unseen: Dataset | None,
    config: TrainConfig,
    folder: Path | None,
    record: RunRecord,
    team: Team,
) -> Iterator[Progress]:
    """Fit a `ClosedFormModel`, then widen it by what was held out; yields after each step of the fit. A killed one
    starts anew."""
    model = model.to(team.device)
    fresh = folder is not None and not folder.exists()
    journal, start = Journal(folder, config, team), time.perf_counter()
    if folder is not None and team.main:
        record.write(folder)
    started, figures, step = 0, {}, 0
    fetch = passes_over(data, config.batch_size, config.seed, team.device)

    def passes():
        nonlocal started
        started += 1
        return fetch()

    try:
        rows = Rows(config.batch_size, seed=config.seed, stream="fit", device=team.device)
        with seeded(config.seed, "fit", device=team.device):
            states = iter(model.fit_passes(passes, rows))
        while True:
            with seeded(config.seed, "fit", step, device=team.device):
                figures = next(states, None)
            if figures is None:
                break
            step += 1
            last = Progress(step, started * len(data), 0.0, time.perf_counter() - start, losses=dict(figures))
            if wrong := [name for name, value in figures.items() if value != value]:
                raise DivergedError(f"{wrong[0]} became NaN at pass {step}; look for constant or broken data")
            journal.line(last)
            yield last
        factor = model.widen(some_of(unseen, WIDENED, team.device)) if unseen is not None and len(unseen) > 1 else 1.0
        picture = None
        if config.preview_every != 0:
            picture = journal.preview(previews(model, data, config, team), started * len(data))
        seconds = time.perf_counter() - start
        losses = dict(last.losses) if step else {}
        result = {
            "images": started * len(data),
            "seconds": round(seconds, 3),
            "losses": losses,
            "widened": factor,
            "hardware": hardware(team.device, team.size),
        }
        if folder is not None and team.main:
            if config.residual:
                write_moments(folder, fit_moments(data))
            write_run(folder, replace(record, result=result, finished=True), model.state_dict())
        team.wait()
        yield Progress(step, started * len(data), 1.0, seconds, 0.0, losses, picture, finished=True)
    finally:
        journal.close()
        model.eval()
        if fresh and step == 0 and folder is not None and team.main:
            shutil.rmtree(folder, ignore_errors=True)  # nothing was learned: the name is free again
