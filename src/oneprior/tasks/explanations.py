"""Is a measurement explained much better by something else than what was said of it? Asked before it is restored.

A posterior explains any measurement as well as it can. Whether it should have is a comparison of models: with the
Gaussian of the data, N(mean, S), and a linear instrument, y = A x + sigma noise, the evidence

    p(y | A, p) = N(y; A mean, A S A' + sigma^2 I)

is exact, and the Bayes factor of another explanation, p(y | A', p') / p(y | A, p), says by how much y speaks for it
(Kass and Raftery 1995: above 100, decisive). The other explanations are

- the same event at another place: A T, T a displacement along one axis by a fifth of the side, the edge continued (an
  unregistered head, a mask or a detector that is not where it was said to be);
- another kind of picture: p' a field of grey values with the spectrum of pictures in general, 1 / frequency^2
  (Field 1987), filling the frame or an object on dark or light ground;
- another blur: 0.5 to 2 times as wide, or a motion in place of a Gaussian and the other way round.

Heavy tails of real data stand in both terms of the ratio, and one limit serves all instruments. A mixture of the data
is taken for its one Gaussian: a mixture has a wide component for what is rare among its data, and in it a place for
foreign pictures. y is looked at in the span of `DIRECTIONS` simulated measurements under all explanations, in which the
noise is as white as before; what lies beyond speaks for none of them. So all matrices are small, and made once for all
rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.operators.base import LinearOperator
from oneprior.operators.compose import compose
from oneprior.operators.grammar import parse_operator
from oneprior.operators.separable import Separable
from oneprior.operators.words import spelled
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.linear_gaussian import log_normal
from oneprior.priors.mixture import GaussianMixturePrior
from oneprior.tasks.measurement import Measurement
from oneprior.training.run import Run

Law = LowRankGaussian | GaussianMixturePrior
DIRECTIONS = 384
"""Of a measurement that are looked at, at most."""
LARGEST = 16_384
"""Numbers of an event up to which other explanations are asked for."""
DECISIVE = math.log(100)
"""Gain above which another explanation is believed."""
SHARE = 1 / 5
"""Of an axis, by which an event may be displaced."""
SCALES = (1.0, 2.0)
"""By which the covariance of the data is multiplied, one of them for an event: real data have heavy tails."""
WIDTHS = (0.5, 0.7, 2.0)
"""A blur may be so many times as wide as was said."""
TURNS = (0.0, 30.0, 60.0, 90.0, 120.0, 150.0)
"""Degrees by which a motion may be turned."""
EDGES = ("reflect", "nearest", "zero")
"""How the picture may have gone on beyond its border when it was blurred."""
CONTRASTS = (0.1, 0.4)
"""Variances of pictures in general, on [-1, 1]."""
RADII = (0.65, 0.9)
"""Of objects on dark or light ground, in half sides."""
_WAVES = 256


@dataclass(frozen=True)
class Explanation:
    """What else may have been measured, or by what.

    Args:
        said: the words of it, after "the measurement is far more likely if".
        operator: the instrument, from events in the user's units.
        law: of the events; None for the Gaussian of the data.
    """

    said: str
    operator: LinearOperator
    law: GaussianMixturePrior | None = None


@dataclass(frozen=True)
class Compared:
    """How much a measurement speaks for other explanations than the one that was given.

    Args:
        said: the explanations in words.
        gain: log of the Bayes factor of each, in nats, (n, explanations).
    """

    said: tuple[str, ...]
    gain: Tensor


def compared(law: Law, measurement: Measurement) -> Compared | None:
    """The Bayes factors of all other explanations of a measurement; None where they cannot be had.

    They can for a linear instrument that all rows share, Gaussian noise of one level a row above 0, and events of up to
    `LARGEST` numbers of the law's own shape.

    Args:
        law: of the data, in [-1, 1].
        measurement: in the user's units.
    """
    operator, likelihood = measurement.operator, measurement.likelihood
    if not isinstance(operator, LinearOperator) or not isinstance(likelihood, GaussianLikelihood):
        return None
    shared = operator.take(torch.zeros(1, dtype=torch.long, device=measurement.y.device)) is operator
    usual = likelihood.linear and likelihood.noise_level.dim() < 2 and not measurement.exact and shared
    if not usual or law.event_shape != measurement.event_shape or law.event_shape.numel() > LARGEST:
        return None
    others = other_explanations(operator)
    told = [Explanation("", operator), *others]
    sketch = _Sketch(law, told, measurement)
    sigma = likelihood.noise_level.double().expand(len(measurement))
    evidence = torch.stack([sketch.log_evidence(one, measurement, sigma) for one in told], 1)
    return Compared(tuple(one.said for one in others), (evidence[:, 1:] - evidence[:, :1]).float())


def law_of(run: Run) -> Law | None:
    """What a run knows of its data in closed form: itself, the mixture that guides it, or its Gaussian."""
    prior = None if run.conditions or run.model.players else run.model.prior()
    return prior if isinstance(prior, Law) else run.guide() or run.moments()


def better(said: Sequence[str], gain: Tensor) -> str:
    """What explains a measurement decisively better, as a sentence, or nothing.

    Args:
        said: the explanations.
        gain: of each, (explanations,).
    """
    best = int(gain.argmax())
    if float(gain[best]) <= DECISIVE:
        return ""
    return f"the measurement is far more likely if {said[best]} (a Bayes factor of e^{float(gain[best]):.0f})"


def other_explanations(operator: LinearOperator) -> list[Explanation]:
    """What else could have made the numbers that an instrument is said to have made."""
    found = [Explanation("it shows another kind of image", operator, any_picture(operator.in_shape))]
    plane = len(operator.in_shape) == 3
    for axis, side in enumerate(operator.in_shape[1:]):
        steps = round(SHARE * side)
        for sign in (1, -1) if steps else ():
            where = (("down", "up"), ("right", "left"))[axis][sign < 0] if plane else f"along axis {axis}"
            moved = compose(operator, displacement(operator.in_shape, axis, sign * steps))
            assert isinstance(moved, LinearOperator)
            found.append(
                Explanation(
                    f"what was measured is misaligned, {where} by about {steps if plane else sign * steps}", moved
                )
            )
    for words in other_words(operator.spec):
        other = parse_operator(words, operator.in_shape)
        if isinstance(other, LinearOperator) and other.out_shape == operator.out_shape:
            found.append(Explanation(f"another operator made it, such as {words}", other))
    return found


def other_words(spec: str) -> list[str]:
    """Words of instruments that one may have been mistaken for; none where the words have no number to doubt.

    A motion of length L has the second moment of a Gaussian of L / sqrt(12) along its direction.
    """
    parts, found = spec.split(" "), []
    for place, part in enumerate(parts):
        name, *fields = part.split(":")
        if name != "blur" or len(fields) < 2 or fields[0] not in ("gaussian", "motion"):
            continue
        rest = [text for text in fields[2:] if not text.startswith(("angle=", "boundary="))]
        edge = next((text[9:] for text in fields[2:] if text.startswith("boundary=")), "reflect")
        angle = next((float(text[6:]) for text in fields[2:] if text.startswith("angle=")), 0.0)
        try:
            sizes = [float(size) for size in fields[1].split("x")]
        except ValueError:
            continue
        mean = sum(sizes) / len(sizes)
        others = [(fields[0], [f * size for size in sizes], angle) for f in WIDTHS]
        if fields[0] == "gaussian":
            others += [("motion", [mean * math.sqrt(12)], turn) for turn in TURNS]
        else:
            others += [("motion", sizes, (angle + turn) % 180) for turn in TURNS[1:]]
            others.append(("gaussian", [mean / math.sqrt(12)], 0.0))
        same = [(fields[0], sizes, angle, border) for border in EDGES if border != edge]
        for kind, numbers, turn, border in [*((*one, edge) for one in others), *same]:
            size = "x".join(spelled(float(f"{number:.3g}")) for number in numbers)
            turned = [f"angle={spelled(turn)}"] if kind == "motion" else []
            bordered = [f"boundary={border}"] if border != "reflect" else []
            words = ":".join(["blur", kind, size, *turned, *bordered, *rest])
            found.append(" ".join([*parts[:place], words, *parts[place + 1 :]]))
    return found


def displacement(shape: torch.Size, axis: int, steps: int) -> Separable:
    """x moved by whole entries along one spatial axis, its edge continued.

    Args:
        shape: (channels, *space).
        axis: of space, from 0.
        steps: entries towards the end of the axis.
    """
    matrices = [torch.eye(side, dtype=torch.float64) for side in shape[1:]]
    side = shape[1 + axis]
    matrices[axis] = matrices[axis][(torch.arange(side) - steps).clamp(0, side - 1)]
    return Separable(shape, matrices)


def any_picture(shape: torch.Size) -> GaussianMixturePrior:
    """Pictures in general: full frames, and objects on dark or light ground, all equally likely.

    A frame's cosine coefficients have variances ~ 1 / (1 + k^2)^(axes / 2), k in half waves an axis, around grey;
    an object is such a field inside a disc with a soft edge, on ground of -1 or 1.

    Args:
        shape: (channels, *space); the channels are an axis as well, since they are alike.

    Source: Field 1987, "Relations between the statistics of natural images and the response properties of cortical
    cells", for two axes.
    """
    grids = torch.meshgrid(*(torch.arange(side) for side in shape), indexing="ij")
    waves = torch.stack([grid.flatten() for grid in grids], 1)  # (d, axes)
    order = waves.square().sum(1).argsort(stable=True)[:_WAVES]
    columns = torch.ones(1, len(order), dtype=torch.float64)
    for axis, side in enumerate(shape):
        place = (torch.arange(side, dtype=torch.float64) + 0.5) * math.pi / side
        wave = (place[:, None] * waves[order, axis]).cos()
        columns = (columns[:, None] * wave).reshape(-1, len(order))
    power = (1 + waves[order].double().square().sum(1)) ** (-(len(shape) - 1) / 2)
    power = power * (shape.numel() / power.sum())
    basis, mean = columns / columns.norm(dim=0), torch.zeros(shape, dtype=torch.float64)
    laws = [LowRankGaussian(mean, basis, contrast * power, 0.01 * contrast) for contrast in CONTRASTS]
    for radius in RADII:
        disc = _disc(shape, radius)
        own, singular, _ = torch.linalg.svd(disc.reshape(-1, 1) * basis * power.sqrt(), full_matrices=False)
        kept = singular > 1e-3 * singular[0]
        for contrast in CONTRASTS:
            variances = contrast * singular[kept].square()
            laws += [
                LowRankGaussian(ground * (1 - disc), own[:, kept], variances, 0.01 * contrast) for ground in (-1.0, 1.0)
            ]
    return GaussianMixturePrior(laws, torch.ones(len(laws), dtype=torch.float64))


def _disc(shape: torch.Size, radius: float) -> Tensor:
    """1 inside an ellipse whose half axes are `radius` times the half sides, 0 outside; of the event's shape."""
    lines = [(torch.arange(side, dtype=torch.float64) + 0.5) * 2 / side - 1 for side in shape[1:]]
    square = torch.stack([grid.square() for grid in torch.meshgrid(*lines, indexing="ij")]).sum(0)
    return ((radius - square.sqrt()) / 0.06).sigmoid().expand(shape).contiguous()


