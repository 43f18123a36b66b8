"""The domains of BRGM: chest films and brain slices restored by one prior each, every task under one set of defaults.

Marinescu, Moyer, Golland 2021 restore faces, films and brains with a StyleGAN2 of each. Here a GAN with styles, a
diffusion and a latent diffusion are trained on films and on slices (`benchmarks.domain_sets`, at half the size for lack
of an accelerator), and restore held-out films and subjects, sigma = 0.05 on [0, 1]: four and eight times smaller, a
box or 70 % of the pixels missing, a Gaussian and a motion blur, a fourth and an eighth of k-space (brains), 12 views of
a sinogram (films). Against them: simple filling and interpolation, total variation with the best of its weights on
training events, the exact posteriors of ppca and of its mixture, BRGM's published objectives on the same GAN, and the
guided methods of the field with their published settings on the same diffusion.

PSNR is of the mean of the draws and of one draw; the perceptual distance is of one draw, on features that no method
optimises (VICReg on the training events; BRGM optimises others, those of a classifier). CRPS and coverage are taken
inside the body, the latter in tenths of the predicted deviation.

The priors are those of the zoo, as anyone has them; ppca is fitted here. Each cell (domain, contender, aim, task) is
one call of `oneprior.tasks.restore` and one file that stays (`benchmarks.kept`), so that a broken-off benchmark goes on
where it stood. `--only` restores a part (`chest`, `brain:diffusion`, `brain:diffusion-fast`), or makes the `table` or
the `pictures` of what is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import kept
from benchmarks.domain_features import brgm_features, judging_features
from benchmarks.domain_sets import NAMES, Domain, domain
from benchmarks.harness import Options
from benchmarks.scores import of_pictures, score
from benchmarks.total_variation import restore_by_total_variation
from benchmarks.train import trained
from oneprior.core import Rows, replacing
from oneprior.inference import Sampler
from oneprior.inference.noise.brgm import BRGM, BRGMVariational
from oneprior.tasks import Measurement, Restoration, restore, simulate
from oneprior.training import Run, load
from oneprior.training.zoo import zoo_folder

SHARED_TASKS = {
    "sr4": "downsample:4",
    "sr8": "downsample:8",
    "box": "mask:box:0.4",
    "random": "mask:random:0.7:seed=0",
    "gaussian": "blur:gaussian:1.5",
    "motion": "blur:motion:7",
}
TASKS = {
    "chest": {**SHARED_TASKS, "ct": "ct:parallel:12"},
    "brain": {**SHARED_TASKS, "mri4": "mri:random:4:center=0.08:seed=0", "mri8": "mri:random:8:center=0.04:seed=0"},
}
SIGMA = 0.05 * 255
IMAGES, DRAWS, MANY_DRAWS = 35, 19, 99
CHUNK = 8
AIMS = ("fast", "best", "calibrated")
MORE = 103
"""Films that are restored where 35 do not tell what is `CLOSE`: twice as many again between each two."""
CLOSE = (("chest", "sr8"),)
"""Where the best deep prior and the mixture are within two standard errors of 35 events."""
SHOWN = 4
"""Events that the docs show, a task each by turns."""


@dataclass(frozen=True)
class Contender:
    """One row of a domain's table.

    Args:
        name: of the row.
        kind: of the run, in `benchmarks.train`; "" for what needs none.
        aim: of `restore`.
        method: words or "brgm...", in place of the aim's.
        space: of a GAN; its usual one by default, which is w.
        draws: how many.
        images: how many of the domain's held-out events, evenly spread.
        tasks: that it is asked for, where they are not all.
        where: the domains that it is asked for in.
    """

    name: str
    kind: str = ""
    aim: str = "best"
    method: str | None = None
    space: str | None = None
    draws: int = DRAWS
    images: int = IMAGES
    tasks: tuple[str, ...] = ()
    where: tuple[str, ...] = NAMES

    @property
    def key(self) -> str:
        """The name of its files."""
        return f"{self.name}-{self.aim}".replace(" ", "-").replace(":", "")


CLASSICAL = ("simple", "total variation")
EXACT = ("ppca", "mixture")
DEEP = ("gan", "diffusion", "ldm")
GUIDED = ("dps", "ddnm", "diffpir", "red-diff", "daps", "moment-matching")
JUDGED = ("sr4", "random", "motion", "ct", "mri4")
"""Tasks whose calibration is judged, with 99 draws: one of each kind."""
FILMS = ("chest",)
"""Where slow rivals are tried: a call of the films' denoiser takes a third of the time of the slices'."""
PRINTED = ("sr4", "box", "random", "gaussian", "motion")
"""Tasks of which the guided methods' figures were published."""
CONTENDERS = (
    Contender("simple"),
    Contender("total variation"),
    *(Contender(name, name, draws=MANY_DRAWS) for name in EXACT),
    *(Contender("gan", "gan", aim) for aim in ("fast", "best")),
    *(Contender(f"gan in {space}", "gan", "fast", space=space, tasks=JUDGED, where=FILMS) for space in ("z", "w+")),
    Contender("diffusion", "diffusion", "fast"),
    Contender("diffusion", "diffusion", "best"),
    Contender("diffusion", "diffusion", "calibrated", draws=MANY_DRAWS, tasks=JUDGED),
    Contender("ldm", "ldm", "fast", tasks=JUDGED),
    Contender("brgm", "gan", method="brgm", space="w+", draws=1),
    Contender(
        "control: brgm variational", "gan", method="brgm-variational", space="w+", images=16, tasks=JUDGED, where=FILMS
    ),
    Contender("diffpir 100", "diffusion", method="diffpir", images=16, where=FILMS),
    Contender("dps", "diffusion", method="dps", images=6, draws=4, tasks=JUDGED, where=FILMS),
    Contender("dps", "diffusion", method="dps", images=6, draws=4, tasks=("mri4",), where=("brain",)),
    *(
        Contender(
            f"{name}, published",
            "diffusion",
            method=f"{name}:published",
            draws=4 if name == "dps" else 1,  # whose CRPS is asked for; 1,000 calls with gradients a draw
            images=6 if name == "dps" else 16,
            tasks=(*PRINTED, "ct") if name == "dps" else PRINTED,
            where=FILMS,
        )
        for name in GUIDED
    ),
)


