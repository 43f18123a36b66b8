"""A data set from files that are decoded one by one: pictures, volumes, DICOM, clips, a hub's table."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from oneprior.core import InputError
from oneprior.data import hub
from oneprior.data import labels as labelling
from oneprior.data.arrays import is_idx
from oneprior.data.cache import cache_path
from oneprior.data.clips import FramesReader, is_frame
from oneprior.data.decoded import BadFileError, Reader
from oneprior.data.dicom import SeriesReader, is_dicom
from oneprior.data.files import Files, FolderFiles, Taken, ZipFiles
from oneprior.data.midi import MidiReader
from oneprior.data.molecules import MoleculeReader, columns_of
from oneprior.data.plan import Request
from oneprior.data.ranges import map_for, needs_survey
from oneprior.data.readers import FileReader, kind_of
from oneprior.data.sources import ArraySource, DecodedSource, MappedArray, Source
from oneprior.data.stored import StoredDataset
from oneprior.data.survey import Survey, survey

_KNOWN = "PNG, JPEG, TIFF, GIF, NIfTI, DICOM, .npy, .npz, .zip, IDX, SMILES or MIDI"

_PARTS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def open_files(reader: Reader, files: Files, place: Path, request: Request) -> StoredDataset:
    """The data set of what `choose_reader` chose."""
    if isinstance(reader, MidiReader):
        return _open_sequences(reader, place, request)
    result, source = _look(reader, place, request)
    names = Taken(reader.names, result.items)
    told = None
    if request.labels and not reader.converts:  # the folders of volumes are patients and visits, not classes
        told = labelling.from_json(files, names, result.rows) or labelling.from_names(names, result.rows, str(place))
    return _assemble(result, source, names, told, request, str(place))


def open_hub(table: object, what: str, place: Path | None, request: Request) -> StoredDataset:
    """The data set of one column of a `datasets.Dataset`; `place` is its folder, if it has one."""
    reader = hub.HubReader(hub.choose_split(table, what), what, request.key)
    result, source = _look(reader, place, request)
    told = None
    if request.labels and (column := reader.labels(request.label_key)) is not None:
        told = labelling.from_values(np.repeat(column[0][result.items], result.rows, axis=0), what, column[1])
    return _assemble(result, source, Taken(reader.names, result.items), told, request, what)


def open_molecules(place: Path, request: Request) -> StoredDataset:
    """The data set of a file of molecules; the size of the plan is the length of the sequences."""
    reader = MoleculeReader(place, request.key, request.tokens, _length(place, request), request.skip_bad)
    return _open_sequences(reader, place, request)


def _open_sequences(reader: MoleculeReader | MidiReader, place: Path, request: Request) -> StoredDataset:
    """The data set of sequences, whose length the reader has seen to; windows of one piece of music are a group."""
    plain = replace(request, plan=replace(request.plan, size=None))
    result, source = _look(reader, place, plain)
    groups = torch.from_numpy(reader.piece[result.items]) if isinstance(reader, MidiReader) else None
    return _assemble(result, source, Taken(reader.names, result.items), None, plain, str(place), groups)


def _length(place: Path, request: Request) -> int | None:
    """The length of sequences that was asked for."""
    size = request.plan.size
    if size is None or isinstance(size, int):
        return size
    if len(size) != 1:
        raise InputError(f"{place}: sequences have one axis; --size is their length, got {size}")
    return size[0]


def list_files(place: Path, key: str | None) -> Files:
    """The files of a folder, of a zip, or one file; with a key, those of that sub-folder.

    Where the top folders are called train, test, val, ..., and nothing else, "train" is taken; the key names another.
    """
    if place.is_dir():
        files: Files = FolderFiles.scan(place)
    elif place.suffix.lower() == ".zip":
        files = ZipFiles.scan(place)
    else:
        return FolderFiles.single(place)
    if key is None:
        tops = {name.partition("/")[0].lower(): name.partition("/")[0] for name in files.names if "/" in name}
        if len(tops) < 2 or "train" not in tops or not set(tops) <= _PARTS:
            return files
        key = tops["train"]
    prefix = key.strip("/") + "/"
    return files.filter(lambda name: name.startswith(prefix))


def choose_reader(files: Files, place: Path, request: Request) -> Reader | None:
    """What decodes the files; None where none of them is an event by itself."""
    kinds = Counter(kind for name in files.names if (kind := kind_of(name)) is not None)
    dicom = [i for i, name in enumerate(files.names) if name.lower().endswith((".dcm", ".ima", ".dicom"))]
    if not dicom and not kinds:
        bare = [i for i, name in enumerate(files.names) if "." not in name.rpartition("/")[2] or name[-1].isdigit()]
        dicom = bare if bare and is_dicom(files.read(bare[0])) else []
    if dicom:
        kinds["DICOM files"] = len(dicom)
    if not kinds:
        return None
    if len(kinds) > 1:
        shown = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise InputError(f"{place}: holds {shown}; choose a sub-folder with key=..., or keep one kind")
    if dicom:
        return SeriesReader(files.take(np.asarray(dicom)), request.skip_bad)
    kind = next(iter(kinds))
    chosen = files if kinds[kind] == len(files) else files.filter(lambda name: kind_of(name) is not None)
    _tell_left_out(files, place, request)
    if kind == "music":
        return MidiReader(chosen, request.tokens, _length(place, request), request.skip_bad)
    return FramesReader(chosen.filter(is_frame)) if request.clips and kind == "pictures" else FileReader(chosen, kind)


def _tell_left_out(files: Files, place: Path, request: Request) -> None:
    """A warning of files that look like data and are of no known kind; those of text and tables are notes."""
    notes = {".txt", ".json", ".csv", ".tsv", ".md", ".yaml", ".yml", ".html", ".pdf", ".db", ".xml", ".log", ".ini"}
    ends = Counter(Path(name).suffix.lower() for name in files.names if kind_of(name) is None)
    strange = {end or "no suffix": count for end, count in ends.items() if end not in notes}
    if strange and not request.key:
        shown = ", ".join(f"{count} of {end}" for end, count in sorted(strange.items())[:5])
        warnings.warn(f"{place}: files of other kinds are left out: {shown}", stacklevel=4)


def archive_in(place: Path, key: str | None) -> Path:
    """The only archive directly in a folder, or the one whose name begins with "train".

    Raises:
        InputError: where there is none, or the choice is not clear.
    """
    inside = sorted(place.iterdir()) if place.is_dir() else []
    data = [p for p in inside if p.suffix.lower() in (".npz", ".zip")]
    data += [p for p in inside if p.is_file() and "label" not in p.name.lower() and p not in data and is_idx(p)]
    train = [p for p in data if p.name.lower().startswith("train")]
    for chosen in (data, train):
        if len(chosen) == 1:
            return chosen[0]
    if data:
        raise InputError(f"{place}: holds {', '.join(p.name for p in data)}; give the path of one of them")
    if columns := columns_of(place):
        wanted = key or "smiles"
        raise InputError(f"{place}: a table of molecules has a column {wanted!r} (--key); it has {', '.join(columns)}")
    if place.is_file() and place.suffix.lower() != ".zip":
        raise InputError(f"{place}: not a file that can be read; known are {_KNOWN}")
    below = f" in its sub-folder {key!r}" if key else ""
    raise InputError(f"{place}: holds no data{below}; known are {_KNOWN}")


def _look(reader: Reader, place: Path | None, request: Request) -> tuple[Survey, Source]:
    """The survey of a set and its rows: mapped from the cache where they fit, else decoded on demand."""
    if not request.keep or (place is None and request.cache is None):
        result = survey(reader, request.plan, request.skip_bad)
        return result, _lazy(reader, request, result)
    recipe = f"survey 2/{type(reader).__name__}/{request.key}/{request.plan}"
    source, stamp = place or Path("/hub"), reader.digest()
    note = cache_path(source, recipe, stamp, ".survey.npz", request.cache)
    data = cache_path(source, recipe, stamp, ".rows", request.cache)
    if not note.exists():
        survey(reader, request.plan, request.skip_bad, data).save(note)
    result = Survey.load(note)
    if result.skipped and not request.skip_bad:
        raise BadFileError(*result.skipped[0])
    if not data.exists():
        return result, _lazy(reader, request, result)
    shape = (int(result.rows.sum()), *result.event_shape)
    layout = "nc" + {1: "l", 2: "hw", 3: "dhw"}[len(shape) - 2]
    return result, ArraySource(MappedArray(data, np.dtype(result.dtype), shape), layout)


def _lazy(reader: Reader, request: Request, result: Survey) -> Source:
    return DecodedSource(reader, request.plan, result.items, result.rows, result.event_shape, np.dtype(result.dtype))


def _assemble(
    result: Survey,
    source: Source,
    names: Taken,
    told: labelling.Labels | None,
    request: Request,
    what: str,
    groups: torch.Tensor | None = None,
) -> StoredDataset:
    dtype = np.dtype(result.dtype)
    chosen = request.value_range is None and result.declared is None and needs_survey(dtype)
    if chosen and len(result.items) > 2 and result.typical < 0.05 * (result.high - result.low):
        warnings.warn(
            f"{what}: half of the files use less than 5 % of the set's range {result.low:g} .. {result.high:g}, which "
            f"{result.widest} stretches; give value_range=(low, high) (--value-range LOW HIGH), or bring the files "
            "to one scale",
            stacklevel=4,
        )
    one_each = bool((result.rows == 1).all())
    item = np.repeat(np.arange(len(result.items)), result.rows)
    units = map_for(
        dtype,
        result.low,
        result.high,
        declared=result.declared,
        given=request.value_range,
        unit=result.unit,
        what=what,
    )
    return StoredDataset(
        source,
        units,
        result.geometry,
        conditions=None if told is None else {told[0]: told[1]},
        names=names if one_each else Taken(names, item),
        groups=groups if one_each else torch.from_numpy(item),
        skipped=result.skipped,
        clip=request.value_range is not None,
    )
