"""What there is to restore: files become measurements, each read when its turn comes.

A folder is a list of files, one or several events each; for a prior of volumes a sub-folder of DICOM files is one
series, and one of pictures the frames of one clip. What was told (operator, noise, range of values) holds for every
file that does not know it by itself. In a study the files are clean: each is measured first, with noise of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Size, Tensor

from oneprior.apps import screen
from oneprior.apps.restore_masks import check_mask, filled, mask_size
from oneprior.apps.restore_sizes import check_opacity, check_size
from oneprior.core import AffineMap, Geometry, InputError, Rows
from oneprior.data import read_events
from oneprior.data.files import FolderFiles
from oneprior.data.fit import fit_geometry
from oneprior.data.readers import kind_of
from oneprior.likelihoods.noise_words import parse_noise_law
from oneprior.operators.base import Operator
from oneprior.operators.grammar import parse_operator
from oneprior.tasks import Measurement, measured, range_of, simulate
from oneprior.tasks.tiling import event_shape_of, larger, of_tiles
from oneprior.training import Run

_DICOM, _KSPACE = (".dcm", ".ima", ".dicom"), (".h5", ".hdf5")
_EVENT = re.compile(r"_(slice_)?\d{3,}$")  # what the events of a file are called after its own name
_NOTES = (".txt", ".json", ".csv", ".tsv", ".md", ".yaml", ".yml", ".html", ".pdf", ".db", ".xml", ".log", ".ini")


@dataclass(frozen=True)
class Item:
    """One file, or one folder that is one event.

    Args:
        path: where it lies.
        name: how messages call it.
        stem: how its results are called.
        place: its number among the items.
        slice: of a k-space file, where each is an item.
        single: whether its name tells that it holds one event.
    """

    path: Path
    name: str
    stem: str
    place: int = 0
    single: bool = False
    slice: int | None = None

    def index(self, rows: int) -> list[int]:
        """Random streams of its events: their numbers for a file alone, as from Python; in a folder they depend on the
        file's name and not on what lies beside it."""
        name = self.name.encode("utf-8", "surrogateescape")
        start = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 25 if self.stem else 0
        return list(range(start, start + rows))


