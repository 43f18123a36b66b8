"""The runs that the benchmarks compare, each trained once under a budget of CPU minutes and kept in runs/bench.

Every job runs in a process of its own on one thread, as many jobs at once as there are cores, so that a minute of CPU
is a minute of one core. The whole process is charged: start, data, encoding of latents, held-out losses, previews.
Latent diffusion is charged with its autoencoder, which is a run of its own.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import domain_sets, volume_sets
from benchmarks.harness import ROOT, Options, record, training_file
from oneprior.models.configs.diffusion import DiffusionConfig

PIXEL_UNET: dict[str, Any] = {"width": 32}
"""1.6 million weights; the same constructor makes the network of the latents, which has 1.9 million."""
LATENT_UNET = DiffusionConfig(width=96, multipliers=(1,), attention=())
"""Without attention: its backward pass in bf16 on a CPU takes two thirds of a training step on 7x7 latents."""

LATENT_UNET_3D = DiffusionConfig(width=48, multipliers=(1, 2), attention=())
"""Of 10 x 12 x 10 latents; its lower level sees all of a head."""

GAN_2014: dict[str, Any] = {
    "network": "goodfellow2014",
    "latent": 100,
    "gamma": 0.0,
    "augment": "none",
    "batch_size": 100,
    "precision": "fp32",
}
"""As in the authors' mnist.yaml. Theirs is the non-saturating game with a learning rate of 0.1; at that rate the
minimax game's critic diverges here within 500 steps, in bf16 and in fp32."""


SMALL_STYLEGAN: dict[str, Any] = {
    "network": "stylegan2",
    "latent": 64,
    "mapping_layers": 4,
    "width": 64,
    "max_width": 128,
    "patch": 4,
    "penalty_every": 4,
    "batch_size": 32,
}
"""A generator with styles of 64 numbers, in the relativistic game of the other GANs, whose finest level makes 4 x 4
pixels at once. In 4.5 minutes of a shared core on films it saw 50,000 of them and came to a Frechet distance of 0.19
(own features); with 2 x 2 pixels and 32 or 16 channels 28,000 and 33,000 films, and 0.31."""


@dataclass(frozen=True)
class Job:
    """One run: family, CPU minutes, settings of `oneprior.train`, the run that has to be there first, the set, and
    the run whose weights it goes on from (its minutes come on top)."""

    family: str
    minutes: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    after: str = ""
    data: str = "fashion"
    start: str = ""


def _of_a_domain(data: str) -> dict[str, Job]:
    """The priors of one of the domains of BRGM, at half the size; every twentieth subject is held out."""
    share = {"held_out": 0.05, "subject": domain_sets.SUBJECT}
    larger = 1.5 if data.startswith("brain") else 1.0  # twice the pixels of a film
    return {
        "ppca": Job("ppca", 0, share, data=data),
        "mixture": Job("ppca", 0, {"components": 10, **share}, data=data),
        "diffusion": Job("diffusion", 60 * larger, {"batch_size": 32, **PIXEL_UNET, **share}, data=data),
        "gan": Job("gan", 30 * larger, {**SMALL_STYLEGAN, **share}, data=data),
        "autoencoder": Job("vae", 8 * larger, {"spatial": True, "latent": 4, "batch_size": 64, **share}, data=data),
        "ldm": Job(
            "ldm",
            25 * larger,
            {"batch_size": 64, "diffusion": LATENT_UNET, **share},
            after=f"{data}-autoencoder",
            data=data,
        ),
    }


def _of_heads(data: str) -> dict[str, Job]:
    """The priors of whole heads, 40 x 48 x 40: an autoencoder to 8 x 10 x 12 x 10, an eighth of the numbers."""
    share = {"held_out": 0.05, "subject": domain_sets.SUBJECT}
    small = {"precision": "bf16", **share}  # 3-D convolutions multiply twice as fast so on this processor
    return {
        "ppca": Job("ppca", 0, share, data=data),
        "autoencoder": Job("vae", 20, {"spatial": True, "latent": 8, "width": 16, "batch_size": 2, **small}, data=data),
        "ldm": Job(
            "ldm",
            25,
            {"diffusion": LATENT_UNET_3D, "batch_size": 8, **small},
            after=f"{data}-autoencoder",
            data=data,
        ),
    }