def run(options: Options) -> None:
    """Restore what has not been restored yet, then gather."""
    from benchmarks.domain_pictures import draw
    from benchmarks.domain_tables import gather

    place, _, name = options.only.partition(":")
    if place not in ("table", "pictures"):
        for which in NAMES:
            if place in ("", which):
                for contender in CONTENDERS:
                    if name in ("", contender.name, contender.key) and which in contender.where:
                        for task in TASKS[which]:
                            if task in (contender.tasks or TASKS[which]):
                                _cell(which, contender, task, options)
                if name in ("", "prior draws"):
                    _prior_draws(which, options)
    if place in ("", "table"):
        gather(options)
    if place in ("", "pictures"):
        draw(options)


def cell_path(which: str, key: str, task: str, options: Options) -> Path:
    """The file of a cell; beside it, as .npz, is what the docs show of it."""
    return kept.folder("domains", options) / f"{which}-{key}-{task}.json"


def prior_of(which: str, kind: str, options: Options) -> Run:
    """The zoo's prior of a domain; what the zoo does not have, and with --quick all, is trained here."""
    entry = zoo_folder() / f"{which}-{kind}"
    own = entry.is_dir() and not options.quick
    return load(entry if own else trained(f"{which}-half-{kind}", options))


@cache
def events(which: str, options: Options) -> Domain:
    """The held-out events of a domain that are restored: one of each subject, of films the 35 first, then `MORE`."""
    own = domain(which, options)
    if options.quick or which == "brain":
        return own.one_each(4 if options.quick else IMAGES)
    some = own.one_each(MORE)
    first = torch.arange(MORE) % 3 == 0
    order = torch.cat([first.nonzero(), (~first).nonzero()]).flatten()
    return Domain(which, own.training, own.tune, some.test[order], some.body[order], some.subject[order])


def _index(which: str, contender: Contender, task: str, n: int) -> Tensor:
    """Which of n events a contender restores: its number evenly over the first 35, or all where it is close."""
    rivals = contender.name in (*CLASSICAL, *EXACT) or (contender.name, contender.aim) == ("diffusion", "best")
    if (which, task) in CLOSE and rivals and n > IMAGES:
        return torch.arange(n)
    first = min(n, IMAGES)
    return torch.linspace(0, first - 1, min(contender.images, first)).round().long()


def shown(which: str, task: str) -> int:
    """Which of its events a task is shown with."""
    return list(TASKS[which]).index(task) % SHOWN


def measurement(which: str, task: str, run: Run, options: Options) -> Measurement:
    """The held-out events as one instrument sees them; the same for every contender."""
    x = events(which, options).test
    rows = Rows(len(x), seed=11, stream=f"{which} {task}")
    return simulate(x, TASKS[which][task], SIGMA, rows, units=run.units, geometry=run.geometry)


def _cell(which: str, contender: Contender, task: str, options: Options) -> None:
    path = cell_path(which, contender.key, task, options)
    if path.exists():
        return
    run = prior_of(which, contender.kind or "ppca", options)
    given = measurement(which, task, run, options)
    some = _index(which, contender, task, len(given))
    given, body = given.take(some), events(which, options).body[some]
    features, start = judging_features(which, options), time.process_time()
    if contender.name in CLASSICAL:
        figures, result = _classical(which, contender, task, given, run, options), None
    else:
        try:
            result = restore(
                run,
                given,
                samples=contender.draws,
                aim=contender.aim,  # type: ignore[arg-type]
                method=_method(contender, which, options),
                space=contender.space,  # type: ignore[arg-type]
                seed=5,
                batch=_together(contender),
            )
        except Exception as error:
            print(f"{which} {contender.key} {task}: {type(error).__name__}: {error}", flush=True)
            return
        spent = time.process_time() - start  # of one thread, whatever else the machine does
        figures = {**score(result, run, features, body), "cpu": spent}
    _write(path, which, contender, task, {"index": some.tolist(), **figures}, result)


