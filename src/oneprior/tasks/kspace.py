"""A scanner's k-space as a measurement of a prior's picture: what lies between a raw file and y = A x + noise.

    measurement = kspace_measurement("file1000031.h5", (1, 320, 320), slices=17)
    restore(prior, measurement)

Every step is exact for the model that `operators.mri` states, and keeps white noise white:

- The readout is sampled in full, so it is transformed back, and the middle of its (oversampled) field kept: the part of
  an orthonormal transform. The columns stay as they were measured: y is in hybrid space, (coils, rows x columns).
- The scanner's picture is the middle R_rows x R_columns of the field of view, as the file says. A prior of that size
  has its pixels. A prior with fewer pixels, in the same proportion, has larger ones over the same field: the middle of
  k-space belongs to it, and the outer samples are left out. Anything else is refused.
- Pixels that lie outside of the picture's columns are taken to be empty; where the middle of k-space shows otherwise,
  that is refused too, for then they would fold into the picture.
- Noise: where it is not given, two places hold little else, the outermost tenth of the measured samples and the rows
  of the oversampled field beside the picture; signal only adds to it, so the quieter one counts. The median absolute
  deviation gives sigma of one coil; of several coils the covariance is estimated, and the coils are whitened by its
  Cholesky factor (Pruessmann et al. 2001), so that all have one sigma.
- Coils: maps by ESPIRiT from the fully sampled centre (`operators.coils`), with sum_c |S_c|^2 = 1 before whitening: the
  picture is the root of sum of squares that fastMRI's targets are.
- Phase: a prior of one channel knows real pictures, and a scan's have a phase. It is taken from the centre of k-space
  under a Hann window, and is smooth; where the true phase turns faster than the centre resolves, part of the picture's
  signal is lost to the model. A prior of two channels needs no such thing.
- Units: picture, noise and draws are in the numbers of the file, which are never multiplied. What the prior takes for
  black and white is told (`units`), or the range that it was trained on where the file's numbers fit that (`trained`),
  or else 0 (an empty pixel; the middle, for two channels) and the picture's `peak`.
- A noise level that is told is the deviation of the real and of the imaginary part of the file's k-space, of each coil.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from oneprior.core import AffineMap, Geometry, InputError, conjugate_gradient
from oneprior.data.fastmri import KSpace, count_slices, read_kspace
from oneprior.likelihoods.noise import LevelledNoise, Noise, OutlierNoise, UnknownNoise
from oneprior.likelihoods.noise_words import parse_noise_law
from oneprior.operators.coils import combined, estimate_maps, low_resolution
from oneprior.operators.fourier import centred_fft, centred_ifft, middle
from oneprior.operators.mri import MRI
from oneprior.operators.mri_sampling import Cartesian, Lines
from oneprior.operators.mri_words import sampling_of
from oneprior.tasks.measurement import Measurement

_CALIBRATION = 24  # samples along each axis, at most
_OUTER = 0.1  # share of the samples that stand for noise
_OUTSIDE = 0.05  # most energy beside the picture's columns, as a share
_OF_MAPS, _OF_PHASE = 5, 3  # columns in the middle that coil maps need, and the phase of one coil
_PEAK_STEPS = 8
_SAME = 2.0  # numbers whose white lies within this factor are taken to be in the same units


def kspace_measurement(
    path: str | Path | KSpace,
    event_shape: torch.Size | tuple[int, ...],
    *,
    noise: str | float | None = None,
    slices: int | slice | Sequence[int] | None = None,
    units: AffineMap | None = None,
    trained: AffineMap | None = None,
    pattern: str | None = None,
    peak: float | None = None,
) -> Measurement:
    """One measurement of events of this shape from a k-space file.

    Args:
        path: an HDF5 file in the layout of fastMRI, or what `read_kspace` read.
        event_shape: of the prior: (1, rows, columns) for pictures of magnitude, (2, rows, columns) for complex ones;
            (1 or 2, slices, rows, columns) for volumes, whose slices are those that are asked for.
        noise: sigma of the real and of the imaginary part of the file's k-space, in its numbers, or "5%" of the range
            of values; estimated by default.
        slices: which; a prior of pictures takes one, since each slice has its own coil maps and phase. All by default.
        units: which numbers of the file's picture are the prior's -1 and 1; by default `trained` where it fits, or
            else 0 and `peak` (-peak and peak for two channels).
        trained: the prior's own range, where it may be in the file's units. It is taken for that if its black is about
            0, and its white within a factor of 2 of `peak` (or of the file's `max`, of all its slices).
        pattern: leaves out columns that were measured, for a study: "random:4:center=0.08:seed=0", "equispaced:4".
        peak: the brightest value of the picture in the numbers of the file; by default the 99.9th percentile of
            a few conjugate gradient steps on all that was measured.

    Returns:
        One row in the numbers of the file, with the scanner's own picture as `truth` where it has the prior's pixels.

    Raises:
        InputError: where the file cannot be read, or its pictures are not such events.
    """
    scan = _read(path, slices)
    channels, *space = event_shape
    if channels not in (1, 2) or len(space) not in (2, 3):
        raise InputError(f"k-space is of pictures or volumes of 1 or 2 channels; the prior's are {tuple(event_shape)}")
    n = len(scan.slices)
    if n != (1 if len(space) == 2 else space[0]):
        needed = "one slice at a time, which has its own coil maps" if len(space) == 2 else f"{space[0]} slices"
        raise InputError(
            f"{scan.name}: {n} slices were asked for, and this prior restores {needed}: choose them (slices=), or go "
            "through `kspace_measurements`"
        )
    mask = torch.from_numpy(scan.mask) if pattern is None else _left_out(scan, pattern)
    frame = _frame(scan, (space[-2], space[-1]))
    kspace = torch.from_numpy(scan.kspace) * mask
    white = _whitening(kspace, frame) if noise is None else _Whitening.none(kspace.shape[1])
    hybrid = frame.readout(white(kspace))
    maps, phase = _calibrated(hybrid, mask, frame, white, scan, channels, pattern)
    columns = (mask & frame.inside).nonzero().squeeze(1)
    one = len(space) == 2
    lines = Lines(tuple(space), columns - len(mask) // 2, frame.field)
    seen = None if maps is None else (maps[:, 0] if one else maps)
    angle = None if phase is None else (phase[0] if one else phase)
    operator = MRI(event_shape, lines, seen, angle)
    y = (frame.shrink * hybrid[..., columns]).transpose(0, 1).reshape(1, kspace.shape[1], -1)
    if units is None:
        peak = _peak(MRI((2, *space), lines, seen), y) if peak is None else peak
        units = _units(peak, channels, trained, scan)
    if noise is None:
        law = parse_noise_law(frame.noise * white.level, units)
    else:
        law = _scaled(parse_noise_law(noise, units), frame.noise)
    geometry = Geometry("")  # no type of its own: the range stands, and is not taken for a run's
    return Measurement(y, operator, law, units, geometry, _truth(scan, event_shape))


def kspace_measurements(
    path: str | Path, event_shape: torch.Size | tuple[int, ...], **options
) -> Iterator[Measurement]:
    """One measurement for each slice of a file, for a prior of pictures; options as of `kspace_measurement`."""
    for number in range(count_slices(path)):
        yield kspace_measurement(path, event_shape, slices=number, **options)


@dataclass(frozen=True)
class _Frame:
    """Which part of the field of view and of k-space the prior's pixels are.

    Args:
        recon: (rows, columns) of the scanner's picture, at the scanner's resolution.
        pixels: (rows, columns) of the prior.
        field: share of the columns' field of view that the picture covers.
        inside: which columns of k-space the prior's pixels resolve, bool.
    """

    recon: tuple[int, int]
    pixels: tuple[int, int]
    field: float
    inside: Tensor

    @property
    def shrink(self) -> float:
        """Larger pixels hold more samples of an orthonormal transform: keeps the values of the columns' sum."""
        return math.sqrt(self.pixels[1] / self.recon[1])

    @property
    def noise(self) -> float:
        """What becomes of a noise level on the way from the file to y."""
        return math.sqrt(math.prod(self.pixels) / math.prod(self.recon))

    def readout(self, kspace: Tensor) -> Tensor:
        """(..., rows, columns) of k-space -> (..., the prior's rows, columns), rows back in the picture."""
        rows, pixels = self.recon[0], self.pixels[0]
        hybrid = centred_ifft(kspace, (-2,))[..., middle(kspace.shape[-2], rows), :]
        if pixels == rows:
            return hybrid
        coarse = centred_fft(hybrid, (-2,))[..., middle(rows, pixels), :]
        return centred_ifft(coarse, (-2,)) * math.sqrt(pixels / rows)


@dataclass(frozen=True)
class _Whitening:
    """Coils made independent with one noise level.

    Args:
        mix: applied to the coils, (coils, coils).
        back: its inverse.
        level: sigma of each part of every coil after it; NaN where it was not estimated.
    """

    mix: Tensor
    back: Tensor
    level: float

    @classmethod
    def none(cls, coils: int, level: float = math.nan) -> _Whitening:
        one = torch.eye(coils, dtype=torch.complex64)
        return cls(one, one, level)

    def __call__(self, kspace: Tensor) -> Tensor:
        return torch.einsum("dc,sc...->sd...", self.mix, kspace)


def _read(path: str | Path | KSpace, slices: int | slice | Sequence[int] | None) -> KSpace:
    if isinstance(path, KSpace):
        return path
    if isinstance(slices, slice):
        slices = range(*slices.indices(count_slices(path)))
    return read_kspace(path, slices)


def _left_out(scan: KSpace, pattern: str) -> Tensor:
    """The measured columns that a pattern keeps, bool."""
    values = pattern.split(":")
    options = dict(v.split("=", 1) for v in values if "=" in v)
    size = (scan.kspace.shape[-2], scan.kspace.shape[-1])
    sampling, _ = sampling_of([v for v in values if "=" not in v], options, size)
    if not isinstance(sampling, Cartesian) or not bool((sampling.keep == sampling.keep[:1]).all()):
        raise InputError(f"a pattern for a measured file leaves out columns; {pattern!r} does not")
    return torch.from_numpy(scan.mask) & sampling.keep[0]


def _frame(scan: KSpace, pixels: tuple[int, int]) -> _Frame:
    """How the prior's pixels lie in the scan.

    Raises:
        InputError: where they could not be modelled exactly.
    """
    rows, columns = scan.kspace.shape[-2:]
    recon = scan.recon or (rows, columns)
    if recon[0] > rows or recon[1] > columns:
        recon = (min(recon[0], rows), min(recon[1], columns))
    grow = [p / r for p, r in zip(pixels, recon, strict=True)]
    if max(grow) > 1 or abs(grow[0] / grow[1] - 1) > 0.01:
        raise InputError(
            f"{scan.name} holds pictures of {recon[0]} x {recon[1]} pixels (from {rows} x {columns} samples) and the "
            f"prior's have {pixels[0]} x {pixels[1]}: needed are as many, or fewer in the same proportion (the middle "
            "of k-space); take a prior of such pictures"
        )
    field = recon[1] / columns
    whole = pixels[1] / field
    k = torch.arange(columns) - columns // 2
    return _Frame((recon[0], recon[1]), pixels, field, (2 * k >= -whole) & (2 * k < whole))


def _whitening(kspace: Tensor, frame: _Frame) -> _Whitening:
    """Noise of the coils; (slices, coils, rows, columns). Signal can only add to it: the quieter place counts."""
    found = [_noise_of(part) for part in (_outermost(kspace), _beside(kspace, frame)) if part is not None]
    if not found:
        raise InputError("too few samples to estimate the noise: give its level (noise=)")
    return min(found, key=lambda whitening: whitening.level)


def _outermost(kspace: Tensor) -> Tensor | None:
    """The tenth of the measured samples farthest from the centre of k-space, (coils, samples)."""
    _, coils, rows, columns = kspace.shape
    reach = [(torch.arange(n) - n // 2) / (n / 2) for n in (rows, columns)]
    radius = (reach[0][:, None].square() + reach[1].square()).expand(len(kspace), -1, -1)
    there = kspace.abs().amin(1) > 0
    total = int(there.sum())
    count = max(10 * coils, int(_OUTER * total))
    if total < 2 * count:
        return None
    edge = radius[there].kthvalue(total - count + 1).values
    return kspace.transpose(0, 1)[:, there & (radius >= edge)]


def _beside(kspace: Tensor, frame: _Frame) -> Tensor | None:
    """Rows of the oversampled field beside the picture, in the outer half of the columns; (coils, samples)."""
    rows, columns = kspace.shape[-2:]
    outer = ((torch.arange(columns) - columns // 2).abs() >= columns // 4) & (kspace.abs().amax((0, 1, 2)) > 0)
    beside = torch.ones(rows, dtype=torch.bool)
    beside[middle(rows, frame.recon[0])] = False
    if not bool(outer.any()) or not bool(beside.any()):
        return None
    part = centred_ifft(kspace[..., outer], (-2,))[:, :, beside].transpose(0, 1).flatten(1)
    return part if part.shape[1] >= 20 * part.shape[0] else None


def _noise_of(samples: Tensor) -> _Whitening:
    """Level and covariance of the coils from samples without signal, (coils, samples), strays left out."""
    coils, seen = len(samples), samples.to(torch.complex128)
    parts = torch.cat([seen.real, seen.imag], dim=1)
    level = parts.abs().median(dim=1).values / 0.67449
    if not bool((level > 0).all()):
        raise InputError("the outer k-space holds no noise at all: give its level (noise=)")
    if coils == 1:
        return _Whitening.none(1, float(level))
    plain = (parts.abs() <= 4 * level[:, None]).reshape(coils, 2, -1).all(1).all(0)
    quiet = seen[:, plain] if int(plain.sum()) >= 5 * coils else seen
    factor = torch.linalg.cholesky(quiet @ quiet.conj().T / (2 * quiet.shape[1]))
    overall = float(factor.diagonal().real.log().mean().exp())
    back = factor / overall
    return _Whitening(torch.linalg.inv(back).to(torch.complex64), back.to(torch.complex64), overall)


def _calibrated(
    hybrid: Tensor,
    mask: Tensor,
    frame: _Frame,
    white: _Whitening,
    scan: KSpace,
    channels: int,
    pattern: str | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Coil maps (coils, slices, rows, columns) of several coils, and a phase (slices, rows, columns) of one channel.

    Raises:
        InputError: where the centre is too small for what is needed, or shows signal beside the picture.
    """
    coils, whole = hybrid.shape[1], len(mask)
    if coils == 1 and channels == 2:
        return None, None
    centre = _centre(mask)
    if centre < (_OF_MAPS if coils > 1 else _OF_PHASE):
        raise InputError(_too_small(centre, coils, channels, scan, pattern))
    columns = middle(whole, min(centre, _CALIBRATION))
    rows = middle(frame.pixels[0], min(frame.pixels[0], _CALIBRATION))
    share = (1.0, frame.field)
    maps, phase = [], []
    for part in hybrid:
        calibration = centred_fft(part, (-2,))[:, rows, columns]
        _check_outside(calibration, frame, whole, scan)
        found = torch.ones(1, *frame.pixels, dtype=torch.complex64)
        if coils > 1:
            found = estimate_maps(calibration, frame.pixels, field=share)
            found = found / torch.einsum("dc,c...->d...", white.back, found).abs().square().sum(0).sqrt()
        maps.append(found)
        phase.append(combined(low_resolution(calibration, frame.pixels, field=share), found).angle())
    return torch.stack(maps, 1) if coils > 1 else None, torch.stack(phase) if channels == 1 else None


def _too_small(centre: int, coils: int, channels: int, scan: KSpace, pattern: str | None) -> str:
    """What to say of a centre that is too small: what is estimated from it, and what to change to what."""
    whole, needed = scan.kspace.shape[-1], _OF_MAPS if coils > 1 else _OF_PHASE
    what = "coil maps" if channels == 2 else "coil maps and phase" if coils > 1 else "the picture's phase"
    if pattern is not None and _centre(torch.from_numpy(scan.mask)) >= needed:
        share = math.ceil(100 * needed / whole) / 100
        options = pattern.startswith(("random", "equispaced"))
        remedy = f"give center={share:g} or more" if options else "leave out none of those in the middle"
    elif coils > 1:
        remedy = "measure more of the centre, or build the operator from maps of your own"
    else:
        remedy = "take a prior of complex pictures (2 channels), or build the operator from a phase of your own"
    return (
        f"{scan.name}: {what} must be estimated from the centre of k-space, for which {needed} columns without a gap, "
        f"as many on either side, are needed; of {whole} columns it has {centre}: {remedy}"
    )


def _centre(mask: Tensor) -> int:
    """Columns round the zero frequency, as many on either side, that are measured without a gap."""
    place = len(mask) // 2
    if not bool(mask[place]):
        return 0
    reach = min(place, len(mask) - 1 - place)
    left, right = mask[place - reach : place].flip(0), mask[place + 1 : place + 1 + reach]
    return 1 + 2 * int((left & right).long().cumprod(0).sum())


def _check_outside(calibration: Tensor, frame: _Frame, whole: int, scan: KSpace) -> None:
    """Raises `InputError` where pixels beside the picture's columns hold signal."""
    if frame.recon[1] == whole:
        return
    wide = low_resolution(calibration, (frame.pixels[0], whole)).abs().square().sum((0, 1))
    share = 1 - float(wide[middle(whole, frame.recon[1])].sum() / wide.sum())
    if share > _OUTSIDE:
        raise InputError(
            f"{scan.name}: {share:.0%} of the signal lies beside the middle {frame.recon[1]} of {whole} columns, and "
            "would fold into the picture: take a prior of the whole field of view"
        )


def _peak(operator: MRI, y: Tensor) -> float:
    """The 99.9th percentile of the magnitude of a complex picture that fits what was measured."""
    z = conjugate_gradient(lambda v: operator.adjoint(operator(v)), operator.adjoint(y), max_steps=_PEAK_STEPS)
    magnitude = z.square().sum(1).sqrt().flatten()
    top = float(magnitude.kthvalue(max(1, math.ceil(0.999 * magnitude.numel()))).values)
    if not top > 0:
        raise InputError("the measured k-space is of an empty picture")
    return top


def _units(peak: float, channels: int, trained: AffineMap | None, scan: KSpace) -> AffineMap:
    """What the prior's -1 and 1 are in the numbers of the file: those it was trained on, or what the picture spans."""
    if trained is not None:
        black, white = trained.range[0] if channels == 1 else trained.offset, trained.range[1]
        stated = scan.attributes.get("max")  # of all slices
        top = max(peak, stated) if isinstance(stated, int | float) and math.isfinite(stated) else peak
        if abs(black) <= white / 4 and white / _SAME <= top <= white * _SAME:
            return trained
    return AffineMap.from_range(0.0 if channels == 1 else -peak, peak)


def _scaled(law: Noise, factor: float) -> Noise:
    """A law of the file's samples as one of y, whose pixels may be larger."""
    if isinstance(law, UnknownNoise):
        return replace(law, low=factor * law.low, high=factor * law.high)
    if isinstance(law, OutlierNoise):
        law = replace(law, spread=factor * law.spread)
    return law.with_level(factor * law.sigma) if isinstance(law, LevelledNoise) else law


def _truth(scan: KSpace, event_shape: torch.Size | tuple[int, ...]) -> Tensor | None:
    """The scanner's picture, where the prior has its pixels and knows magnitudes; (1, *event_shape)."""
    if scan.target is None or event_shape[0] != 1 or scan.target.shape[-2:] != tuple(event_shape[-2:]):
        return None
    return torch.from_numpy(scan.target).reshape(1, *event_shape)