class _Sketch:
    """A measurement seen along few orthonormal directions, those of simulated ones.

    Args:
        law: of the data.
        told: the explanations, that which was given first.
        measurement: whose shape and type y has.
    """

    def __init__(self, law: Law, told: Sequence[Explanation], measurement: Measurement) -> None:
        self.law, self.offset, self.scale = law, measurement.units.offset, measurement.units.scale
        self.complex, self.device = measurement.y.is_complex(), measurement.y.device
        self.out_shape = measurement.operator.out_shape
        size = self.out_shape.numel() * (2 if self.complex else 1)
        if size <= DIRECTIONS:
            self.directions = torch.eye(size, dtype=torch.float64, device=self.device)
            return
        first = DIRECTIONS // 2  # what was said has half of the directions
        each = [first] + [(DIRECTIONS - first) // (len(told) - 1)] * (len(told) - 1)
        parts = []
        for number, (one, draws) in enumerate(zip(told, each, strict=True)):
            x = (one.law or law).sample(Rows(draws, seed=number, stream="explanations")).double()
            parts.append(self.forward(one.operator, x.to(self.device)))
        self.directions = torch.linalg.qr(torch.cat(parts).T)[0].T.contiguous()  # (r, m)

    def vector(self, y: Tensor) -> Tensor:
        """Measurements (N, *out_shape) as reals (N, m), float64."""
        return (torch.view_as_real(y.to(torch.complex128)) if self.complex else y.double()).flatten(1)

    def forward(self, operator: LinearOperator, x: Tensor) -> Tensor:
        """A x; (N, *event_shape) -> (N, m)."""
        return self.vector(operator(x))

    def adjoint(self, operator: LinearOperator, r: Tensor) -> Tensor:
        """A' r; (N, m) -> (N, d)."""
        if self.complex:
            y = torch.view_as_complex(r.reshape(-1, *self.out_shape, 2).contiguous())
        else:
            y = r.reshape(-1, *self.out_shape)
        return operator.adjoint(y).flatten(1)

    def log_evidence(self, one: Explanation, measurement: Measurement, sigma: Tensor) -> Tensor:
        """log p(y | explanation) along the directions, (n,), float64.

        Args:
            one: the explanation.
            measurement: y.
            sigma: of the noise, for x in [-1, 1], (n,).
        """
        middle = torch.full((1, *self.law.event_shape), self.offset, dtype=torch.float64, device=self.device)
        y = (self.vector(measurement.y) - self.forward(one.operator, middle)) / self.scale
        y, seen = y @ self.directions.T, self.adjoint(one.operator, self.directions)  # (n, r), (r, d)
        levels, level = torch.unique(sigma, return_inverse=True)
        unit, joint = torch.eye(len(seen), dtype=seen.dtype, device=seen.device), []
        if one.law:
            laws, weights = [_seen(part, seen) for part in one.law.components], one.law.weights.to(y)
        else:
            mean, square = _seen(self.law, seen)
            laws, weights = [(mean, scale * square) for scale in SCALES], y.new_full((len(SCALES),), 1 / len(SCALES))
        for mean, square in laws:
            r = y - mean
            density = r.new_empty(len(r))
            for k, noise in enumerate(levels):
                here = level == k
                factor = torch.linalg.cholesky(square + noise.square() * unit)
                solved = torch.cholesky_solve(r[here].T, factor).T
                density[here] = log_normal(r[here], solved, 2 * factor.diagonal().log().sum())
            joint.append(density)
        return (torch.stack(joint, 1) + weights.log()).logsumexp(1)


def _seen(law: Law, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean F m (r,) and covariance F S F' (r, r) of a law seen through F (r, d), a mixture taken for one Gaussian."""
    mixed = isinstance(law, GaussianMixturePrior)
    parts = [c.to(torch.float64).to(seen.device) for c in (law.components if mixed else [law])]
    weights = law.weights.to(seen).reshape(-1, len(parts)).mean(0) if mixed else seen.new_ones(1)
    means = torch.stack([seen @ part.mean.flatten() for part in parts])
    middle = weights @ means
    off = (means - middle) * weights.sqrt()[:, None]
    square, rest = off.T @ off, weights @ torch.stack([part.noise_variance for part in parts])
    for w, part in zip(weights, parts, strict=True):
        along = seen @ part.basis
        square = square + (along * (w * part.variances)) @ along.T
    return middle, square + rest * (seen @ seen.T)
