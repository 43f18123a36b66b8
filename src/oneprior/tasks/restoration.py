"""Restore what a measurement was made of: the posterior p(x | y), from any prior and any instrument.

    result = restore(load("runs/digits"), y, "downsample:2", "5%")
    result.mean, result.std, result.interval(0.9), result.draws        # in the user's own units

The evidence is pulled back from the user's units to [-1, 1] and through the prior's decoders; a method is chosen by
what is left (`tasks.methods`); its draws come back in the user's units. It never names a family.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec

import torch
from torch import Tensor

from oneprior.core import AffineMap, Geometry, InputError, Rows, ShapeError
from oneprior.inference import Draws, Sampler, bayes
from oneprior.inference.posterior import spread_of
from oneprior.likelihoods.noise import GaussianNoise
from oneprior.operators.base import Operator
from oneprior.operators.mask import Mask
from oneprior.priors.base import NoisePrior, Prior
from oneprior.priors.pushforward import Tilted
from oneprior.priors.residual import ResidualPrior, Residue
from oneprior.priors.styles import Space
from oneprior.tasks.belief import Belief
from oneprior.tasks.explanations import better, compared, law_of
from oneprior.tasks.familiarity import DRAWING, doubt, quiet, strangeness
from oneprior.tasks.given import as_given
from oneprior.tasks.measurement import Measurement, measured
from oneprior.tasks.methods import Aim, Guide, choose
from oneprior.tasks.plausible import doubt_values, doubts_of_values
from oneprior.tasks.seen import as_found, clipped, limits, placed, smoothed
from oneprior.tasks.shares import part_of, shares
from oneprior.tasks.tiling import covering, event_shape_of, larger, of_tiles
from oneprior.training.numerics import quick
from oneprior.training.run import Run

_P = ParamSpec("_P")


@dataclass(frozen=True)
class Restoration:
    """What is known of x after the measurement, in the user's units.

    Args:
        draws: samples of the posterior, (draws, n, *event_shape).
        mean: posterior mean, (n, *event_shape).
        std: posterior standard deviation, (n, *event_shape).
        measurement: what it was made from.
        method: the name of the method.
        exact: whether the draws follow the posterior itself, or an approximation of it.
        network_calls: calls of the network truly made, each of one row.
        seconds: wall time of the inference.
        done: the finished share, 0 to 1.
        diagnostics: what the method says of itself, and of each row `misfit` (`Measurement.misfit` of the mean: about 1
            or below where measurement and posterior agree), `misfit_draw` (of one draw: about 1) and, where it can be
            had, `strangeness` (`tasks.familiarity`: about 1 for what the prior was trained on) and `gain`, (n, k), that
            of each of the `explanations` over what was said (`tasks.explanations`).
    """

    draws: Tensor
    mean: Tensor
    std: Tensor
    measurement: Measurement
    method: str
    exact: bool
    network_calls: int = 0
    seconds: float = 0.0
    done: float = 1.0
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def units(self) -> AffineMap:
        """The value range of x."""
        return self.measurement.units

    @property
    def doubts(self) -> list[str]:
        """For each row a sentence where measurement and prior do not go together, or an empty one: do not trust it."""
        fit = [0.0] * len(self.mean) if self.measurement.exact else self.diagnostics["misfit"].tolist()
        size = self.measurement.operator.out_shape.numel()
        strange = self.diagnostics.get("strangeness")
        far = [1.0] * len(fit) if strange is None else strange.tolist()
        gain, said = self.diagnostics.get("gain"), self.diagnostics.get("explanations", ())
        instead = [""] * len(fit) if gain is None else [better(said, row) for row in gain]
        return [doubt(*row, size) for row in zip(fit, far, instead, strict=True)]

    @property
    def warnings(self) -> list[list[str]]:
        """For each row what can hardly be meant as it stands, of its values and its noise level (`tasks.plausible`)."""
        return [doubts_of_values(self.measurement.take(slice(k, k + 1))) for k in range(len(self.mean))]

    @property
    def notes(self) -> list[list[str]]:
        """For each row what is to be known beside: that it was covered by tiles, that its noise is said too large."""
        given, tiles = self.measurement, [self.diagnostics["tiles"]] if "tiles" in self.diagnostics else []
        if tiles and self.exact:
            tiles = [f"{tiles[0]}; the draws are exact for the law of the tiles only"]
        stated = isinstance(given.noise, GaussianNoise) and not given.exact and "instrument" not in self.diagnostics
        if not stated or not (self.exact or self.method.startswith(DRAWING)):
            return [tiles] * len(self.mean)
        size, misfits = given.operator.out_shape.numel(), self.diagnostics["misfit_draw"].tolist()
        heard = [quiet(misfit, size, clipped=cut) for misfit, cut in zip(misfits, clipped(given), strict=True)]
        return [[*tiles, said] if said else tiles for said in heard]

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Lower and upper end of the central interval, entry by entry; see `Draws.interval`."""
        return Draws(self.draws, self.method, self.exact).interval(level)

    def pasted(self) -> Tensor:
        """The mean with the measured pixels put back, (n, *event_shape); only where the instrument is a mask.

        Raises:
            InputError: for another instrument.
        """
        operator = self.measurement.operator
        if not isinstance(operator, Mask):
            raise InputError("only a mask measures pixels that could be pasted back")
        return torch.where(operator.keep, operator.adjoint(self.measurement.y), self.mean)


