"""What a batch saves: 100 images with 19 draws each at once, against one image at a time, and the memory of it.

Fashion-MNIST seen through `downsample:4` with 5 % noise; the mixture in closed form, the VAE by the method that the
table names for "best", the diffusion by DAPS in 20 levels. Three ways of the same work, timed in turn:

- batch: all images and their draws as rows of one call;
- images one at a time: a call for each image, its 19 draws together;
- draws one at a time: a call for each draw, which is how the published programs run.

Images one at a time are timed on some of the images, draws on fewer, since each costs the same. A processor's core is
full with 19 rows of a network of this size, so that a batch saves it the calls and no more; where the device is wider
than that (a GPU is taken where there is one), it saves what is idle. The share of the time that is the network's own,
on the same rows, says what could be saved at most.

Memory is the peak of a process of its own above what it held before, for chunks of 10, 50 and 100 images (`batch=`),
and for half as many images in chunks of 10: a chunk bounds it, the number of images does not.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import ROOT, Figure, Options, fashion, record
from benchmarks.train import trained
from oneprior.core import Rows
from oneprior.inference import DAPS, HMC, Sampler
from oneprior.tasks import Measurement, restore, simulate
from oneprior.training import Run, load

OPERATOR, NOISE = "downsample:4", "5%"
IMAGES, DRAWS = 100, 19
METHODS: dict[str, Sampler | None] = {"mixture": None, "vae": None, "diffusion": DAPS(steps=20)}
SHORT: dict[str, Sampler | None] = {
    "mixture": None,
    "diffusion": DAPS(steps=2),
    "vae": HMC(warmup=1, leapfrog=1, thin=1, metric="laplace"),
}
"""The same with little work, whose peak is the same: it is that of one level, or of the search for modes."""
CHUNKS = (10, 50, 100)
SMALL = 50.0
"""Megabytes up to which a peak says nothing of chunks: a closed form holds less than the allocator's noise."""
ROUNDS = 2


