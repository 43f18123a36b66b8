"""Stability and diversity of the three adversarial games, measured: 5 seeds of each on a labelled mixture.

The mixture is scikit-learn's 1,797 handwritten digits (8 x 8, ten classes, shipped with the package). Every run has
the same networks, optimiser, images and augmentation; only the game and the seed differ, and the penalty that belongs
to the game (relativistic: R1 + R2; non-saturating: R1; minimax: none, as in 2014). Each final generator draws 2,000
digits:

- Frechet distance of the features of a small classifier trained on the digits (named in the file; comparable only
  here), beside the floor, the distance between two halves of the real digits;
- modes recovered: classes that get at least a tenth of their share of the data, by that classifier;
- the divergence of the class frequencies from the data's, in nats (log 10 = 2.3 for one class only).

A run counts as collapsed where it lost a class or diverged. `oneprior.training.fit` trains, so what is measured is
what a user gets.
"""

from __future__ import annotations

import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from torch import Tensor

from benchmarks.harness import Figure, Options, record
from oneprior.core import DivergedError, Rows
from oneprior.data.batch import Batch, Dataset
from oneprior.evaluation import Classifier, frechet_distance, label_modes, train_classifier
from oneprior.models.adversarial_losses import Objective
from oneprior.models.configs.gan import GANConfig
from oneprior.models.gan import GAN
from oneprior.training.config import TrainConfig
from oneprior.training.loop import fit

OBJECTIVES: tuple[Objective, ...] = ("relativistic", "nonsaturating", "minimax")
SEEDS, IMAGES, SAMPLES = 5, 200_000, 2_000


@dataclass(frozen=True)
class Outcome:
    """One run: its game and seed, Frechet distance, classes recovered, divergence of their frequencies, CPU seconds."""

    objective: str
    seed: int
    frechet: float
    modes: int
    divergence: float
    seconds: float


class Digits(Dataset):
    """The 8 x 8 digits in memory."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        self.x = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
        self.labels = torch.tensor(labels)
        self.event_shape = self.x.shape[1:]

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> Batch:
        return Batch(self.x[index], index=index)


def run(options: Options) -> None:
    """Train every game with every seed, two at a time on two cores, and record spread and modes."""
    seeds, images = (1, 2_000) if options.quick else (SEEDS, IMAGES)
    network = _classifier(Digits())
    jobs = [(objective, seed, images) for seed in range(seeds) for objective in OBJECTIVES]
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        for outcome in pool.map(_train, jobs):
            print(f"{outcome.objective} {outcome.seed}: {outcome.frechet:.2f}, {outcome.modes} modes", flush=True)
            outcomes.append(outcome)
    table, figures = [], {}
    for objective in OBJECTIVES:
        mine = [o for o in outcomes if o.objective == objective]
        distances = [o.frechet for o in mine]
        spread = statistics.stdev(distances) if len(mine) > 1 else float("nan")
        table.append(
            {
                "objective": objective,
                "Frechet mean": statistics.mean(distances),
                "Frechet spread": spread,
                "lowest": min(distances),
                "highest": max(distances),
                "modes (of 10)": " ".join(str(o.modes) for o in mine),
                "class divergence": statistics.mean(o.divergence for o in mine),
                "CPU seconds a run": statistics.mean(o.seconds for o in mine),
            }
        )
        collapsed = sum(o.modes < 10 for o in mine)
        error = spread / len(mine) ** 0.5
        figures[f"{objective}_frechet"] = Figure(statistics.mean(distances), error, note="mean over seeds")
        target = ("<=", 0.0) if objective == "relativistic" and not options.quick else None
        figures[f"{objective}_collapsed_runs"] = Figure(float(collapsed), None, target, f"of {len(mine)} seeds")
    record(
        "gan_stability",
        figures,
        options,
        table=table,
        claim="Spread of Frechet distance and classes recovered over seeds, for three adversarial games on 8x8 digits.",
        runs=[vars(o) for o in outcomes],
        floor=_floor(network),
        images=images,
        samples=SAMPLES,
        features=network.name,
    )


def _train(job: tuple[Objective, int, int]) -> Outcome:
    """One run in this process."""
    import time

    objective, seed, images = job
    data = Digits()
    network = _classifier(data)
    start = time.process_time()
    torch.manual_seed(seed)
    model = GAN(GANConfig(objective), data.event_shape)
    try:
        for _ in fit(model, data, TrainConfig(images=images, seed=seed, tracker="none", preview_every=0)):
            pass
    except DivergedError:
        return Outcome(objective, seed, float("inf"), 0, float("inf"), time.process_time() - start)
    seconds = time.process_time() - start
    x = model.prior().sample(Rows(SAMPLES, seed=10_000 + seed)).clamp(-1, 1)
    distance = frechet_distance(network.embed(data.x), network.embed(x))
    share = torch.bincount(data.labels).double() / len(data)
    least = round(float(0.1 * share.min()) * SAMPLES)
    modes = label_modes(network.classify(x), 10, frequencies=share, at_least=least)
    return Outcome(objective, seed, float(distance), modes.recovered, modes.divergence, seconds)


def _classifier(data: Digits) -> Classifier:
    """The feature network: the same weights in every process, since its rows are."""
    return train_classifier(data.x, data.labels, Rows(128, seed=0), 300, width=16, label="digits-classifier")


def _floor(network: Classifier) -> float:
    """The distance between two halves of the real digits."""
    x = Digits().x
    return float(frechet_distance(network.embed(x[::2]), network.embed(x[1::2])))


def _one_thread() -> None:
    torch.set_num_threads(1)