JOBS = {
    "ldm": Job("ldm", 23, {"batch_size": 128, "diffusion": LATENT_UNET}, after="autoencoder"),
    "autoencoder": Job("vae", 7, {"spatial": True, "latent": 4, "batch_size": 128}),
    "diffusion": Job("diffusion", 30, {"batch_size": 64, **PIXEL_UNET}),
    "diffusion-long": Job("diffusion", 90, {"batch_size": 64, **PIXEL_UNET}, start="diffusion"),
    "gan": Job("gan", 15),
    "gan2014": Job("gan", 15, {**GAN_2014, "objective": "minimax", "learning_rate": 0.03}),
    "gan2014ns": Job("gan", 15, {**GAN_2014, "objective": "nonsaturating"}),
    "gan2014slow": Job("gan", 15, {**GAN_2014, "objective": "nonsaturating", "learning_rate": 0.03}),
    "vae": Job("vae", 10, {"batch_size": 128}),
    "vqvae": Job("vqvae", 10, {"batch_size": 128}),
    "ppca": Job("ppca", 0),
    "mixture": Job("ppca", 0, {"components": 10}),
    "films": Job("diffusion", 25, {"batch_size": 64, **PIXEL_UNET}, data="films"),
    "brain": Job("diffusion", 30, {"batch_size": 32, **PIXEL_UNET}, data="brain"),
    "fashion-labelled": Job("gan", 15, data="fashion-labelled"),
    "brain-gan": Job("gan", 12, data="brain"),
    "brain-vae": Job("vae", 6, data="brain"),
    "brain-ppca": Job("ppca", 0, {"labels": False}, data="brain"),
    "chest-codes": Job("vqvae", 8, {"downsample": 8, "batch_size": 64}, data="chest-full"),
    "garments-codes": Job("vqvae", 8, {"batch_size": 128}, data="garments-low"),
    "garments-vae": Job("vae", 6, {"batch_size": 128}, data="garments-low"),
    "ventricles-codes": Job("vqvae", 8, {"batch_size": 64}, data="ventricles-low"),
    "smile-codes": Job("vqvae", 12, {"batch_size": 32, "downsample": 4, "prior_start": 0.5}, data="smile-low"),
    "smile-vae": Job("vae", 6, {"batch_size": 32}, data="smile-low"),
    "zinc-codes": Job(
        "vqvae",
        15,
        {
            "batch_size": 64,
            "network": "patches",
            "downsample": 1,
            "codes": 128,
            "latent": 32,
            "width": 128,
            "prior_start": 0.1,
            "skip_bad": True,
        },
        data="zinc",
    ),
    "music-codes": Job("vqvae", 15, {"batch_size": 64, "codes": 512, "width": 64}, data="chorales"),
    "ventricles-vae": Job("vae", 6, {"batch_size": 64}, data="ventricles-low"),
    **{f"{job.data}-{kind}": job for data in domain_sets.NAMES for kind, job in _of_a_domain(f"{data}-half").items()},
    **{f"{job.data}-{kind}": job for data in volume_sets.NAMES for kind, job in _of_heads(f"{data}-half").items()},
}
SNAPSHOTS = (1 / 3,)
"""Shares of the budget at which the weights of both diffusions are kept too, as runs/bench/<name>@33."""


def folder(name: str, options: Options) -> Path:
    """Where a run is kept."""
    return options.runs / ("bench-quick" if options.quick else "bench") / name


def trained(name: str, options: Options) -> Path:
    """The folder of a finished run, trained now if it is not there."""
    path = folder(name, options)
    if not (path / "cpu.json").exists():
        for earlier in filter(None, (JOBS[name].after, JOBS[name].start)):
            trained(earlier, options)
        flags = {"data": options.data, "runs": options.runs, "minutes": options.minutes, "only": name}
        command = [sys.executable, "-m", "benchmarks", "train", *(["--quick"] if options.quick else [])]
        command += [f"--{key}={value}" for key, value in flags.items() if value is not None]
        one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".log").open("w") as log:
            done = subprocess.run(
                [*command, "--threads=1"], cwd=ROOT, env={**os.environ, **one}, stdout=log, stderr=log, check=False
            )
        if done.returncode:
            raise RuntimeError(f"training {name} failed; its output is in {path.with_suffix('.log')}")
    return path


