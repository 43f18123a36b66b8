"""`oneprior features train`: a feature network of one's own, from labelled or unlabelled data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.record import check_place

if TYPE_CHECKING:
    from oneprior.evaluation import Classifier


@dataclass(frozen=True, kw_only=True)
class Features(Command):
    """Train the network that distances, perceptual figures and specifications of your own data look through.

    With labels it learns to tell the classes, and serves as --classifier too; without, what random crops, shifts and
    noise do not change (VICReg). Its name ends in the hash of its weights, which every table carries.

    Args:
        what: train.
        data: real events; labels are read where there are any.
        out: the file, features.safetensors.
        unlabelled: train without labels even where there are some.
        size: of the events, 32 or 80x96; the data's own where not given.
        channels: grey or rgb, to turn the data into.
        key: the array of a .npz.
        label_key: the labels of a .npz.
        slices: cut volumes into pictures along this axis.
        most: the most events that are read.
        held_out: share of the events that tries the network.
        steps: of the training.
        batch_size: events in each.
        width: channels of the first stage; the features have four times as many entries.
        name: what tables call it; the data's name where not given.
    """

    what: tyro.conf.Positional[Literal["train"]]
    data: Path
    out: Path
    unlabelled: bool = False
    size: str | None = None
    channels: Literal["grey", "rgb"] | None = None
    key: str | None = None
    label_key: str | None = None
    slices: Literal[0, 1, 2] | None = None
    most: int = 60_000
    held_out: float = 0.1
    steps: int = 1500
    batch_size: int = 128
    width: int = 32
    name: str | None = None

    def execute(self) -> Outcome:
        import torch

        from oneprior.core import Rows, replacing
        from oneprior.data import open_dataset, split
        from oneprior.evaluation import train_classifier_iter, train_self_supervised_iter

        if self.out.suffix != ".safetensors":
            raise Mistake(f"--out {self.out}: a network is written to a .safetensors file")
        if not 0 < self.held_out < 1 or min(self.steps, self.batch_size, self.width, self.most) < 1:
            raise Mistake("--held-out lies between 0 and 1; --steps, --batch-size, --width and --most are at least 1")
        check_place(self.out, self)
        data = open_dataset(
            self.data,
            size=self.size,
            channels=self.channels,
            key=self.key,
            label_key=self.label_key,
            slices=self.slices,
            labels=not self.unlabelled,
        )
        training, test = split(data, self.held_out, seed=self.common.seed)
        order = Rows(1, seed=self.common.seed, stream="most").bits(len(training))[0].argsort()[: self.most]
        learned, apart = training.batch(order), test.batch(torch.arange(min(len(test), 5000)))
        device = self.common.torch_device()
        labelled = "label" in learned.condition and not learned.condition["label"].is_floating_point()
        rows = Rows(min(self.batch_size, len(learned)), seed=self.common.seed)
        name = self.name or f"{self.data.stem}-{'classifier' if labelled else 'self-supervised'}"
        told = {"steps": self.steps, "width": self.width, "label": name}
        x = learned.x.to(device)
        if labelled:
            labels = learned.condition["label"].long().to(device)
            names = next((spec.names for spec in data.conditions if spec.name == "label"), ())
            states = train_classifier_iter(x, labels, rows.to(device), names=names, **told)
        else:
            states = train_self_supervised_iter(x, rows.to(device), **told)
        network, _ = screen.track(_counted(states), "features", lambda state: state[1] / self.steps)
        figures = {"name": network.name, "features": 4 * self.width, "trained_on": len(learned), "held_out": len(apart)}
        said = f"{network.name}: {4 * self.width} features from {len(learned):,} events"
        if labelled:
            right = network.classify(apart.x.to(device)).cpu() == apart.condition["label"].long()
            figures["accuracy"] = float(right.double().mean())
            said += f", {figures['accuracy']:.1%} of {len(apart):,} held-out events told right"
        with replacing(self.out) as draft:
            network.cpu().save(draft)
        return Outcome(self.out.parent, (self.out,), figures, said)


def _counted(states: Iterator[Classifier]) -> Iterator[tuple[Classifier, int]]:
    for step, network in enumerate(states):
        yield network, step + 1
