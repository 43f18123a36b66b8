"""Everything that is needed to go on, as one file a moment.

A checkpoint is one safetensors file named by the images seen: the weights, their averages, the optimisers' moments, and
in its header the counters as JSON. One file means one rename, so that a `kill -9` leaves whole checkpoints only. The
last two are kept, in case the disk damages one. Data order, noise and dropout need no state: they are functions of the
seed and of the counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from oneprior.core import BadRunError
from oneprior.training.folder import read_tensors, write_tensors

_KEPT = 2
_BEST = "best.safetensors"


@dataclass
class Counters:
    """Where a run stands.

    Args:
        step: steps done.
        images: images seen.
        seconds: wall time spent.
        best: the smallest held-out loss so far, or None.
        best_images: when that was.
        stale: held-out losses since the best one.
        stopped: whether patience ended the run.
    """

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_images: int = 0
    stale: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds; the tensors' names are those of the model and of the optimisers.

    Args:
        counters: where the run stood.
        model: every parameter and buffer, as trained.
        averages: the averaged parameters.
        optimisers: the moments, player/parameter/key.
    """

    counters: Counters
    model: Mapping[str, Tensor]
    averages: Mapping[str, Tensor] = field(default_factory=dict)
    optimisers: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, Tensor]:
        """The state of the model with the averages in place."""
        return {**self.model, **self.averages}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they lie; made at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, checkpoint: Checkpoint) -> None:
        """One more; all but the last two are removed."""
        tensors = {
            f"{part}|{name}": tensor
            for part in ("model", "averages", "optimisers")
            for name, tensor in getattr(checkpoint, part).items()
        }
        write_tensors(self._path(checkpoint.counters.images), tensors, asdict(checkpoint.counters))
        for path in self.paths()[:-_KEPT]:
            path.unlink(missing_ok=True)
        for path in (*self.folder.glob(".*.tmp.*"), *self.folder.parent.glob(".*.tmp.*")):
            path.unlink(missing_ok=True)

    def newest(self) -> Checkpoint | None:
        """The newest that can be read; None where there is none.

        Raises:
            BadRunError: there are some, and all are damaged.
        """
        problem: BadRunError | None = None
        for path in reversed(self.paths()):
            try:
                return _read(path)
            except BadRunError as error:
                problem = problem or error
        if problem is not None:
            raise problem
        return None

    def paths(self) -> list[Path]:
        """The checkpoint files, oldest first."""
        return sorted(path for path in self.folder.glob("*.safetensors") if path.name != _BEST)

    def write_best(self, model: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """The averaged weights with the best held-out loss so far."""
        write_tensors(self.folder / _BEST, model, facts)

    def best(self) -> dict[str, Tensor]:
        """The weights of `write_best`."""
        return read_tensors(self.folder / _BEST)[0]

    def _path(self, images: int) -> Path:
        return self.folder / f"{images:012d}.safetensors"


def _read(path: Path) -> Checkpoint:
    tensors, facts = read_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "averages": {}, "optimisers": {}}
    try:
        for name, tensor in tensors.items():
            part, _, rest = name.partition("|")
            parts[part][rest] = tensor
        return Checkpoint(Counters(**facts), **parts)
    except (KeyError, TypeError) as error:
        raise BadRunError(f"{path} is no checkpoint of OnePrior ({error!r}); remove it to start anew") from None
