"""A small classifier whose last features make a Frechet distance for data that no public feature network knows.

The FID looks at pictures through Inception, trained on ImageNet and downloaded. For other data, and without a network,
the same formula needs other features; those of a classifier trained on the set's own labels see what tells its classes
apart. Such a distance is comparable only with itself, so the network has a name that ends in the hash of its weights
(`Classifier.name`), which every table must carry.

The network is four convolutions (strides 2, 1, 2, 1; group normalisation, SiLU) and a mean over space, in one, two or
three dimensions; its features are that mean, as Inception's "pool3" is. It is trained by cross-entropy with AdamW and a
one-cycle rate (Smith and Topin 2018).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import BadRunError, InputError, Rows, ShapeError

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Classifier(nn.Module):
    """Class logits and features of events.

    Args:
        event_shape: (channels, *space), one to three spatial axes.
        classes: number of classes; 0 for features alone, learned without labels (`evaluation.self_supervised`).
        width: channels of the first convolution; the features have 4 * width entries.
        rows: the random numbers of its first weights; one row is used.
        label: what the name begins with, as "fashion-mnist".
        names: of the classes, or empty.
    """

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        classes: int,
        rows: Rows | None = None,
        *,
        width: int = 32,
        label: str = "classifier",
        names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if len(event_shape) - 1 not in _CONVOLUTIONS:
            raise ShapeError("events of the classifier", tuple(event_shape), "(channels, *space)", "Up to three axes.")
        self.event_shape, self.classes, self.width = torch.Size(event_shape), classes, width
        self.label, self.names = label, tuple(names)
        convolution = _CONVOLUTIONS[len(event_shape) - 1]
        layers: list[nn.Module] = []
        before = event_shape[0]
        for multiple, kernel, stride in ((1, 5, 2), (2, 3, 1), (4, 3, 2), (4, 3, 1)):
            after = multiple * width
            layers += [
                convolution(before, after, kernel, stride=stride, padding=kernel // 2, bias=False),
                nn.GroupNorm(math.gcd(8, after), after),
                nn.SiLU(),
            ]
            before = after
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes) if classes else None
        if rows is not None:
            self._initialise(rows.take(slice(0, 1)).stream("weights"))
        self.eval()

    @torch.no_grad()
    def _initialise(self, rows: Rows) -> None:
        """He et al. 2015, from the rows instead of the global generator."""
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                weight = module.weight
                weight.copy_(rows.normal(*weight.shape)[0] * math.sqrt(2 / weight[0].numel()))
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    @property
    def name(self) -> str:
        """Label and the first 8 hexadecimal digits of the hash of its weights."""
        return f"{self.label}-{self.fingerprint[:8]}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its weights, name by name."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def features(self, x: Tensor) -> Tensor:
        """Mean over space of the last stage, (n, *event_shape) -> (n, 4 * width)."""
        return self.body(x).flatten(2).mean(2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (n, *event_shape) -> (n, classes).

        Raises:
            InputError: for a network that was trained without labels.
        """
        if self.head is None:
            raise InputError(f"{self.name} was trained without labels and knows no classes; use its features")
        return self.head(self.features(x))

    @torch.no_grad()
    def embed(self, x: Tensor, batch: int = 500) -> Tensor:
        """`features` of any number of events, some at a time, (n, 4 * width)."""
        return torch.cat([self.features(x[i : i + batch]) for i in range(0, max(len(x), 1), batch)])

    @torch.no_grad()
    def classify(self, x: Tensor, batch: int = 500) -> Tensor:
        """The likeliest class of each event, int64 (n,)."""
        return torch.cat([self(x[i : i + batch]).argmax(1) for i in range(0, max(len(x), 1), batch)])

    def save(self, path: Path | str) -> None:
        """Write weights and settings as one safetensors file."""
        settings = {
            "event_shape": list(self.event_shape),
            "classes": self.classes,
            "width": self.width,
            "label": self.label,
            "names": list(self.names),
        }
        metadata = {"classifier": json.dumps(settings), "sha256": self.fingerprint}
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, str(path), metadata=metadata)

    @classmethod
    def load(cls, path: Path | str) -> Classifier:
        """Read what `save` wrote.

        Raises:
            BadRunError: if the file is missing, foreign, or its weights do not have the hash it names.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError) as error:
            raise BadRunError(
                f"{path} is no readable safetensors file ({error}); train the classifier again"
            ) from error
        if "classifier" not in metadata:
            raise BadRunError(f"{path} holds no classifier of oneprior.evaluation; train one with train_classifier")
        settings = json.loads(metadata["classifier"])
        network = cls(
            settings["event_shape"],
            settings["classes"],
            width=settings["width"],
            label=settings["label"],
            names=settings.get("names", ()),
        )
        network.load_state_dict(state)
        if network.fingerprint != metadata.get("sha256"):
            raise BadRunError(f"the weights in {path} do not have the hash it names; train the classifier again")
        return network


def train_classifier(x: Tensor, labels: Tensor, rows: Rows, steps: int = 2000, **options: Any) -> Classifier:
    """Train a `Classifier` on labelled events: the last state of `train_classifier_iter`."""
    (network,) = deque(train_classifier_iter(x, labels, rows, steps, **options), maxlen=1)
    return network


def train_classifier_iter(
    x: Tensor,
    labels: Tensor,
    rows: Rows,
    steps: int = 2000,
    *,
    width: int = 32,
    learning_rate: float = 3e-3,
    label: str = "classifier",
    names: Sequence[str] = (),
) -> Iterator[Classifier]:
    """Train a `Classifier` on labelled events.

    Args:
        x: events in [-1, 1], (n, *event_shape).
        labels: int64 (n,), from 0.
        rows: one row for each place in a batch: `Rows(128, seed)` trains on batches of 128.
        steps: optimisation steps, at least one.
        width: channels of the first convolution.
        learning_rate: peak rate of AdamW.
        label: what the network's name begins with.
        names: of the classes, or empty.

    Yields:
        The network after each step; after the last one it is ready to use (`embed`, `classify`).

    Raises:
        InputError: if events and labels differ in number, or there is only one class.
    """
    if len(x) != len(labels):
        raise InputError(f"{len(x)} events with {len(labels)} labels; give one label for each event")
    classes = max(int(labels.max()) + 1, len(names))
    if classes < 2:
        raise InputError("all labels are 0: a classifier needs at least two classes")
    if steps < 1:
        raise InputError(f"training needs at least one step, got {steps}")
    network = Classifier(x.shape[1:], classes, rows, width=width, label=label, names=names).to(x.device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=max(steps, 2), pct_start=0.2)
    for step in range(steps):
        index = rows.stream(f"batch {step}").integers(len(x)).to(x.device)
        loss = F.cross_entropy(network(x[index]), labels[index].to(x.device), label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
        if step == steps - 1:
            network.eval().requires_grad_(False)
        yield network