def run(options: Options) -> None:
    """Time all ways on every number of threads, then weigh the chunks."""
    images, few, draws = (6, 2, 3) if options.quick else (IMAGES, 8, DRAWS)
    rounds = 1 if options.quick else ROUNDS
    table: list[dict[str, Any]] = []
    figures: dict[str, Figure] = {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, method in (SHORT if options.quick else METHODS).items():
        path = trained(name, options)
        run = load(path, device=device)
        given = measured(fashion(options).test[:images], run)
        for threads in (1,) if device == "cuda" else sorted({1, options.threads}):
            torch.set_num_threads(threads)
            line, ratio, error = race(run, given, method, few, draws, rounds)
            table.append({"prior": name, "device": device, "threads": threads, **line})
            note = f"images per second of one batch of {images} over one image at a time, {device}, {threads} threads"
            target = (">=", 5.0) if threads == (1 if device == "cuda" else options.threads) else None
            figures[f"{name}_batch_over_images_{threads}_threads"] = Figure(ratio, error, target, note)
            note = "the same over one draw at a time, which is how the published programs run"
            figures[f"{name}_batch_over_draws_{threads}_threads"] = Figure(line["batch over draws"], None, None, note)
        peaks = memory(path, name, images, draws, options)
        for (count, chunk), peak in peaks.items():
            figures[f"{name}_peak_MB_{count}_images_chunk_{chunk}"] = Figure(peak, note="above what was held before")
        every, *_, half = peaks.values()
        note = "peak of all images over that of half of them, in chunks of the same size"
        judged = ("<=", 1.25) if every > SMALL else None
        figures[f"{name}_peak_of_twice_the_images"] = Figure(every / max(half, 1.0), None, judged, note)
    record(
        "restore_speed",
        figures,
        options,
        table=table,
        claim=f"{images} images with {draws} draws each as one batch, against one image and one draw at a time.",
        rounds=rounds,
        load_average=os.getloadavg(),
    )


def measured(x: Tensor, run: Run) -> Measurement:
    """The images as the instrument sees them."""
    return simulate(x, OPERATOR, NOISE, Rows(len(x), seed=11), units=run.units, geometry=run.geometry)


def race(
    run: Run, given: Measurement, method: Sampler | None, few: int, draws: int, rounds: int
) -> tuple[dict[str, Any], float, float]:
    """Seconds an image of the three ways, taken in turn, with the ratio of the first two and its error."""
    rows = Rows(len(given), seed=1)

    def one(k: int, samples: int) -> None:
        restore(run, given.take(slice(k, k + 1)), samples=samples, method=method, rows=rows.take(slice(k, k + 1)))

    ways: dict[str, tuple[Callable[[], object], float]] = {
        "batch": (lambda: restore(run, given, samples=draws, method=method, rows=rows), len(given)),
        "images": (lambda: [one(k, draws) for k in range(few)], few),
        "draws": (lambda: [one(k, 1) for k in range(few)], few / draws),  # `few` draws are this share of an image
    }
    one(0, 1)  # what is made once
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in list(ways)[:: -1 if turn % 2 else 1]:
            work, count = ways[way]
            seconds[way].append(timed(work) / count)
    ratios = [a / b for a, b in zip(seconds["images"], seconds["batch"], strict=True)]
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    network = _network_share(run, middle["batch"], draws, method)
    line = {
        "images a second, batch": 1 / middle["batch"],
        "one image at a time": 1 / middle["images"],
        "one draw at a time": 1 / middle["draws"],
        "batch over images": middle["images"] / middle["batch"],
        "batch over draws": middle["draws"] / middle["batch"],
        "share of the network": network,
    }
    error = 1.2533 * statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    return line, statistics.median(ratios), error


def timed(work: Callable[[], object]) -> float:
    """Wall seconds, of a device that has finished."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _network_share(run: Run, seconds: float, draws: int, method: Sampler | None) -> float | None:
    """The share of a batch's time that its calls of the denoiser take on their own."""
    from oneprior.priors.diffusion.schedule import DenoisingPrior
    from oneprior.training.numerics import quick

    prior = quick(run.prior())  # as `restore` calls it
    if not isinstance(prior, DenoisingPrior) or not isinstance(method, DAPS):
        return None
    n = 50 * draws
    x = Rows(n, seed=2).to(prior.device).normal(*prior.event_shape)
    with torch.no_grad():
        prior.denoise(x[:8], torch.tensor(0.5))
        return timed(lambda: prior.denoise(x, torch.tensor(0.5))) * method.steps * draws / n / seconds


# Memory -------------------------------------------------------------------------------------------------------------


def memory(path: Path, name: str, images: int, draws: int, options: Options) -> dict[tuple[int, int], float]:
    """Peak megabytes by (images, chunk), each of a process of its own; the last is of half the images."""
    cases: Sequence[tuple[int, int]] = [(images, chunk) for chunk in CHUNKS if chunk <= images] or [(images, 2)]
    cases = [*cases, (images // 2, cases[0][1])]
    peaks = {}
    for count, chunk in cases:
        asked = (str(path), str(options.data), name, count, chunk, draws)
        code = f"from benchmarks.restore_speed import weigh; weigh{asked!r}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        peaks[count, chunk] = float(done.stdout.split()[-1])
    return peaks


def weigh(path: str, data: str, name: str, images: int, chunk: int, draws: int) -> None:
    """Print the peak of one restoration in few levels, above what the process held before; more levels hold no more."""
    torch.set_num_threads(1)
    run = load(path)
    given = measured(fashion(Options(data=Path(data))).test[:images], run)
    method = SHORT[name]
    restore(run, given.take(slice(0, 1)), samples=1, method=method)
    Path("/proc/self/clear_refs").write_text("5")  # the mark is set to what is held now, without the data set
    before = _held("VmRSS")
    restore(run, given, samples=draws, method=method, batch=chunk, seed=1)
    print(round(_held("VmHWM") - before, 1))


def _held(entry: str) -> float:
    """Megabytes of this process: "VmRSS" now, "VmHWM" at most since the mark was last cleared (Linux)."""
    (line,) = [text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(entry)]
    return float(line.split()[1]) / 1024
