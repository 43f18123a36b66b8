"""The network files of StyleGAN2-ADA (PyTorch) and StyleGAN3, `network-snapshot-*.pkl`, read and not run.

Such a file is a pickle of {"G": ..., "D": ..., "G_ema": ..., "training_set_kwargs": ...}. Each module of a network is a
call of `torch_utils.persistence._reconstruct_persistent_obj` with the *source text* of its class, which the official
loader executes, and the `__dict__` of the module. Here that call gives a `PickledModule`, which keeps the class's name
and the state; the source is dropped unread.

A tensor is `torch._utils._rebuild_tensor_v2` of a storage, an offset, sizes and strides; a storage is
`torch.storage._load_from_bytes` of bytes that `torch.save` wrote in its older form, four pickles (a magic number, a
version, facts about the machine, the storage with a persistent identifier), a fifth with the list of identifiers, and
for each of them the number of elements (int64) and the elements. These nested pickles are read by the same machine
(`oneprior.data.pickled`) with a shorter table of names. Scalars and arrays of NumPy are taken where their elements are
plain numbers.
"""

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.data.decoded import BadFileError
from oneprior.data.pickled import Allowance, Known, Unfinished, plain_key, refused, unpickle

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MOST_AXES = 16
_PLAIN_NUMBERS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])")
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True, eq=False)
class PickledModule:
    """A module of a network, as the file describes it.

    Args:
        kind: name of its class ("Generator").
        state: its `__dict__`; parameters, buffers and modules under "_parameters", "_buffers" and "_modules".
    """

    kind: str
    state: Mapping[str, Any]

    def part(self, name: str) -> Mapping[str, Any]:
        """One dictionary of the state; an empty one where it has none."""
        value = self.state.get(name)
        return value if type(value) is dict else {}

    def modules(self) -> dict[str, PickledModule]:
        """The modules right inside it."""
        return {k: v for k, v in self.part("_modules").items() if type(k) is str and type(v) is PickledModule}

    def tensors(self) -> dict[str, Tensor]:
        """Its own parameters and buffers."""
        both = {**self.part("_parameters"), **self.part("_buffers")}
        return {k: v.tensor() for k, v in both.items() if type(k) is str and type(v) is PickledTensor}


@dataclass(frozen=True, eq=False)
class Storage:
    """Elements that tensors look at.

    Args:
        data: their bytes.
        dtype: of the elements.
    """

    data: memoryview
    dtype: torch.dtype

    @property
    def count(self) -> int:
        """How many elements there are."""
        return len(self.data) // self.dtype.itemsize

    @cached_property
    def flat(self) -> Tensor:
        """All elements, (count,)."""
        return torch.frombuffer(bytearray(self.data), dtype=self.dtype) if self.count else torch.empty(0).to(self.dtype)


@dataclass(frozen=True, eq=False)
class PickledTensor:
    """A view of a storage, checked to lie inside it and to be no larger.

    Args:
        storage: what it looks at.
        offset: of its first element.
        size: along each axis.
        stride: along each axis, in elements.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """(*size,)"""
        return self.storage.flat.as_strided(self.size, self.stride, self.offset)


@dataclass(eq=False)
class NumberType(Unfinished):
    """A `numpy.dtype` of plain numbers, whose byte order comes as its state."""

    dtype: np.dtype

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 5 or state[1] not in ("<", ">", "=", "|") or any(state[2:5]):
            raise ValueError("a dtype with fields or shapes")
        self.dtype = self.dtype.newbyteorder(state[1]) if state[1] != "|" else self.dtype


@dataclass(eq=False)
class PickledArray(Unfinished):
    """A `numpy.ndarray` of plain numbers."""

    array: np.ndarray = field(default_factory=lambda: np.empty(0))

    def build(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if type(kind) is not NumberType or type(data) is not bytes:
            raise ValueError("an array of something else than numbers")
        shape = _sizes(shape)
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            raise ValueError(f"an array that claims another size than its {len(data)} bytes")
        self.array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")


def read_network_pickle(path: str | Path) -> Any:
    """What a network file holds, its modules as `PickledModule`; nothing in it is executed.

    Args:
        path: the file.

    Returns:
        As a rule a dictionary of networks by name ("G", "D", "G_ema") and plain values.

    Raises:
        RefusedPickleError: it asks for anything that is not in a short table: names what.
        BadFileError: it is damaged, cut off, or no pickle.
        InputError: it is missing.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"{file} is no file; give the network file (.pkl) itself")
    data = file.read_bytes()
    where = str(file)
    if data[:4] == b"PK\x03\x04":
        raise BadFileError(where, "it is a zip archive (a checkpoint of torch.save?), and no network file of StyleGAN")
    allowance = Allowance(where, len(data))
    return unpickle(io.BytesIO(data), _names(allowance), allowance)


