"""One restoration at a glance: what was measured, what is known now, and how well.

A panel shows one event. Above: measurement, baseline, mean, the ends of an interval, deviation; below: samples, and
where it is known the truth with the error of the mean. The error shares the deviation's colours: where the stated
uncertainty is true, the two maps look alike. `strips` shows the same quantities of several events, one line for each.
Of music there are no deviations: its mean is all draws over each other.

A volume is shown by three orthogonal planes through its middle, one under another and each named, in the directions and
the aspect of its file; entries that were not measured are blank; k-space is shown by its log magnitude.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from oneprior.apps.piano_rolls import roll, span
from oneprior.apps.pictures import GREY, Picture, colour_bar, encode, lettering, tiles
from oneprior.core import Geometry
from oneprior.data.midi import FORMAT as MUSIC
from oneprior.data.midi import STEP, as_notes
from oneprior.operators.ct import CT
from oneprior.operators.fourier import centred_fft
from oneprior.operators.mri import MRI
from oneprior.operators.uncertain import UncertainOperator
from oneprior.tasks import Measurement, Restoration

SAMPLES = 4
_BLANK = (92, 124, 190, 110)  # a hue that no grey level has
_DECADES = 4.0  # of magnitude that k-space is shown over
_WIDTH, _GAP = 920, 8  # of a sheet, which is that of a page; between its cells
_CUTS = (2, 1, 0)  # the axes that a volume's planes cut, from top to bottom
_PLANES = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}

Views = Mapping[str, np.ndarray]  # name of a quantity -> uint8 (height, width, 4)


@dataclass(frozen=True)
class Scale:
    """How numbers become grey levels or colours: the values of the two ends, and the name of a colour map."""

    low: float = -1.0
    high: float = 1.0
    colours: str = ""


def views(result: Restoration, row: int, samples: int = SAMPLES, highest: float | None = None) -> Views:
    """The quantities of one event as pictures, a pixel for an entry, in the order in which they are shown.

    Args:
        result: a restoration.
        row: which of its events.
        samples: the most draws to show.
        highest: the deviation at the end of the colours; by default that of this event.
    """
    part, one = result.measurement.take(slice(row, row + 1)), slice(row, row + 1)
    if part.geometry.format == MUSIC:
        return _rolls(result, part, row, samples)
    theta = result.diagnostics.get("theta")
    if isinstance(part.operator, UncertainOperator) and theta is not None:
        part = replace(part, operator=part.operator.at(theta[:, one].mean(0).cpu()))
    geometry, mean, std = part.geometry, result.mean[one].cpu(), result.std[one].cpu()
    hot = Scale(0.0, _highest(result, one) if highest is None else highest, "magma")

    def look(x: Tensor) -> np.ndarray:
        return event_picture(result.units.to_model(x.float().cpu()), geometry)

    shown = {"measurement": measured_picture(part)}
    if (baseline := _baseline(part)) is not None:
        shown[baseline[0]] = look(baseline[1])
    shown["mean"] = look(mean)
    if (ends := quantiles(result.draws[:, one])) is not None:
        shown |= {
            f"{100 * ends[0]:.0f} % quantile": look(ends[1]),
            f"{100 - 100 * ends[0]:.0f} % quantile": look(ends[2]),
        }
    shown["deviation"] = event_picture(std, geometry, hot)
    for s, draw in enumerate(result.draws[:samples, one]):
        shown[f"sample {s + 1}"] = look(draw)
    if part.truth is not None:
        truth = part.truth.cpu()
        shown["truth"] = look(truth)
        shown["error of mean"] = event_picture((truth.float() - mean.float()).abs(), geometry, hot)
    return shown


def _rolls(result: Restoration, part: Measurement, row: int, samples: int) -> Views:
    """Music as piano rolls, all of the same pitches; of a voice that was not measured nothing is drawn."""
    tokens, quarters = part.geometry.tokens, result.mean.shape[-1] * STEP
    draws = as_notes(result.units.to_model(result.draws[:, row].float().cpu()), tokens)
    known = {"measurement": as_notes(part.units.to_model(part.baseline().float().cpu()), tokens)}
    if part.truth is not None:
        known["truth"] = as_notes(result.units.to_model(part.truth.float().cpu()), tokens)
    drawn = {f"sample {s + 1}": [draw] for s, draw in enumerate(draws[:samples])}
    shown = {"measurement": known.pop("measurement"), "mean": draws, **drawn, **known}
    pitches = span([piece for pieces in shown.values() for piece in pieces])
    return {name: roll(pieces, quarters, pitches) for name, pieces in shown.items()}


def panel(result: Restoration, row: int) -> Picture:
    """The panel of one event, with the scale of its deviations below."""
    highest = _highest(result, slice(row, row + 1))
    shown = views(result, row, highest=highest)
    first = [name for name in shown if not name.startswith("sample") and name not in ("truth", "error of mean")]
    second = [name for name in shown if name not in first]
    bar = _bar(result, highest) if "deviation" in shown else None
    return _sheet([first, second], shown, bar, planes(result))


def strips(result: Restoration, most: int = 8, samples: int = 2) -> list[tuple[str, Picture]]:
    """(name, picture) of each quantity, a column for each of the first `most` events; one scale of deviations."""
    highest = _highest(result, slice(0, most))
    columns = [views(result, row, samples, highest) for row in range(min(most, len(result.mean)))]
    box = _box(column["mean"].shape for column in columns)
    factor = max(1, math.ceil(72 / box[0]))
    lines = []
    for name in (name for name in columns[0] if all(name in column for column in columns)):
        cells = [_placed(column[name], (box[0] * factor, box[1] * factor)) for column in columns]
        gap = np.zeros((cells[0].shape[0], 4, 4), np.uint8)
        row = [part for cell in cells for part in (cell, gap)][:-1]
        lines.append((name, encode(np.concatenate(row, axis=1))))
    return lines


def deviation_bar(result: Restoration, most: int = 8) -> Picture:
    """The scale of the deviations in `strips`, and of the errors where the truth is known."""
    return _bar(result, _highest(result, slice(0, most)))


def _bar(result: Restoration, highest: float) -> Picture:
    what = "deviation" if result.measurement.truth is None else "deviation and error"
    return colour_bar(0.0, highest, f"{what}, {result.units.unit}" if result.units.unit else what)


def _highest(result: Restoration, rows: slice) -> float:
    """The end of the scale of deviations; that of the errors where nothing deviates, as of one draw."""
    highest, truth = highest_deviation(result.std[rows]), result.measurement.truth
    if highest > 0 or truth is None:
        return highest
    return highest_deviation((truth[rows].cpu().float() - result.mean[rows].cpu().float()).abs())


def planes(result: Restoration) -> dict[str, float]:
    """The three planes of a volume, from top to bottom, each with its middle as a share of a picture's height.

    Where the place in the scanner is known they are called by the direction that they are closest to facing; else by
    their number along the axis that they cut. Nothing but a volume has any.
    """
    geometry, space = result.measurement.geometry, result.mean.shape[2:]
    if len(space) != 3 or geometry.format == "clip":
        return {}
    names = [f"plane {space[axis] // 2 + 1}\nof axis {axis + 1}" for axis in _CUTS]
    if geometry.affine is not None:
        from nibabel.orientations import aff2axcodes

        codes = aff2axcodes(np.asarray(geometry.affine))
        names = names if None in codes else [_PLANES[str(codes[axis])] for axis in _CUTS]
    down = [1 if axis == 0 else 0 for axis in _CUTS]
    if geometry.affine is not None:  # turned, the later axis upwards
        down = [1 if axis == 2 else 2 for axis in _CUTS]
    voxel = _voxel(geometry, 3)
    ends = np.cumsum([0, *(space[k] * max(1, round(voxel[k] / max(min(voxel), 1e-9))) + 2 for k in down)])
    return {name: float(a + b) / 2 / ends[-1] for name, a, b in zip(names, ends, ends[1:], strict=False)}


def quantiles(draws: Tensor) -> tuple[float, Tensor, Tensor] | None:
    """About 5 % and 95 %, entry by entry, from order statistics; None for fewer than three draws.

    The k-th smallest of S draws is their k / (S + 1) quantile; k is 5 % of S + 1 and at least 1, so that 19, 39 or 99
    draws have just these quantiles and fewer than 19 show their range.

    Args:
        draws: (draws, n, *event_shape).

    Returns:
        The share below the lower one, the lower and the upper quantile, each (n, *event_shape).
    """
    count = len(draws)
    if count < 3:
        return None
    k = max(1, math.floor(0.05 * (count + 1) + 1e-9))
    order = draws.cpu().sort(0).values
    return k / (count + 1), order[k - 1], order[count - k]


def highest_deviation(std: Tensor) -> float:
    """The end of the scale of deviations, in their units: all but their highest hundredth lie below.

    The highest of all where most are 0, since little was missing; 0 where all are.
    """
    values = std.flatten().float().cpu().nan_to_num(0.0).sort().values
    return float(values[int(0.99 * (len(values) - 1))]) or float(values[-1])


def measured_picture(part: Measurement) -> np.ndarray:
    """One measurement as it came: a picture with holes, a coarse picture, a sinogram, k-space, or a curve."""
    operator, y = part.operator, part.y.detach()
    if operator.keeps_pixels:
        baseline = part.baseline().float().cpu()
        kept = operator.adjoint(torch.ones(1, *operator.out_shape, device=y.device)).cpu()  # type: ignore[operator]
        return event_picture(part.units.to_model(baseline), part.geometry, kept=kept > 0)
    y = y.cpu()
    if isinstance(operator, MRI):
        y = _kspace(operator, y)
    if y.is_complex():
        level = y.abs() / y.abs().amax().clamp_min(1e-30)
        return event_picture(_event(level.clamp_min(10**-_DECADES).log10().float()), Geometry(), Scale(-_DECADES, 0.0))
    y = y.float()
    seen = part.units.to_model(y)
    some = seen.flatten()[:: 1 + seen.numel() // (1 << 20)]
    if y.dim() == len(operator.in_shape) + 1 and -1.6 < float(some.quantile(0.02)) <= float(some.quantile(0.98)) < 1.6:
        sizes = zip(_voxel(part.geometry, y.dim() - 2), operator.in_shape[1:], y.shape[2:], strict=True)
        return event_picture(seen, part.geometry, voxel=[size * fine / coarse for size, fine, coarse in sizes])
    y = _event(y)
    tall = max(1, round(0.8 * y.shape[-1] / y.shape[-2])) if y.dim() == 4 else 1  # few views fill a picture
    return event_picture(y.repeat_interleave(tall, -2), Geometry(), Scale(float(y.min()), float(y.max())))


def event_picture(
    x: Tensor,
    geometry: Geometry,
    scale: Scale = Scale(),
    kept: Tensor | None = None,
    voxel: Sequence[float] = (),
) -> np.ndarray:
    """One event, (1, channels, *space), as RGBA; a volume as three planes, one under another.

    Args:
        x: the event.
        geometry: a volume's directions and spacing.
        scale: of its values.
        kept: entries to show, of the shape of x; the others are blank.
        voxel: the size of an entry along each spatial axis; by default a volume's spacing.
    """
    options = {"low": scale.low, "high": scale.high, "colours": scale.colours}
    voxel = voxel or _voxel(geometry, x.dim() - 2)
    least = max(min(voxel), 1e-9)

    def plane(part: Tensor, shown: Tensor | None, sizes: Sequence[float]) -> np.ndarray:
        tile = tiles(part, **options)[0]  # type: ignore[arg-type]
        if shown is not None and part.shape[1] in (1, 3):
            tile = np.where(shown.flatten(0, 1).all(0).numpy()[..., None], tile, np.array(_BLANK, np.uint8))
        down, across = (max(1, round(v / least)) for v in sizes)
        return tile.repeat(down, 0).repeat(across, 1)

    if x.dim() == 3 and kept is not None:
        x = x.masked_fill(~kept, float("nan"))
    if geometry.format == "clip" or x.dim() == 3:
        return tiles(x, clip=geometry.format == "clip", **options)[0]  # type: ignore[arg-type]
    if x.dim() == 4:
        return plane(x, kept, voxel)
    planes = []
    for axis in _CUTS:
        middle, sizes = x.shape[2 + axis] // 2, [v for k, v in enumerate(voxel) if k != axis]
        flat = plane(x.select(2 + axis, middle), None if kept is None else kept.select(2 + axis, middle), sizes)
        planes.append(np.rot90(flat) if geometry.affine is not None else flat)
    width = max(plane.shape[1] for plane in planes)
    return np.concatenate([_centred(plane, (plane.shape[0] + 2, width)) for plane in planes])


def _voxel(geometry: Geometry, dims: int) -> tuple[float, ...]:
    """The size of an entry along each axis: a volume's spacing where it is known."""
    return geometry.spacing if dims == len(geometry.spacing) == 3 else (1.0,) * dims


