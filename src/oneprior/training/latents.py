"""A data set as its latents, encoded once and kept on disk: what makes latent diffusion cheap to train.

The autoencoder stands still while the diffusion learns, so that encoding the data anew in every epoch would be most of
the work. The latents lie in mapped NumPy files in the run folder, beside the conditions; memory does not grow with
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneprior.core import BadRunError, replacing
from oneprior.data.batch import Batch, Dataset
from oneprior.training.folder import write_text
from oneprior.training.order import fetched_ahead


class CachedLatents(Dataset):
    """The latents of a data set, mapped from disk.

    Args:
        folder: what `encode_dataset` wrote.
        source: the data set they were made of; for its shape, conditions, units and geometry.

    Attributes:
        source_shape: of the events that were encoded.

    Raises:
        BadRunError: the files are missing or of another data set.
    """

    def __init__(self, folder: Path, source: Dataset) -> None:
        note = folder / "latents.json"
        if not note.exists():
            raise BadRunError(f"{folder} holds no latents; remove it, and they are encoded again")
        self._facts = json.loads(note.read_text(encoding="utf-8"))
        if self._facts["n"] != len(source) or self._facts["source_shape"] != list(source.event_shape):
            raise BadRunError(f"{folder} holds the latents of other data; remove it, and they are encoded again")
        self._latents = np.load(folder / "x.npy", mmap_mode="r")
        self._told = {name: np.load(folder / f"{name}.condition.npy", mmap_mode="r") for name in self._facts["told"]}
        self._present = {
            name: np.load(folder / f"{name}.present.npy", mmap_mode="r") for name in self._facts["present"]
        }
        self.event_shape, self.source_shape = torch.Size(self._latents.shape[1:]), torch.Size(source.event_shape)
        self.conditions, self.units, self.geometry = source.conditions, source.units, source.geometry
        self.names, self.groups, self.skipped = source.names, source.groups, source.skipped

    def __len__(self) -> int:
        return self._latents.shape[0]

    def batch(self, index: Tensor) -> Batch:
        """Batches whose x are latents."""
        rows = index.numpy()
        return Batch(
            torch.from_numpy(self._latents[rows]),
            {name: torch.from_numpy(values[rows]) for name, values in self._told.items()},
            {name: torch.from_numpy(values[rows]) for name, values in self._present.items()},
            index=index,
        )


def encode_dataset(
    encode: Callable[[Tensor], Tensor], source: Dataset, folder: Path, batch_size: int, device: torch.device
) -> Iterator[float]:
    """Write the latents of a data set, at once; yields the share that is done.

    Args:
        encode: (n, *event_shape) -> (n, *latent_shape).
        source: what is encoded.
        folder: where the files go; nothing is done where they are complete.
        batch_size: events encoded together.
        device: where `encode` computes.
    """
    note, n = folder / "latents.json", len(source)
    if note.exists():
        yield 1.0
        return
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, np.memmap] = {}
    try:
        for index, batch in zip(
            torch.arange(n).split(batch_size),
            fetched_ahead(source, torch.arange(n).split(batch_size)),
            strict=True,
        ):
            batch = replace(batch, x=encode(batch.x.to(device)).float().cpu())
            for name, values in _columns(batch).items():
                if name not in files:
                    array, shape = values.numpy(), (n, *values.shape[1:])
                    files[name] = np.lib.format.open_memmap(
                        folder / f".{name}.part", mode="w+", dtype=array.dtype, shape=shape
                    )
                files[name][index.numpy()] = values.numpy()
            yield (int(index[-1]) + 1) / n
        for name, values in files.items():
            values.flush()
            with replacing(folder / f"{name}.npy", durable=True) as temporary:
                (folder / f".{name}.part").replace(temporary)
        facts = {"n": n, "source_shape": list(source.event_shape)}
        for kind, ending in (("told", ".condition"), ("present", ".present")):
            facts[kind] = [name.removesuffix(ending) for name in files if name.endswith(ending)]
        write_text(note, json.dumps(facts))
    finally:
        for name in files:
            (folder / f".{name}.part").unlink(missing_ok=True)


def _columns(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch by the names of their files."""
    told = {f"{name}.condition": values for name, values in batch.condition.items()}
    present = {f"{name}.present": values for name, values in batch.present.items()}
    return {"x": batch.x, **told, **present}