def restore_iter(
    prior: Prior | Tilted | Run,
    y: Tensor | Measurement | str | Path,
    operator: str | list[str] | Operator | None = None,
    noise: str | float | Tensor | None = None,
    *,
    samples: int = 19,
    aim: Aim = "best",
    method: str | Sampler | None = None,
    guide: Guide | None = None,
    condition: Mapping[str, Any] | None = None,
    units: AffineMap | None = None,
    seed: int = 0,
    rows: Rows | None = None,
    batch: int | None = None,
    residual: bool = True,
    overlap: int | None = None,
    space: Space | None = None,
    truncation: float | None = None,
) -> Iterator[Restoration]:
    """Draws from p(x | y) and summarises them, the work so far again and again: for progress bars and previews.

    Args:
        prior: a prior, or a trained run.
        y: a measurement with all that belongs to it, the path of its file, or its numbers in the user's units,
            (n, *operator.out_shape).
        operator: words or an operator, where y is numbers.
        noise: "0.05" in the units of y, "5%" of the value range, or one level a row (n,), where y is numbers.
        samples: draws a row; 19, 39 or 99 have exact 90 % intervals.
        aim: "fast", "best" or "calibrated"; see `tasks.methods`.
        method: a name or a sampler, in place of the table.
        guide: a Gaussian or a mixture of the same data (the prior of a ppca run), which lends a denoiser its
            covariance; by default the one that the run keeps.
        condition: of a run; one for all rows, or one a row.
        units: value range of the user's units; by default see `range_of` for a run, else the measurement's, which is
            [-1, 1] where nothing is said.
        seed: of the draws.
        rows: the random streams themselves, in place of the seed.
        batch: rows worked on at once, which bounds the memory; all by default. A prior that is given with conditions
            bound to rows needs all.
        residual: whether what a run's decoder cannot say of real events is part of its law (`priors.residual`).
        overlap: entries that neighbouring tiles share, where the event is larger than the prior's; half a tile by
            default (`priors.tiled`: one data term for all tiles).
        space: latents of a GAN's run in which the posterior is asked: z, w or w+; see `tasks.belief` for the default.
        truncation: psi of a GAN's run; 1 for none.

    Yields:
        The restoration of the rows that are worked on; the last one is the result, of all rows. A row's draws are the
        same whatever stands beside it.

    Raises:
        InputError: for words, levels or conditions that mean nothing here, and a method that does not fit.
        ShapeError: where the measurement is of events of another shape than the prior's.
    """
    measurement = _measurement(prior, y, operator, noise, units)
    n, rows = len(measurement), _rows(measurement, seed, rows)
    belief = Belief(residual, overlap, space, truncation)
    belief.check(prior)
    if isinstance(prior, Run):
        condition = prior.told(condition)
    law = law_of(prior) if isinstance(prior, Run) else None
    others = None if law is None else compared(law, measurement)
    parts: list[Restoration] = []
    groups, behind = shares(prior, measurement, batch, residual), 0
    for part in groups:
        state, given, told = None, measurement.take(part), part_of(condition, part, n)
        for state in _iterate(prior, given, rows.take(part), samples, (aim, method, guide), told, belief):
            if others is not None:
                heard = {"explanations": others.said, "gain": others.gain[part].to(state.mean.device)}
                state = replace(state, diagnostics={**state.diagnostics, **heard})
            yield replace(state, done=(behind + state.done * len(given)) / n)
        behind += len(given)
        if state is not None:
            parts.append(state)
    if len(parts) > 1:
        yield _joined(parts, measurement, torch.cat(groups).argsort())