def _kspace(operator: MRI, y: Tensor) -> Tensor:
    """k-space on its grid, (1, 1, *space) complex: the root mean square of the coils, 0 where nothing was measured."""
    one = MRI((2, *operator.in_shape[1:]), operator.sampling).to(y.device)
    filled = one.adjoint(y.reshape(-1, 1, y.shape[-1]))
    axes = tuple(range(-len(operator.in_shape) + 1, 0))
    grid = centred_fft(torch.complex(filled[:, 0], filled[:, 1]), axes).abs().square().mean(0).sqrt()
    return torch.complex(grid, torch.zeros_like(grid))[None, None]


def _baseline(part: Measurement) -> tuple[str, Tensor] | None:
    """What is commonly done without a prior, and its name; None where there is nothing, or y is it already.

    A^+ y, the least squares solution; of the scanners, whose least squares are mostly noise, the filtered
    back-projection and the picture with zeros for what was not measured.
    """
    operator, y = part.operator, part.y
    middle = torch.full((1, *operator.in_shape), part.units.offset, device=y.device)
    if isinstance(operator, CT):
        return "back-projection", (middle + operator.fbp(y - operator(middle))).float().cpu()
    if isinstance(operator, MRI):
        return "zero-filled", (middle + operator.adjoint(y - operator(middle))).float().cpu()
    if not operator.linear:
        return None
    baseline = part.baseline().float().cpu()
    same = y.shape == baseline.shape and not y.is_complex() and torch.allclose(y.float().cpu(), baseline, atol=1e-5)
    return None if same else ("least squares", baseline)


