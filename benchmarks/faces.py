"""Faces as far as open data allow: the 102 people of the London set restored by priors that never saw one of them.

No open prior of faces can be trained from what is at hand. The London set is 102 people, and is for evaluation;
scikit-image has 100 faces of 25 x 25. So two things are measured, on the neutral picture of each person (a neutral and
a smiling one of the same person are no two trials), with sigma = 0.05 on [0, 1]:

- 64 x 64, tiles: priors of tiles of the photographs that scikit-image is installed with, grey, at three scales, which
  know edges and textures and nothing of a face: one Gaussian of 32 x 32 (`ppca`, the exact posterior of overlapping
  tiles), and a mixture of 20 of 16 x 16 as the denoiser that it is (`DAPS`). One photograph, the astronaut, shows a
  face; nobody of the London set.
- 25 x 25, in the frame of scikit-image's faces: `ppca` of those 100 faces, which is a prior of faces and too small a
  set for one, beside a Gaussian of squares of the photographs of that size, and a mixture of tiles of 9 x 9.

Independent tiles know nothing of each other, and where their windows meet two pixels are less alike than they are:
Gaussian tiles of 16 were 0.2 dB behind bicubic at x4, of 24 or 32 0.25 and 0.3 dB ahead of it. The sizes were chosen on
squares of the photographs.

The rivals are interpolation (bicubic; through the pixels that are there; the blurred picture itself) and total
variation with the best of its weights on squares of the photographs. The mixture restores every third person, which is
what a processor has time for. Each cell is a file that stays (`benchmarks.kept`); `--only NAME` restores with one
contender, `--only table` only gathers.
"""

from __future__ import annotations

import io
import time
import zipfile
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import kept
from benchmarks.harness import Figure, Options, record
from benchmarks.scores import paired
from benchmarks.total_variation import restore_by_total_variation
from oneprior.core import Rows
from oneprior.evaluation import psnr
from oneprior.inference import DAPS
from oneprior.models.configs.ppca import PPCAConfig
from oneprior.models.ppca import PPCA
from oneprior.priors.base import Prior
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.tasks import Measurement, restore, simulate

TASKS = {
    64: {"sr4": "downsample:4", "random": "mask:random:0.7:seed=0", "blur": "blur:gaussian:1.5"},
    25: {"sr5": "downsample:5", "random": "mask:random:0.7:seed=0", "blur": "blur:gaussian:1"},
}
NOISE = 0.1  # on [-1, 1]
FRAME = (42, 43, 170)
"""Top, left and side of the square of a London picture whose eyes are where those of scikit-image's faces are."""
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket", "coins", "brick", "grass", "gravel")
SCALES = (1, 2, 4)
TILES, TUNING, DRAWS = 10_000, 12, 4
GAUSSIAN_TILE, GAUSSIAN_RANK = {64: 32, 25: 25}, 128
"""Side of a Gaussian's tiles at each size, and its directions, which are added up over all tiles of a face."""
MIXTURE_TILE, MIXTURE_RANK = {64: 16, 25: 9}, 32
CONTENDERS = {
    "interpolation": (64, 25),
    "gaussian tiles": (64, 25),
    "ppca of 100 faces": (25,),
    "total variation": (64, 25),
    "mixture of tiles": (64, 25),
}
"""What restores, and at which sizes."""
FEWER = {"mixture of tiles": 3}
"""Every so many people only, where all would take a processor too long."""