def _names(allowance: Allowance) -> dict[str, Known]:
    """The table: every name that a network file may ask for, and what stands for it."""
    where = allowance.where

    def storage(data: Any) -> Storage:
        if type(data) is not bytes:
            raise ValueError("a storage that is not bytes")
        allowance.stream(len(data))
        return _read_storage(data, allowance)

    def tensor(held: Any, offset: Any, size: Any, stride: Any, *_: Any) -> PickledTensor:
        size, stride = _sizes(size), _sizes(stride)
        (offset,) = _sizes((offset,))
        if type(held) is not Storage or len(size) != len(stride):
            raise ValueError("a tensor without a storage")
        reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        if math.prod(size) and (reach > held.count or math.prod(size) > held.count):
            raise BadFileError(where, f"a tensor claims {size} elements, and its storage has {held.count}")
        return PickledTensor(held, offset if math.prod(size) else 0, size, stride)

    def members(items: Any = ()) -> list[Any]:
        if type(items) not in (list, tuple):
            raise ValueError("a set of something else than a list")
        allowance.count(len(items))
        return [plain_key(item) for item in items]

    def pairs(items: Any = ()) -> dict[Any, Any]:
        allowance.count(len(items))
        return {plain_key(key): value for key, value in list(items)}

    def encode(text: Any, encoding: Any) -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise ValueError("an encoding that is not latin1")
        allowance.stream(len(text))
        return text.encode("latin1")

    calls = {
        "torch_utils.persistence._reconstruct_persistent_obj": _module,
        "torch.storage._load_from_bytes": storage,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": _parameter,
        "torch.device": lambda *_: None,
        "torch.Size": lambda sizes: _sizes(sizes),
        "_codecs.encode": encode,
        "numpy.dtype": lambda *arguments: _number_type(where, *arguments),
    }
    for room in ("numpy.core.multiarray", "numpy._core.multiarray"):
        calls |= {f"{room}._reconstruct": _array, f"{room}.scalar": _scalar}
    for room in ("builtins", "__builtin__"):
        calls |= {f"{room}.set": lambda *a: set(members(*a)), f"{room}.frozenset": lambda *a: frozenset(members(*a))}
    table = {name: Known(name, call) for name, call in calls.items()}
    for name in ("collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict"):
        table[name] = Known(name, pairs, made=True)
    return table | {name: Known(name) for name in ("numpy.ndarray", *(f"torch.{kind}" for kind in _DTYPES))}


def _module(meta: Any) -> PickledModule:
    if type(meta) is not dict or type(meta.get("class_name")) is not str or type(meta.get("state")) is not dict:
        raise ValueError("a persistent object without a name and a state")
    return PickledModule(meta["class_name"], meta["state"])


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> PickledTensor:
    del requires_grad, hooks
    if type(data) is not PickledTensor:
        raise ValueError("a parameter that is no tensor")
    return data


def _number_type(where: str, name: Any, *_: Any) -> NumberType:
    if type(name) is not str or not _PLAIN_NUMBERS.fullmatch(name):
        said = ascii(name)[:20] if type(name) is str else "something else"
        raise refused(where, f"it has a NumPy array of {said}, which are no plain numbers (object arrays hold code)")
    return NumberType(np.dtype(name))


def _array(kind: Any, shape: Any, code: Any) -> PickledArray:
    del shape, code
    if type(kind) is not Known or kind.name != "numpy.ndarray":
        raise ValueError("an array of an unknown class")
    return PickledArray()


def _scalar(kind: Any, data: Any) -> bool | int | float:
    if type(kind) is not NumberType or type(data) is not bytes or len(data) != kind.dtype.itemsize:
        raise ValueError("a number of another size than its type")
    return np.frombuffer(data, kind.dtype)[0].item()


def _sizes(values: Any) -> tuple[int, ...]:
    """Sizes, strides or offsets that a tensor can have."""
    if type(values) not in (tuple, list) or len(values) > _MOST_AXES:
        raise ValueError("sizes that are no short list of numbers")
    if not all(type(value) is int and 0 <= value < 2**48 for value in values):
        raise ValueError("a size that is no number from 0 on")
    return tuple(values)


def _read_storage(data: bytes, allowance: Allowance) -> Storage:
    """The one storage that `torch.save(storage, _use_new_zipfile_serialization=False)` wrote."""
    where, stream = allowance.where, io.BytesIO(data)
    known = {f"torch.{name}": Known(f"torch.{name}") for name in _STORAGES}
    if data[:4] == b"PK\x03\x04" or unpickle(stream, {}, allowance) != _MAGIC:
        raise BadFileError(where, "a tensor in it does not begin with torch's magic number")
    if unpickle(stream, {}, allowance) != _PROTOCOL:
        raise BadFileError(where, "a tensor in it is of an unknown version of torch's format")
    machine = unpickle(stream, {}, allowance)
    if type(machine) is not dict or machine.get("little_endian") is not True or sys.byteorder != "little":
        raise BadFileError(where, "a tensor in it was written in another order of bytes")

    def claimed(identifier: Any) -> tuple[torch.dtype, str, int]:
        tag, kind, key, _, count, *view = identifier
        if tag != "storage" or type(kind) is not Known or type(key) is not str or any(v is not None for v in view):
            raise ValueError("a storage that is a view, or none")
        return _STORAGES[kind.name.removeprefix("torch.")], key, _sizes((count,))[0]

    dtype, key, count = unpickle(stream, known, allowance, claimed)
    keys = unpickle(stream, {}, allowance)
    if type(keys) is not list or len(keys) != 1 or keys[0] != key:
        raise BadFileError(where, "a tensor in it does not hold the one storage that it names")
    (stated,) = np.frombuffer(stream.read(8), "<i8")
    held = memoryview(data)[stream.tell() :]
    if int(stated) != count or count * dtype.itemsize != len(held):
        raise BadFileError(
            where, f"a tensor claims {count} elements of {dtype.itemsize} bytes, and the file holds {len(held)} bytes"
        )
    return Storage(held, dtype)