def _event(y: Tensor) -> Tensor:
    """Numbers of any shape with one row as an event: a list becomes a signal, further axes are laid side by side."""
    if y.dim() == 2:
        return y[:, None]
    return y if y.dim() <= 5 else y.flatten(1, y.dim() - 4)


def _cell(picture: np.ndarray) -> tuple[int, int]:
    """(height, width) of a picture on a sheet: enlarged to at most 146 pixels, six of them to a page; or shrunk."""
    h, w = picture.shape[:2]
    widest = (
        (_WIDTH + _GAP) // 3 - _GAP if w < 3 * h else _WIDTH
    )  # three to a page; or one, of a clip's frames in a row
    if w > widest:
        return max(1, round(h * widest / w)), widest
    factor = max(1, min(round(150 / min(h, w)), 420 // h, ((_WIDTH + _GAP) // 6 - _GAP) // w))
    return h * factor, w * factor


def _lines(groups: Sequence[Sequence[str]], most: int) -> list[list[str]]:
    """Names in lines of at most so many: each group a line of its own where that can be, else lines of even length."""
    every = [name for group in groups for name in group]
    if max(map(len, groups)) <= most < len(every):
        return [list(group) for group in groups]
    count = -(-len(every) // most)
    ends = [-(-len(every) * k // count) for k in range(count + 1)]
    return [every[start:end] for start, end in zip(ends, ends[1:], strict=False)]


def _sheet(
    groups: Sequence[Sequence[str]], shown: Views, bar: Picture | None, named: Mapping[str, float], size: int = 13
) -> Picture:
    """Named pictures in lines, each brought to one cell, with the names of a volume's planes and a scale below."""
    from PIL import Image, ImageDraw

    letters, head, (h, w) = lettering(size), size + 8, _cell(shown["mean"])
    w = max(w, *(math.ceil(letters.getlength(name)) for name in shown))
    margin = math.ceil(max((letters.getlength(word) + _GAP for name in named for word in name.split("\n")), default=0))
    lines = _lines(groups, max(1, min(6, (_WIDTH - margin + _GAP) // (w + _GAP))))
    total = (margin + max(map(len, lines)) * (w + _GAP) - _GAP, len(lines) * (head + h + _GAP))
    below = (bar.width, bar.height) if bar is not None else (0, 0)
    sheet = Image.new("RGBA", (max(total[0], below[0]), total[1] + below[1]), (0, 0, 0, 0))
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        top = i * (head + h + _GAP)
        for name, middle in named.items():
            place = (margin - _GAP, top + head + round(middle * h))
            draw.multiline_text(place, name, font=letters, fill=GREY, anchor="rm", align="right")
        for j, name in enumerate(line):
            left = margin + j * (w + _GAP)
            draw.text((left + w // 2, top + head - 6), name, font=letters, fill=GREY, anchor="ms")
            sheet.paste(Image.fromarray(_placed(shown[name], (h, w))), (left, top + head))
    if bar is not None:
        sheet.paste(Image.open(io.BytesIO(bar.png)), ((sheet.width - bar.width) // 2, total[1]))
    return encode(np.asarray(sheet), words=True)


def _box(shapes: Iterable[tuple[int, ...]]) -> tuple[int, int]:
    sizes = list(shapes)
    return max(s[0] for s in sizes), max(s[1] for s in sizes)


def _placed(picture: np.ndarray, box: tuple[int, int]) -> np.ndarray:
    """A picture in the middle of a box: enlarged by a whole factor, or shrunk to fit."""
    from PIL import Image

    h, w = picture.shape[:2]
    factor = min(box[0] // h, box[1] // w)
    if factor >= 1:
        return _centred(picture.repeat(factor, 0).repeat(factor, 1), box)
    share = min(box[0] / h, box[1] / w)
    small = Image.fromarray(picture).resize((max(1, int(w * share)), max(1, int(h * share))), Image.Resampling.BOX)
    return _centred(np.asarray(small), box)


def _centred(picture: np.ndarray, box: tuple[int, int]) -> np.ndarray:
    out = np.zeros((*box, 4), np.uint8)
    top, left = (box[0] - picture.shape[0]) // 2, (box[1] - picture.shape[1]) // 2
    out[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return out