def cpu(name: str, options: Options) -> dict[str, float]:
    """What a run cost: CPU minutes (its own, and with the run it stands on), wall minutes, images."""
    return json.loads((trained(name, options) / "cpu.json").read_text())


def run(options: Options) -> None:
    """Train one job here (`--only`), or all of them, as many at once as there are cores."""
    if options.only:
        _train(options.only, options)
        return
    training_file(options)
    needed = {job.after for job in JOBS.values()}
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as lanes:
        list(lanes.map(lambda name: trained(name, options), [name for name in JOBS if name not in needed]))
    table = [{"run": name, "family": JOBS[name].family, **cpu(name, options)} for name in JOBS]
    record("train", {}, options, table=table, claim="What the runs of the other benchmarks cost.")


def _data(name: str, options: Options) -> Any:
    """What a job is trained on; Fashion-MNIST as the file that the command line would be given."""
    from benchmarks import sets

    if name == "fashion":
        return training_file(options)
    if name == "chorales":
        from benchmarks.music import chorales

        return chorales(options)
    if name == "zinc":
        return options.data.parent / "molecules" / "zinc_24k.csv.gz"
    if name.endswith("-low"):
        from benchmarks.beyond_sets import task

        return task(name.removesuffix("-low"), options).dataset
    if name == "heads-half":
        return volume_sets.heads(options).training
    if name.endswith(("-half", "-full")):
        which, _, size = name.rpartition("-")
        return domain_sets.domain(which, options, half=size == "half").training
    return {"films": sets.film_dataset, "brain": sets.brain_dataset, "fashion-labelled": sets.fashion_dataset}[name](
        options
    )


def cpu_seconds() -> float:
    """CPU time of this process and of the compilers that it started."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def _train(name: str, options: Options) -> None:
    from oneprior.training import train_iter

    job, path = JOBS[name], folder(name, options)
    resume = (path / "checkpoint").exists() and not (path / "cpu.json").exists()  # it was broken off
    if not resume:
        shutil.rmtree(path, ignore_errors=True)
    settings: dict[str, Any] = {
        "resume": resume,
        "seed": 0,
        "held_out": 0.0,
        "preview_every": 0,
        "tracker": "none",
        "checkpoint_every": 12_800,
        **job.settings,
    }
    if job.after:
        settings["autoencoder"] = str(trained(job.after, options))
    if job.start and not resume:
        settings["start_from"] = str(trained(job.start, options))
    if options.quick:
        settings |= {"images": 512, "checkpoint_every": 128}
    elif job.minutes:
        settings["minutes"] = job.minutes if options.minutes is None else options.minutes * job.minutes / 30
    below = job.after or job.start
    before = cpu(below, options)["total_cpu_minutes"] if below else 0.0
    start, progress, marks = time.time(), None, [share for share in SNAPSHOTS if name in ("diffusion", "ldm")]
    _budget_counts_cpu_time()
    for progress in train_iter(job.family, data=_data(job.data, options), out=path, **settings):
        if marks and progress.fraction >= marks[0]:
            _snapshot(path, path.with_name(f"{name}@{round(100 * marks.pop(0))}"))
    cost = max(cpu_seconds(), progress.seconds if progress else 0.0) / 60  # of all its processes, where it was resumed
    figures = {
        "cpu_minutes": round(cost, 2),
        "total_cpu_minutes": round(cost + before, 2),
        "wall_minutes": round((time.time() - start) / 60, 2),
        "images": progress.images if progress else 0,
    }
    (path / "cpu.json").write_text(json.dumps(figures))


def _budget_counts_cpu_time() -> None:
    """The clock of `minutes` becomes the CPU time of this process, and everything before the first step is charged."""
    from oneprior.training import loop

    readings = chain([0.0], iter(cpu_seconds, None))
    setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(readings)))  # noqa: B010 (no such thing to a type checker)


def _snapshot(path: Path, target: Path) -> None:
    """The averaged weights of the newest checkpoint, as a run of their own."""
    from oneprior.training.checkpoint import Checkpoints
    from oneprior.training.folder import CONFIG, WEIGHTS, write_tensors

    checkpoint = Checkpoints(path / "checkpoint").newest()
    if checkpoint is not None:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path / CONFIG, target / CONFIG)
        write_tensors(target / WEIGHTS, checkpoint.kept, {"images": checkpoint.counters.images})