def _finished(states: Callable[_P, Iterator[Restoration]]) -> Callable[_P, Restoration]:
    """The function that goes on to an iterator's end and returns what it yielded last."""

    @wraps(states)
    def restore(*args: _P.args, **kwargs: _P.kwargs) -> Restoration:
        return deque(states(*args, **kwargs), maxlen=1)[0]

    restore.__name__ = restore.__qualname__ = "restore"
    setattr(restore, "__signature__", signature(states).replace(return_annotation=Restoration))  # noqa: B010
    restore.__doc__ = f"`restore_iter` to its end: the result itself.\n\n    {states.__doc__}"
    return restore


restore = _finished(restore_iter)
"""`restore_iter` to its end: the result itself, from the same arguments."""


def range_of(run: Run, geometry: Geometry, own: AffineMap) -> AffineMap:
    """What black and white are in a picture that a run is to restore.

    They are those of the run, since the same number is the same grey level in both; but for a picture of whole numbers
    of another type than the run's they are as in its own file: an 8-bit picture given to a prior of 16-bit films is
    read by its own 0 .. 255. The numbers of NIfTI and DICOM files are in the units that the files state, whatever type
    stores them.

    Args:
        run: the prior.
        geometry: of the picture; its `dtype` is the type of its numbers.
        own: the range that its file implies.
    """
    stated = geometry.format in ("nifti", "dicom") or run.geometry.format in ("nifti", "dicom")
    foreign = geometry.dtype.startswith(("uint", "bool")) and geometry.dtype != run.geometry.dtype
    return own if foreign and not stated else run.units


def _iterate(
    prior: Prior | Tilted | Run,
    measurement: Measurement,
    rows: Rows,
    samples: int,
    choice: tuple[Aim, str | Sampler | None, Guide | None],
    condition: Mapping[str, Any] | None,
    belief: Belief,
) -> Iterator[Restoration]:
    ends, moments, overlap = None, None, belief.overlap
    (aim, method, guide), about = choice, dict[str, Any]()
    if isinstance(prior, Run):
        ends, moments = limits(prior, measurement), prior.moments()
        if guide is None and measurement.event_shape == prior.event_shape:
            guide = prior.guide()
        prior, said = belief.law(prior, condition, method)
        about |= said
    elif condition:
        raise InputError("a condition is bound when a prior is made: give the run, or run.prior(condition)")
    base = prior.base if isinstance(prior, Tilted) else prior
    if not isinstance(prior, Tilted):
        prior = covering(prior, measurement.event_shape, overlap)
    measurement = placed(measurement, base.device)
    seen = smoothed(measurement)
    likelihood = seen.likelihood
    known = moments is not None and moments.event_shape == measurement.event_shape
    distance = strangeness(moments, likelihood) if known and moments is not None else None
    if distance is not None:
        about["strangeness"] = distance
    if measurement.event_shape != base.event_shape:
        about["tiles"] = of_tiles(measurement.event_shape, base.event_shape, overlap)
    if seen is not measurement:
        about["instrument"] = "its rounding taken for Gaussian noise"
    if isinstance(prior, ResidualPrior) and not isinstance(prior, NoisePrior) and not Residue.serves(likelihood):
        prior, about = prior.base, {**about, "residual": "left out: it cannot be integrated out of this evidence"}
    asked = bayes(prior, likelihood)
    asked = replace(asked, prior=quick(asked.prior))
    posterior, sampler = choose(asked, aim, method, guide)
    counter = getattr(asked.prior, "calls", None)  # networks that count their own calls
    before = 0 if counter is None else counter.rows
    for state, seconds in _timed(sampler.run(posterior, samples, rows)):
        if counter is not None and counter.rows - before > state.network_calls:
            state = replace(state, network_calls=counter.rows - before)
        if posterior.prior is not asked.prior:
            said = {"law": "that of the denoiser's probability-flow ODE in few steps, which the method draws from"}
            state = replace(state, exact=False, diagnostics={**state.diagnostics, **said})
        if seen is not measurement:
            state = replace(state, exact=False)
        yield _restoration(state, (measurement, seen), seconds, ends, about)


