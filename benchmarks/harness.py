"""What all benchmarks share: options, Fashion-MNIST, timing of two contestants, and the record of what was measured."""

from __future__ import annotations

import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.evaluation import Classifier, train_classifier

ROOT = Path(__file__).resolve().parent.parent
_START = time.time()


@dataclass(frozen=True)
class Options:
    """The command line.

    Args:
        data: folder of Fashion-MNIST in IDX files.
        runs: where trained runs are kept and looked for.
        results: where the JSON goes.
        quick: seconds instead of hours; proves that the script runs, measures nothing.
        minutes: CPU minutes of training for each deep family; None for each benchmark's own.
        samples: number of samples behind a Frechet distance.
        seeds: how many seeds.
        threads: of torch in this process.
        only: with `train`, the one run to train, in this process.
    """

    data: Path = ROOT / "../shared/data/fashion-mnist"
    runs: Path = ROOT / "runs"
    results: Path = ROOT / "benchmarks/results"
    quick: bool = False
    minutes: float | None = None
    samples: int = 10_000
    seeds: int = 3
    threads: int = os.cpu_count() or 1
    only: str = ""


@dataclass(frozen=True)
class Figure:
    """One measured number and, where there is one, the target it has to reach.

    Args:
        value: what was measured.
        standard_error: of value; None where it is exact or unknown.
        target: (">=" or "<=", number).
        note: what the number is, in a few words.
    """

    value: float
    standard_error: float | None = None
    target: tuple[str, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target[1] if self.target[0] == ">=" else self.value <= self.target[1]

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        goal = (
            ""
            if self.target is None
            else f"   (target {self.target[0]} {self.target[1]:g}: {'met' if self.met else 'NOT met'})"
        )
        return f"{self.value:.4g}{error}{goal}"


def record(
    name: str,
    figures: Mapping[str, Figure],
    options: Options,
    *,
    table: Sequence[Mapping[str, Any]] = (),
    claim: str = "",
    **meta: Any,
) -> Path:
    """Print the table and the figures, and write them with all that is needed to measure them again.

    Args:
        name: of the benchmark; the file is <results>/<name>.json (<runs>/quick/<name>.json with --quick).
        figures: what was measured against which target.
        options: the command line.
        table: rows of the table, each {column: value}.
        claim: one sentence: what is compared with what.
        meta: anything else worth keeping (seeds, n, settings, the name of the feature network).
    """
    show(table)
    for key, figure in figures.items():
        print(f"{key}: {figure}")
    folder = options.runs / "quick" if options.quick else options.results
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {
        "name": name,
        "claim": claim,
        "figures": {key: {**asdict(figure), "met": figure.met} for key, figure in figures.items()},
        "table": list(table),
        **meta,
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        **commit(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "seconds": round(time.time() - _START, 1),
        "machine": machine(),
    }
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")
    print(f"-> {path}")
    return path


def commit() -> dict[str, Any]:
    """The commit that measures, and whether its program was changed since."""
    changed = bool(_git("status", "--porcelain", "--", "src", "benchmarks/*.py"))
    return {"commit": _git("rev-parse", "HEAD"), "uncommitted_changes": changed}


def show(table: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of equal keys as a table."""
    if not table:
        return
    cells = [list(table[0])] + [[cell(value) for value in row.values()] for row in table]
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    for row in cells:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def cell(value: Any) -> str:
    """A number as a person would write it."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def machine() -> dict[str, Any]:
    """Processor, threads and versions."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "amx": "amx_bf16" in cpuinfo.read_text() if cpuinfo.exists() else None,
        "load": list(os.getloadavg()),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


# Timing -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Race:
    """Seconds of two contestants, run in turn. All are medians over the rounds.

    Args:
        first: wall seconds of the first.
        second: wall seconds of the second.
        ratio: first / second, median of the rounds' own ratios: above 1 the second is faster.
        error: standard error of `ratio` (1.2533 standard deviations / sqrt(rounds), of a median).
        cpu_ratio: the same ratio in CPU seconds, which other processes disturb less.
        rounds: how often.
    """

    first: float
    second: float
    ratio: float
    error: float
    cpu_ratio: float
    rounds: int


def race(first: Callable[[], object], second: Callable[[], object], rounds: int = 5) -> Race:
    """Time two contestants in turn, the order reversed every round, after one round that is not counted."""
    wall: list[dict[int, float]] = []
    cpu: list[dict[int, float]] = []
    for turn in range(rounds + 1):
        seconds, process = {}, {}
        for who in (0, 1) if turn % 2 else (1, 0):
            start, start_cpu = time.perf_counter(), time.process_time()
            (first, second)[who]()
            seconds[who], process[who] = time.perf_counter() - start, time.process_time() - start_cpu
        wall, cpu = [*wall, seconds], [*cpu, process]
    wall, cpu = wall[1:], cpu[1:]
    ratios = [s[0] / s[1] for s in wall]
    return Race(
        statistics.median(s[0] for s in wall),
        statistics.median(s[1] for s in wall),
        statistics.median(ratios),
        1.2533 * statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan"),
        statistics.median(s[0] / s[1] for s in cpu),
        rounds,
    )


# Data ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fashion:
    """Fashion-MNIST in [-1, 1]: 59,000 images to train on, 1,000 held out, 10,000 for tests."""

    train: Tensor
    labels: Tensor
    held_out: Tensor
    test: Tensor
    test_labels: Tensor


def fashion(options: Options) -> Fashion:
    """Read the IDX files; the last 1,000 training images are held out (the Parzen bandwidth is chosen on them)."""
    x, labels = (_idx(options.data / f"train-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    test, test_labels = (_idx(options.data / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    x, test = (images.float().unsqueeze(1) / 127.5 - 1 for images in (x, test))
    return Fashion(x[:-1000], labels[:-1000].long(), x[-1000:], test, test_labels.long())


def training_file(options: Options) -> Path:
    """The 59,000 training images, without labels, as one .npy that `oneprior.train` reads."""
    import numpy as np

    path = options.runs / "data" / "fashion-mnist-59000.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, _idx(options.data / "train-images-idx3-ubyte.gz")[:-1000, None].numpy())
        partial.rename(path)
    return path


def _idx(path: Path) -> Tensor:
    content = bytearray(gzip.decompress(path.read_bytes()))
    axes = content[3]
    shape = [int.from_bytes(content[4 + 4 * k : 8 + 4 * k], "big") for k in range(axes)]
    return torch.frombuffer(content, dtype=torch.uint8, offset=4 + 4 * axes).reshape(shape)


def feature_network(options: Options, data: Fashion) -> Classifier:
    """The classifier behind every Frechet distance, trained once on the training labels and kept in runs/features."""
    steps = 60 if options.quick else 2000
    path = options.runs / "features" / f"fashion-mnist-{steps}.safetensors"
    if not path.exists():
        print(f"training the feature network, {steps} steps")
        network = train_classifier(data.train, data.labels, Rows(128, seed=0), steps, label="fashion-mnist-classifier")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        network.save(partial)
        partial.rename(path)
    return Classifier.load(path)