@dataclass(frozen=True)
class Intake:
    """How files are read.

    Args:
        run: the prior, whose size and range of values they have.
        operator: words; empty where the files know theirs.
        noise: words, or None.
        study: whether the files are clean and are to be measured.
        seed: of the noise of a study.
        fit: how a file comes to the size that is needed; None refuses another size.
        key, channels, value_range: as of `read_events`.
        slices: of a k-space file, such as "10:20".
    """

    run: Run
    operator: tuple[str, ...] = ()
    noise: str | None = None
    study: bool = False
    seed: int = 0
    fit: Literal["resize", "cover", "crop", "pad"] | None = None
    key: str | None = None
    channels: Literal["grey", "rgb"] | None = None
    value_range: tuple[float, float] | None = None
    slices: str | None = None

    @property
    def dims(self) -> int:
        """Spatial axes of an event."""
        return len(self.run.event_shape) - 1

    @cached_property
    def instrument(self) -> Operator | None:
        """The operator that was told, made once: for events of the prior's size, or of that of a larger mask."""
        if not self.operator:
            return None
        try:
            return parse_operator(list(self.operator), self.run.event_shape)
        except InputError:
            size = self._mask
            shape = (self.run.event_shape[0], *size)
            if not size or not larger(shape, self.run.event_shape):
                raise
            return parse_operator(list(self.operator), shape)

    @cached_property
    def _mask(self) -> tuple[int, ...]:
        """The size of the mask's file, where the events are measured by one."""
        return mask_size(self.operator, self.run.event_shape)

    @property
    def units(self) -> AffineMap | None:
        """The range that was stated."""
        return AffineMap.from_range(*self.value_range) if self.value_range else None

    def items(self, path: Path) -> tuple[list[Item], bool]:
        """The items of a path in natural order, and whether they are those of a folder.

        Raises:
            InputError: where there is nothing, or nothing that can be read.
        """
        path = path.expanduser()
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder")
        if not path.is_dir():
            items = self._slices(Item(path, path.name, ""))
            return items, len(items) > 1
        found, strange = self._below(path)
        if not found:
            raise InputError(f"{path}: a folder without a picture, volume, array, measurement or k-space file")
        if strange:
            shown = ", ".join(f"{count} of {end}" for end, count in sorted(strange.items())[:5])
            warnings.warn(f"{path}: files of other kinds are left out: {shown}", stacklevel=2)
        if list(found) == [""]:  # the folder itself is one series or one clip
            return [Item(path, path.name, "", single=True)], False
        pairs = zip(found.items(), _stems(found), strict=True)
        files = (Item(path / name, name, stem, single=one) for (name, one), stem in pairs)
        items = [item for file in files for item in self._slices(file)]
        return [replace(item, place=k) for k, item in enumerate(items)], True

    def _slices(self, item: Item) -> list[Item]:
        """The slices of a k-space file, for a prior of pictures each an item, since each has its own coil maps."""
        if item.path.suffix.lower() not in _KSPACE:
            return [item]
        from oneprior.data.fastmri import count_slices

        chosen = slice(None) if self.slices is None else _slice(self.slices)
        if self.dims != 2:
            return [item]
        try:
            numbers = range(*chosen.indices(count_slices(item.path)))
        except InputError:
            if not item.stem:
                raise
            return [item]  # the reason is said when its turn comes
        if not numbers:
            raise InputError(f"{item.path}: --slices {self.slices} names none of its slices")
        if len(numbers) == 1 and not item.stem:
            return [replace(item, slice=numbers[0])]
        prefix = f"{item.stem}_" if item.stem else ""
        return [
            replace(item, name=f"{item.name}[{k}]", stem=f"{prefix}slice_{k:03d}", place=p, single=True, slice=k)
            for p, k in enumerate(numbers)
        ]

    def _below(self, path: Path) -> tuple[dict[str, bool], Counter[str]]:
        """Names in a folder, each with whether it is one event for sure; and the endings of what is left out."""
        files, found, strange = FolderFiles.scan(path), dict[str, bool](), Counter[str]()
        names = set(files.names)
        for name in files.names:
            lower, kind = name.lower(), kind_of(name)
            bare = "." not in lower.rpartition("/")[2]
            if lower.endswith(".preview.png") and f"{name[: -len('.preview.png')]}.npz" in names:
                continue  # of `oneprior simulate`
            if (kind == "pictures" and self.dims == 3) or lower.endswith(_DICOM) or (bare and _is_dicom(path / name)):
                found[name.rpartition("/")[0] if self.dims == 3 else name] = True
            elif kind is not None or lower.endswith((".npz", *_KSPACE)):
                found[name] = kind is not None and kind != "arrays"
            elif not lower.endswith(_NOTES):
                strange[Path(name).suffix.lower() or "no suffix"] += 1
        return found, strange

    def check(self, items: Sequence[Item]) -> None:
        """Raises `InputError` for words that mean nothing here, before any file is read."""
        if self.noise is not None:
            parse_noise_law(self.noise, self.units or self.run.units)
        scans = [item.path.suffix.lower() in _KSPACE for item in items]
        if not all(scans) and self.instrument is not None and self.noise is not None:
            return
        if not any(scan or is_measurement(item.path) for item, scan in zip(items, scans, strict=True)):
            raise self._unknown(items[0])

    def _unknown(self, item: Item) -> InputError:
        """What to say of a file that does not know what was not told either."""
        missing = {"--operator": "mask:left"} if not self.operator else {}
        missing |= {"--noise": "5%"} if self.noise is None else {}
        return InputError(
            f"{item.path} does not say how it was made: give {' and '.join(missing)}, such as "
            f"{' '.join(map(' '.join, missing.items()))} (files of `oneprior simulate` know theirs)"
        )

    def read(self, item: Item) -> Measurement:
        """The measurement of one item.

        Raises:
            InputError: where it cannot be read, or does not fit the prior or the operator.
        """
        if item.path.suffix.lower() in _KSPACE:
            return self._kspace(item)
        if is_measurement(item.path):
            return self._known(item)
        if self.instrument is None or self.noise is None:
            raise self._unknown(item)
        clean_or_kept = self.study or self.instrument.keeps_pixels
        shape = self.run.event_shape if clean_or_kept else self.instrument.out_shape
        y, units, geometry = self._events(item.path, tuple(shape[1:]))
        if clean_or_kept:
            check_mask(item.path, y, self._mask, "--study" if self.study else "--input")
        if not self.study:
            whole = event_shape_of(list(self.operator), y, self.run.event_shape)  # larger ones are covered by tiles
            self._check(item.path, y, whole)
            instrument = self.instrument if whole == self.run.event_shape else list(self.operator)
            self._tell(whole)
            geometry = _restored_geometry(geometry, tuple(y.shape[2:]), tuple(whole[1:]))
            y = filled(item.path, y, instrument, whole)
            return measured(y.float(), instrument, self.noise, whole, units, geometry)
        self._check(item.path, y, y.shape[1:])
        self._tell(y.shape[1:])
        rows = Rows(item.index(len(y)), seed=self.seed)
        x = units.to_model(y).float()
        instrument = self.instrument if y.shape[1:] == self.run.event_shape else list(self.operator)
        return simulate(x, instrument, self.noise, rows, units=units, geometry=geometry)

    def _check(self, path: Path, y: Tensor, whole: Size) -> None:
        """Raises `InputError` where a file is no measurement of an event of the run's size, nor of one in tiles."""
        assert self.instrument is not None
        check_size(path, y.shape[1:], whole, self.run, None if self.study else self.instrument)

    def _tell(self, whole: Size) -> None:
        """Says before the work that an event will be covered by tiles, once for each size."""
        if whole != self.run.event_shape and whole not in self._told:
            self._told.add(whole)
            screen.say(f"note: {of_tiles(whole, self.run.event_shape)}", error=True)

    @cached_property
    def _told(self) -> set[Size]:
        return set()

    def _events(self, path: Path, space: tuple[int, ...]) -> tuple[Tensor, AffineMap, Geometry]:
        """The events of a file with the prior's channels, and how they are read."""
        wanted = self.run.event_shape[0]
        if not self.study:
            check_opacity(path)
        options: dict[str, Any] = {"size": space, "fit": self.fit} if self.fit and len(space) == self.dims else {}
        if tokens := self.run.geometry.tokens:
            options = {"size": space, "tokens": tokens}
        options["gaps"] = not self.study and self.instrument is not None and self.instrument.keeps_pixels
        y, own, geometry = read_events(path, self.dims, wanted=wanted, key=self.key, channels=self.channels, **options)
        if (y.shape[1], wanted) == (3, 1) and bool((y == y[:, :1]).all()):
            y = y[:, :1]  # grey, stored as RGB
        measures = self.instrument.out_shape[0] if self.instrument and not self.study else wanted
        if {y.shape[1], wanted} == {1, 3} and y.shape[1] != measures:
            kinds = {1: "grey", 3: "rgb"}
            given = "study" if self.study else "input"
            raise InputError(
                f"--{given} {path} is {kinds[y.shape[1]]} and the prior is of {kinds[wanted]} pictures: give "
                f"--channels {kinds[wanted]} to turn it so, or another prior"
            )
        if geometry.format == "nifti" and self.dims == 3 and y.shape[1] not in (wanted, measures):
            needed = "single volumes" if wanted == 1 else f"{wanted} volumes together"
            raise InputError(
                f"{path} is 4-D: {y.shape[1]} volumes of {' x '.join(map(str, y.shape[2:]))}, and the prior is of "
                f"{needed}: save each as a file of its own (nibabel: image.slicer[..., 0]) and give their folder"
            )
        units = self.units or range_of(self.run, geometry, own)
        return y, units, replace(geometry, dtype=geometry.dtype or self.run.geometry.dtype)

    def _known(self, item: Item) -> Measurement:
        """A file of `oneprior simulate`."""
        if self.study:
            raise InputError(f"--study {item.path} is a measurement, not a clean image: give it as --input")
        known = Measurement.load(item.path)
        if not larger(known.event_shape, self.run.event_shape):
            got, needed = (" x ".join(map(str, s)) for s in (known.event_shape, self.run.event_shape))
            raise InputError(
                f"{item.path} measures events of {got} and the prior is of {needed}: take a prior of its size, "
                "or a smaller one, which covers it with tiles"
            )
        units = self.units or range_of(self.run, known.geometry, known.units)
        return replace(known, units=units).told(list(self.operator) or None, self.noise)

    def _kspace(self, item: Item) -> Measurement:
        """A fastMRI file, which knows its instrument; its noise is estimated where it is not told."""
        from oneprior.tasks.kspace import kspace_measurement

        word = " ".join(self.operator)
        if self.operator and not word.startswith("mri:"):
            raise InputError(
                f"{item.path} is measured k-space and knows its instrument: leave --operator out, or give "
                "mri:random:4 and the like, which leave out columns that were measured"
            )
        if self.study and not word:
            raise InputError(f"--study {item.path} needs --operator mri:random:4 or the like, to leave columns out")
        chosen = None if self.slices is None else _slice(self.slices)
        return kspace_measurement(
            item.path,
            self.run.event_shape,
            noise=self.noise,
            slices=chosen if item.slice is None else item.slice,
            units=self.units,
            trained=self.run.units if self.run.geometry.dtype.startswith("float") else None,
            pattern=word.removeprefix("mri:") or None,
        )