def _timed(states: Iterator[Draws]) -> Iterator[tuple[Draws, float]]:
    """Each state with the seconds spent on making it and those before it."""
    spent = 0.0
    while True:
        start = time.perf_counter()
        state = next(states, None)
        spent += time.perf_counter() - start
        if state is None:
            return
        yield state, spent


def _restoration(
    state: Draws,
    measurements: tuple[Measurement, Measurement],
    seconds: float,
    ends: tuple[float, float] | None,
    about: Mapping[str, Any],
) -> Restoration:
    measurement, likened = measurements
    units = measurement.units
    draws, mean, std = units.to_units(state.x), units.to_units(state.mean()), state.std() * units.scale
    seen, first = (as_found(likened, state.diagnostics, draw) for draw in (None, 0))
    fit = {"misfit": seen.misfit(mean), "misfit_draw": first.misfit(draws[0]), **about}
    if ends is not None:
        draws, mean = draws.clamp(*ends), mean.clamp(*ends)
        std = spread_of(draws, state.mirrored) if state.spread is None else std
    draws, mean, std = as_given(measurement, draws, mean, std)
    return Restoration(
        draws,
        mean,
        std,
        measurement,
        state.method,
        state.exact,
        state.network_calls,
        seconds,
        state.done,
        {**state.diagnostics, **fit},
    )


def _measurement(
    prior: Prior | Tilted | Run,
    y: Tensor | Measurement | str | Path,
    operator: str | list[str] | Operator | None,
    noise: str | float | Tensor | None,
    units: AffineMap | None,
) -> Measurement:
    """y with its instrument, checked against the prior."""
    if isinstance(y, str | Path):
        y = Measurement.load(y)
    event_shape = prior.base.event_shape if isinstance(prior, Tilted) else prior.event_shape
    if isinstance(y, Measurement):
        if units is None and isinstance(prior, Run) and y.geometry.dtype:  # it comes from a file
            units = range_of(prior, y.geometry, y.units)
        given = (y if units is None else replace(y, units=units)).told(operator, noise)
    else:
        if operator is None or noise is None:
            raise InputError("numbers alone do not say how they were measured: give the operator and the noise")
        y = torch.as_tensor(y)  # of NumPy as well
        run_units = prior.units if isinstance(prior, Run) else None
        geometry = prior.geometry if isinstance(prior, Run) else None
        if not isinstance(operator, Operator):
            event_shape = event_shape_of(operator, y, event_shape)
        given = measured(y, operator, noise, event_shape, units or run_units, geometry)
    own = prior.base.event_shape if isinstance(prior, Tilted) else prior.event_shape
    if given.event_shape != own and (isinstance(prior, Tilted) or not larger(given.event_shape, own)):
        remedy = (
            "A prior restores events of its own size, or larger ones of the same channels in tiles: measure such "
            "(oneprior simulate --size), or train another."
        )
        raise ShapeError("what was measured", tuple(given.event_shape), tuple(own), remedy)
    if isinstance(prior, Run):
        doubt_values(given)
    return given


def _rows(measurement: Measurement, seed: int, rows: Rows | None) -> Rows:
    return Rows(len(measurement), seed=seed).stream("restore") if rows is None else rows


def _joined(parts: list[Restoration], measurement: Measurement, order: Tensor) -> Restoration:
    """Batches of rows as one restoration, in the order of the measurement; so are the diagnostics of rows."""

    def whole(pieces: list[Tensor], along: int = 0) -> Tensor:
        return torch.cat(pieces, along).index_select(along, order.to(pieces[0].device))

    diagnostics = {}
    for key, value in parts[0].diagnostics.items():
        rowwise = isinstance(value, Tensor) and value.dim()
        along = 1 if key == "theta" else 0  # draws come first there
        diagnostics[key] = whole([p.diagnostics[key] for p in parts], along) if rowwise else value
    return replace(
        parts[0],
        draws=whole([p.draws for p in parts], 1),
        mean=whole([p.mean for p in parts]),
        std=whole([p.std for p in parts]),
        measurement=placed(measurement, parts[0].draws.device),
        exact=all(p.exact for p in parts),
        network_calls=sum(p.network_calls for p in parts),
        seconds=sum(p.seconds for p in parts),
        diagnostics=diagnostics,
    )