def run(options: Options) -> None:
    """Restore what has not been restored yet, then gather."""
    for name, only in CONTENDERS.items():
        if options.only not in ("", name):
            continue
        for side, task in ((side, task) for side, tasks in TASKS.items() for task in tasks if side in only):
            path = kept.folder("faces", options) / f"{name.replace(' ', '-')}-{side}-{task}.json"
            if path.exists():
                continue
            x = people(options, side)
            given = simulate(x, TASKS[side][task], NOISE, Rows(len(x), seed=11, stream=task))
            index = torch.arange(0, len(x), FEWER.get(name, 1))
            start = time.process_time()
            mean, said = _restored(name, given.take(index), options)
            found = {"psnr": psnr(mean.double(), x[index].double()).tolist(), "people": index.tolist()}
            about = {"name": name, "side": side, "task": task, "method": said}
            kept.keep(path, {**about, **found, "cpu": time.process_time() - start})
            print(f"{name} {side} {task}: {np.mean(found['psnr']):.2f} dB", flush=True)
    if options.only in ("", "table"):
        _gather(options)


def people(options: Options, side: int) -> Tensor:
    """The neutral picture of each person, grey, (102, 1, side, side) in [-1, 1]; by the means of pixels."""
    from PIL import Image

    with zipfile.ZipFile(options.data.parent / "faces-london" / "london_faces_256_png.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("neutral/"))
        pictures = [Image.open(io.BytesIO(archive.read(name))).convert("L") for name in names]
    top, left, size = FRAME if side == 25 else (0, 0, 256)
    small = [p.resize((side, side), Image.Resampling.BOX, (left, top, left + size, top + size)) for p in pictures]
    x = torch.from_numpy(np.stack([np.asarray(p) for p in small]))[:, None].float() / 127.5 - 1
    return x[:4] if options.quick else x


def squares(side: int, n: int, seed: int) -> Tensor:
    """Squares of the photographs at three scales, half of them mirrored, (n, 1, side, side) in [-1, 1]."""
    from skimage import color, data

    rows = Rows(1, seed=seed, stream="squares")
    pages = []
    for name in PHOTOGRAPHS:
        photograph = getattr(data, name)()
        grey = color.rgb2gray(photograph) if photograph.ndim == 3 else photograph / 255
        whole = torch.from_numpy(np.ascontiguousarray(grey))[None, None].float() * 2 - 1
        pages += [torch.nn.functional.avg_pool2d(whole, scale) for scale in SCALES if min(grey.shape) // scale > side]
    each = -(-n // len(pages))
    found = []
    for k, page in enumerate(pages):
        place = rows.stream(f"page {k}").uniform(each, 2)[0] * torch.tensor([s - side for s in page.shape[2:]])
        found += [page[0, :, a : a + side, b : b + side] for a, b in place.long().tolist()]
    x = torch.stack(found)[torch.linspace(0, len(found) - 1, n).long()]
    return torch.cat([x[::2], x[1::2].flip(-1)])


def faces() -> Tensor:
    """scikit-image's 100 faces, (100, 1, 25, 25) in [-1, 1]."""
    from skimage import data

    return torch.from_numpy(data.lfw_subset()[:100, None]).float() * 2 - 1


def _restored(name: str, given: Measurement, options: Options) -> tuple[Tensor, str]:
    """The picture that a contender makes of a measurement, and the words of its method."""
    side = given.event_shape[-1]
    if name == "interpolation":
        return _interpolated(given)
    if name == "total variation":
        x = squares(side, 4 if options.quick else TUNING, seed=3)
        told = simulate(x, given.operator, NOISE, Rows(len(x), seed=4))
        mean, weight = restore_by_total_variation(told, given, quick=options.quick)
        return mean, f"total variation, weight {weight:g}"
    settings: dict[str, Any] = {"samples": 1}
    if name == "mixture of tiles":
        settings = {"samples": DRAWS, "method": DAPS(steps=15, mirrored=True)}
    found = restore(_prior(name, side, options.quick), given, seed=5, **settings)
    return found.mean, found.method


@cache
def _prior(name: str, side: int, quick: bool) -> Prior:
    """A prior of tiles, or of scikit-image's faces."""
    if name == "ppca of 100 faces":
        return LowRankGaussian.fit([faces()])
    mixed = name == "mixture of tiles"
    x = squares((MIXTURE_TILE if mixed else GAUSSIAN_TILE)[side], 400 if quick else TILES, seed=1)
    return _mixture(x) if mixed else LowRankGaussian.fit([x], GAUSSIAN_RANK)


def _mixture(x: Tensor, components: int = 20) -> ClosedFormDenoiser:
    """A mixture of Gaussians of tiles, as the perfect denoiser of its law."""
    from oneprior.data import array_dataset
    from oneprior.training import TrainConfig, fit

    model = PPCA(PPCAConfig(components=components, rank=MIXTURE_RANK, passes=6), x.shape[1:])
    for _ in fit(model, array_dataset(x), TrainConfig()):
        pass
    law = model.prior()
    assert isinstance(law, GaussianMixturePrior)
    return ClosedFormDenoiser(law, EDMSchedule(), law.moments())


def _interpolated(given: Measurement) -> tuple[Tensor, str]:
    """Bicubic where the picture is small; through the known pixels where some are missing; else the picture itself."""
    from scipy.interpolate import griddata

    y, shape = given.y, given.event_shape
    if y.dim() == 4 and y.shape[2:] != shape[1:]:
        size = (shape[1], shape[2])
        return torch.nn.functional.interpolate(y, size=size, mode="bicubic", align_corners=False), "bicubic"
    if y.dim() == 4:
        return y, "the blurred picture itself"
    keep = given.operator.adjoint(torch.ones(1, *given.operator.out_shape))[0, 0] > 0  # type: ignore[operator]
    known, every = keep.nonzero().numpy(), torch.ones(shape[1:]).nonzero().numpy()
    nearest = griddata(known, y.T.numpy(), every, "nearest").T
    cubic = griddata(known, y.T.numpy(), every, "cubic").T
    whole = np.where(np.isnan(cubic), nearest, cubic).reshape(-1, *shape)
    return torch.from_numpy(whole).float().clamp(-1, 1), "cubic through the known pixels"


def _gather(options: Options) -> None:
    """One record from all cells."""
    cells = list(kept.every("faces", options))
    found = {(cell["side"], cell["task"], cell["name"]): cell for cell in cells}
    table, figures = [], {}
    for cell in sorted(cells, key=lambda c: (-c["side"], c["task"], -float(np.mean(c["psnr"])))):
        values = torch.tensor(cell["psnr"])
        error = float(values.std() / len(values) ** 0.5)
        names = {"size": cell["side"], "task": cell["task"], "restored by": cell["name"], "method": cell["method"]}
        names["people"] = len(values)
        table.append({**names, "PSNR": float(values.mean()), "error": error, "CPU seconds": cell["cpu"]})
    for side, tasks in TASKS.items():
        for task in tasks:
            for ours in ("gaussian tiles", "mixture of tiles", "ppca of 100 faces"):
                for rival in ("interpolation", "total variation"):
                    if (side, task, ours) not in found or (side, task, rival) not in found:
                        continue
                    mine, other = found[side, task, ours], found[side, task, rival]
                    gain, error = paired(mine["psnr"], [other["psnr"][k] for k in mine["people"]])
                    key = f"{ours} over {rival}, {task}, {side}".replace(" ", "_").replace(",", "")
                    goal = (">=", 2 * error) if ours != "ppca of 100 faces" else None
                    figures[key] = Figure(gain, error, goal, "dB; the target is two standard errors")
    people_count = max((len(cell["psnr"]) for cell in cells), default=0)
    record(
        "faces",
        figures,
        options,
        table=table,
        claim="Faces of people that no prior has seen, restored by priors of photographs' tiles; no prior of faces.",
        n=people_count,
        measured=kept.origins(cells),
        tasks=TASKS,
        noise="0.05 on [0, 1]",
        data="Face Research Lab London Set (DeBruine and Jones 2017, CC BY 4.0), neutral; evaluation only",
        training=[f"skimage.data.{name}" for name in PHOTOGRAPHS],
    )