def _together(contender: Contender) -> int | None:
    """Events worked on at once: all where nothing is drawn many times, else about as many rows for each contender."""
    if contender.kind in EXACT or contender.draws == 1:
        return None
    return CHUNK if contender.draws < MANY_DRAWS else 2


def _method(contender: Contender, which: str, options: Options) -> str | Sampler | None:
    """BRGM with its perceptual network; the other methods by name."""
    if contender.method == "brgm":
        return BRGM.published("tensorflow", brgm_features(which, options))
    if contender.method == "brgm-variational":
        return BRGMVariational.published(brgm_features(which, options))
    return contender.method


def _classical(
    which: str, contender: Contender, task: str, given: Measurement, run: Run, options: Options
) -> dict[str, Any]:
    """Interpolation or filling, and total variation with the best weight on training events."""
    start = time.perf_counter()
    assert given.truth is not None
    x = run.units.to_model(given.truth.double())
    if contender.name == "simple":
        mean, said = _filled(given, run), "bicubic, the blurred picture, or least squares"
    else:
        tuning = domain(which, options).tune[: 8 if options.quick else 50]
        told = simulate(tuning, TASKS[which][task], SIGMA, Rows(len(tuning), seed=3), units=run.units)
        found, weight = restore_by_total_variation(told, given, quick=options.quick)
        mean, said = run.units.to_model(found.double()), f"total variation, weight {weight:g}"
    figures = of_pictures(mean, mean, x, judging_features(which, options))
    return {**figures, "method": said, "seconds": time.perf_counter() - start}


def _filled(given: Measurement, run: Run) -> Tensor:
    """A small picture enlarged by bicubic interpolation, a blurred one as it is, else what knows no prior."""
    y, size = given.y, tuple(given.operator.in_shape[1:])
    if tuple(y.shape[2:]) == size and not y.is_complex():
        x = y.double()
    elif y.dim() == 4 and y.shape[-1] < size[-1] and not y.is_complex():
        x = torch.nn.functional.interpolate(y.double(), size, mode="bicubic", align_corners=False)
    else:
        x = given.baseline().double()
    return run.units.to_model(x).clamp(-1, 1)


def _prior_draws(which: str, options: Options) -> None:
    """The control that ignores the measurement: draws of the diffusion prior, the same for all tasks."""
    contender = Contender("control: prior draws", "diffusion", "-")
    path = cell_path(which, contender.key, "all", options)
    if path.exists():
        return
    run = prior_of(which, "diffusion", options)
    some = _index(which, contender, "all", len(events(which, options).test))
    given, start = measurement(which, "sr4", run, options).take(some), time.perf_counter()
    n = len(given)
    x = run.prior().fast().sample(Rows(DRAWS * n, seed=21)).unflatten(0, (DRAWS, n)).clamp(-1, 1)  # type: ignore[attr-defined]
    units = run.units
    result = Restoration(
        units.to_units(x),
        units.to_units(x.mean(0)),
        x.std(0) * units.scale,
        given,
        "draws of the prior",
        False,
        18 * DRAWS * n,
        time.perf_counter() - start,
        diagnostics={"misfit": torch.full((n,), torch.nan)},
    )
    figures = score(result, run, judging_features(which, options), events(which, options).body[some])
    _write(path, which, contender, "all", {"index": some.tolist(), **figures}, None)


def _write(
    path: Path, which: str, contender: Contender, task: str, figures: Mapping[str, Any], result: Restoration | None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "domain": which,
        "name": contender.name,
        "aim": contender.aim if contender.method is None and contender.kind in DEEP else "-",
        "task": task,
        "kind": contender.kind,
        "draws": contender.draws,
    }
    if result is not None:
        row = shown(which, task)
        seen = {"mean": result.mean, "std": result.std, "draw": result.draws[0]}
        with replacing(path.with_suffix(".npz")) as partial:
            half = {name: np.asarray(x[row], np.float16) for name, x in seen.items()}
            np.savez_compressed(partial, **half)  # type: ignore[arg-type]
    kept.keep(path, {**about, **figures})
    psnr_mean = torch.tensor(figures["psnr_mean"]).mean()
    said = f"{psnr_mean:.2f} dB, {figures['seconds']:.0f} s, {figures['method']}"
    print(f"{which} {contender.key} {task}: {said}", flush=True)
