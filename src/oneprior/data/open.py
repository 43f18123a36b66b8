"""One door for all data: `open_dataset(path)` looks at what is there and opens it.

| found | events |
|---|---|
| folder or zip of PNG, JPEG, TIFF, ... | pictures; class sub-folders become the condition "label" |
| .npy, .npz, IDX (.gz too) | rows of an array, mapped; labels by key or by the name of the file |
| .nii, .nii.gz, a folder or zip of them | volumes with their affine, or slices along an axis |
| folder or zip of DICOM | one volume for each series |
| .gif, a folder of them, or of frames with `clips=True` | (channels, time, height, width) |
| `datasets.Dataset`, a folder by `save_to_disk` | the pictures of a column |
| .smi, .smiles, .selfies, .csv with a column of SMILES | molecules, (tokens, length); see `data.molecules` |
| .mid, a folder or zip of them | windows of music, (voices x tokens, steps); see `data.midi` |
| array or tensor | see `array_dataset` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from oneprior.core import InputError
from oneprior.data import hub
from oneprior.data.batch import Dataset
from oneprior.data.fit import Fit, Size, parse_size
from oneprior.data.from_arrays import open_array
from oneprior.data.from_files import archive_in, choose_reader, list_files, open_files, open_hub, open_molecules
from oneprior.data.memory import array_dataset
from oneprior.data.molecules import is_molecules
from oneprior.data.plan import Channels, Plan, Request
from oneprior.data.stored import StoredDataset


def open_dataset(
    path: str | Path | Dataset | np.ndarray | Tensor | object,
    *,
    size: Size | str | None = None,
    fit: Fit = "resize",
    channels: Channels | None = None,
    key: str | None = None,
    label_key: str | None = None,
    slices: int | None = None,
    clips: bool = False,
    layout: str | None = None,
    orientation: str | None = None,
    value_range: tuple[float, float] | None = None,
    skip_bad: bool = False,
    labels: bool = True,
    cache: Path | str | bool = True,
    tokens: Sequence[str] = (),
) -> Dataset:
    """Open real data as events in [-1, 1].

    Args:
        path: see the table above; a `Dataset` is given back as it is.
        size: of the events, 32, (80, 96) or "80x96"; None keeps the files' own, which must then agree.
        fit: how an event comes to that size; see `fit_events`.
        channels: "grey" or "rgb"; None keeps the files' own, which must then agree.
        key: the array of a .npz, the column of a table, or the sub-folder of a folder or zip to read.
        label_key: the labels of a .npz, the label column of a table, or the label file of an IDX file.
        slices: cut volumes into pictures along this axis, 0, 1 or 2.
        clips: folders of pictures are the frames of clips.
        layout: what the axes of an array are, such as "nhwc"; see `oneprior.data.layouts`.
        orientation: turn all volumes to these axes, such as "RAS".
        value_range: the values, in the data's units, of x = -1 and x = 1; see `oneprior.data.ranges`.
        skip_bad: go on past broken files and list them in `Dataset.skipped`.
        labels: whether to read labels where there are any.
        cache: keep what is decoded or unpacked beside the data (True), in this folder, or not at all (False; arrays
            that are packed are unpacked all the same).
        tokens: of sequences, those that a model knows; `size` is then the length that it knows.

    Raises:
        InputError: names the file, what is wrong with it, and what to do.
    """
    unused = {"key": key, "label_key": label_key, "slices": slices, "clips": clips, "orientation": orientation}
    if isinstance(path, Dataset):
        _refuse("a data set that is open already", unused | {"size": size, "channels": channels, "layout": layout})
        _refuse("a data set that is open already", {"value_range": value_range})
        return path
    plan = Plan(parse_size(size), fit, channels, slices, orientation)
    if isinstance(path, (np.ndarray, Tensor)):
        _refuse("an array", unused)
        whole = array_dataset(path, layout=layout, value_range=value_range)
        return StoredDataset(whole.source, whole.units, whole.geometry, plan=plan, clip=value_range is not None)
    request = Request(
        plan=plan,
        key=key,
        label_key=label_key,
        clips=clips,
        layout=layout,
        value_range=value_range,
        skip_bad=skip_bad,
        labels=labels,
        keep=cache is not False,
        cache=None if isinstance(cache, bool) else Path(cache),
        tokens=tuple(tokens),
    )
    if hub.is_hub_dataset(path):
        return open_hub(path, "data set", None, request)
    place = Path(path).expanduser()  # type: ignore[arg-type]
    if not place.exists():
        raise InputError(f"{place}: there is no such file or folder")
    if place.is_dir() and hub.is_hub_folder(place):
        return open_hub(hub.load_folder(place), place.name, place, request)
    return _open(place, request)


def _refuse(what: str, options: Mapping[str, object]) -> None:
    """Raises where an option was given that nothing would be done with."""
    if given := [name for name, value in options.items() if value is not None and value is not False]:
        raise InputError(f"{what} takes no {', '.join(given)}: do it before, or give the path of the files")


def _open(place: Path, request: Request) -> Dataset:
    if is_molecules(place, request.key):
        return open_molecules(place, request)
    array = open_array(place, request)
    if array is not None:
        return array
    files = list_files(place, request.key)
    reader = choose_reader(files, place, request)
    if reader is None:
        return _open(archive_in(place, request.key), request)
    return open_files(reader, files, place, request)
