"""Hugging Face `datasets`, where that package is installed: a `datasets.Dataset` or a folder made by `save_to_disk`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from oneprior.core import Geometry, InputError
from oneprior.data.decoded import Decoded, Reader
from oneprior.data.files import Numbered
from oneprior.data.layouts import event_layout
from oneprior.data.pictures import from_image


def is_hub_dataset(value: object) -> bool:
    """Whether an object comes from the `datasets` package, told without importing it."""
    return type(value).__module__.partition(".")[0] == "datasets"


def is_hub_folder(path: Path) -> bool:
    """Whether a folder was made by `datasets`' `save_to_disk`."""
    return (path / "dataset_dict.json").exists() or (
        (path / "dataset_info.json").exists() and (path / "state.json").exists()
    )


def load_folder(path: Path) -> Any:
    """The saved data set; of several splits, "train"."""
    try:
        from datasets import load_from_disk  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(f"{path}: a Hugging Face data set; install the package: pip install datasets") from error
    return choose_split(load_from_disk(str(path)), str(path))


def choose_split(value: Any, what: str) -> Any:
    """One split of a `DatasetDict`: its only one, or "train"."""
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        return next(iter(value.values()))
    if "train" in value:
        return value["train"]
    raise InputError(f"{what}: holds the splits {', '.join(value)}; open one of them")


class HubReader(Reader):
    """The pictures of one column.

    Args:
        table: a `datasets.Dataset`.
        what: its name in messages.
        key: the column; by default the only one of images, or "image" or "img".
    """

    def __init__(self, table: Any, what: str, key: str | None = None) -> None:
        self._table, self._what = table, what
        self.key = key or self._choose()
        if self.key not in table.column_names:
            raise InputError(f"{what}: has no column {self.key!r}; it has {', '.join(table.column_names)}")
        self._column = table.select_columns([self.key])
        self.names = Numbered(what, len(table))

    def _choose(self) -> str:
        features = self._table.features
        images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
        images = images if len(images) == 1 else [n for n in self._table.column_names if n in ("image", "img")]
        if len(images) != 1:
            raise InputError(f"{self._what}: which column is the data? key= one of {', '.join(features)}")
        return images[0]

    def where(self, i: int) -> str:
        return self.names[i]

    def decode(self, i: int) -> Decoded:
        value = self._column[i][self.key]
        if value is None:
            raise ValueError("holds no picture")
        if isinstance(value, (list, np.ndarray)):
            values = np.asarray(value)
            layout = event_layout(values.shape, self.where(i))
            event = np.moveaxis(values, layout.index("c"), 0) if "c" in layout else values[None]
        else:
            event = from_image(value)
        return Decoded(np.ascontiguousarray(event), Geometry(event.dtype.name, format="png"))

    def digest(self) -> str:
        return f"hub/{self.key}/{getattr(self._table, '_fingerprint', id(self._table))}"

    def labels(self, label_key: str | None) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """The labels of all rows and the names of the classes: the column given, or the only `ClassLabel`."""
        features = self._table.features
        if label_key is None:
            found = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
            found = found or [name for name in ("label", "labels") if name in features]
            if len(found) != 1:
                return None
            label_key = found[0]
        if label_key not in features:
            raise InputError(f"{self._what}: has no column {label_key!r}; it has {', '.join(features)}")
        names = tuple(getattr(features[label_key], "names", None) or ())
        return np.asarray(self._table[label_key][:]), names