def is_measurement(path: Path) -> bool:
    """Whether a file is one of `oneprior simulate`; what cannot be read is left to the reader's own message."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "about.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _restored_geometry(geometry: Geometry, measured_space: tuple[int, ...], space: tuple[int, ...]) -> Geometry:
    """The geometry of what is restored: a finer grid over the same place where the measurement's is coarser."""
    finer = len(measured_space) == len(space) and all(s % m == 0 for s, m in zip(space, measured_space, strict=True))
    return fit_geometry(geometry, measured_space, space) if finer else geometry


def _slice(text: str) -> slice:
    """'10:20' or '10', as of Python."""
    try:
        numbers = [int(part) if part else None for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] is not None:
        return slice(numbers[0], numbers[0] + 1)
    if len(numbers) != 2:
        raise InputError(f"--slices {text!r} is not understood; give 10:20 or 10")
    return slice(*numbers)


def _is_dicom(path: Path) -> bool:
    from oneprior.data.dicom import is_dicom

    with open(path, "rb") as file:
        return is_dicom(file.read(4096))


def _stems(names: Iterable[str]) -> list[str]:
    """Names of folders of results, no two alike, and none like an event's of another file (x_0000.png beside x.npz)."""
    names = list(names)
    plain, stems = Counter(_stem(name) for name in names), dict[str, None]()

    def free(stem: str) -> bool:
        owner = _EVENT.sub("", stem)
        return stem not in stems and (owner == stem or owner not in plain)

    for name in names:
        stem, full = _stem(name), re.sub(r"[^\w.\-]+", "_", name)
        tries = itertools.chain([stem] if plain[stem] == 1 else [], [full], (f"{full}-{k}" for k in itertools.count(2)))
        stems[next(filter(free, tries))] = None
    return list(stems)


def _stem(name: str) -> str:
    """The name of a folder of results: without the suffix, and flat."""
    base = re.sub(r"\.(nii\.gz|[A-Za-z0-9]{1,8})$", "", name)
    return re.sub(r"[^\w.\-]+", "_", base).strip("._") or "event"
