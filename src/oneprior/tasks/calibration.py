"""Are posteriors honest? Measure real events, restore them, and hold the draws against the truth.

    for study in calibrate_iter(run, real, "downsample:4", "5%", samples=99): ...
    print(study.calibration.verdict.sentence)

The truth of each problem is a real event that the prior never saw, so that all that is wrong is judged together: the
prior, the method, and the noise level it was told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from oneprior.core import InputError, Rows
from oneprior.evaluation import (
    Calibration,
    Features,
    calibrate,
    perceptual_distance,
    psnr,
    ssim,
)
from oneprior.inference import Sampler
from oneprior.operators.base import Operator
from oneprior.priors.styles import Space
from oneprior.tasks.measurement import Measurement, simulate
from oneprior.tasks.methods import Aim, Guide
from oneprior.tasks.real import Real
from oneprior.tasks.restoration import Restoration, restore_iter
from oneprior.training.run import Run


@dataclass(frozen=True)
class Study:
    """Posteriors of known events.

    Args:
        restoration: the draws.
        calibration: what they are worth; None while they are being drawn.
        scores: (mean, standard error) over events of PSNR of the mean and of one draw, SSIM of the mean, and the rest.
        region: which entries count, (1 or n, *event_shape) bool; None for all.
        done: the finished share.
    """

    restoration: Restoration
    calibration: Calibration | None
    scores: dict[str, tuple[float, float]]
    region: Tensor | None
    done: float


def calibrate_iter(
    run: Run,
    real: Real,
    operator: str | list[str] | Operator,
    noise: str | float,
    *,
    samples: int = 99,
    aim: Aim = "calibrated",
    method: str | Sampler | None = None,
    guide: Guide | None = None,
    told: bool = True,
    region: Tensor | None = None,
    features: Features | None = None,
    batch: int | None = None,
    seed: int = 0,
    space: Space | None = None,
    truncation: float | None = None,
) -> Iterator[Study]:
    """Simulate, restore, judge.

    Args:
        run: a trained run.
        real: events that it never saw, independent of one another (`independent`).
        operator: the instrument.
        noise: "0.05" in the user's units, or "5%" of the range.
        samples: draws of each; 19, 39 or 99.
        aim: see `tasks.methods`.
        method: its name instead.
        guide: see `restore`.
        told: whether the prior is told the conditions of each event.
        region: which entries count, bool, broadcastable to x; all by default.
        features: with stages, for the perceptual distance of one draw.
        batch: events worked on at once.
        seed: of noise and draws.
        space: of a GAN's latents; see `restore`.
        truncation: of a GAN; see `restore`.

    Yields:
        The study as the draws grow; the last one has its calibration.

    Raises:
        InputError: for fewer than 2 events or 4 draws, and what `restore` refuses.
    """
    if len(real) < 2 or samples < 4:
        raise InputError(f"a calibration needs at least 2 real events and 4 draws, got {len(real)} and {samples}")
    rows = Rows(len(real), seed=seed, stream="calibrate")
    measurement = simulate(real.x, operator, noise, rows, units=run.units, geometry=run.geometry)
    last: Restoration | None = None
    for last in restore_iter(
        run,
        measurement,
        samples=samples,
        aim=aim,
        method=method,
        guide=guide,
        condition=real.condition if told and real.condition else None,
        units=run.units,
        seed=seed,
        batch=batch,
        space=space,
        truncation=truncation,
    ):
        yield Study(last, None, {}, region, 0.95 * last.done)
    assert last is not None
    draws = last.units.to_model(last.draws).cpu()
    evidence = measurement.likelihood
    extra = {}
    if _noisy(measurement):  # functions of x alone cannot tell a posterior from the prior
        extra["log-likelihood of y"] = lambda x: evidence.log_prob(x.to(real.x.dtype)).double()
    found = calibrate(draws, real.x.to(draws.dtype), rows.stream("judge"), mask=region, extra=extra)
    yield Study(last, found, _scores(last, draws, real.x.to(draws.dtype), measurement, region, features), region, 1.0)


def _noisy(measurement: Measurement) -> bool:
    return not measurement.exact


def _scores(
    restoration: Restoration,
    draws: Tensor,
    x: Tensor,
    measurement: Measurement,
    region: Tensor | None,
    features: Features | None,
) -> dict[str, tuple[float, float]]:
    mean, one = restoration.units.to_model(restoration.mean).cpu().to(draws.dtype), draws[0]
    each: dict[str, Any] = {
        "PSNR of the mean": psnr(mean, x, mask=region),
        "PSNR of one draw": psnr(one, x, mask=region),
    }
    if min(x.shape[2:]) >= 11:
        each["SSIM of the mean"] = ssim(mean, x, mask=region)
        each["SSIM of one draw"] = ssim(one, x, mask=region)
    if features is not None and features.stages is not None:
        each[f"perceptual distance of one draw ({features.name})"] = perceptual_distance(
            one.float(), x.float(), features
        )
    if _noisy(measurement):
        apart = restoration.diagnostics["misfit_draw"].cpu()  # before draws were kept in the data's range
        each["chi-square of one draw, per measured number"] = apart.square()
    return {name: (float(v.mean()), float(v.std() / len(v) ** 0.5)) for name, v in each.items()}
