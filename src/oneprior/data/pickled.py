"""Pickle files read without being run: a machine for the opcodes whose only callables are a short table of ours.

A pickle is a program: it names things of any module (GLOBAL, STACK_GLOBAL, INST), calls them (REDUCE, NEWOBJ, OBJ) and
hands them a state (BUILD). Python's own `Unpickler` can be told which names to find, but some doors stay open beside
it: extension codes are looked up in a cache that never asks, memo indices allocate as much as they claim, and hashing a
tuple nested a million deep overflows the stack of C. Here the opcodes come from the standard library's tokeniser,
`pickletools.genops`, which executes nothing, and each is carried out below on plain lists, dictionaries, sets and
tuples. A name that the file asks for is looked up in a table of stand-ins (`Known`) and never imported; a name that is
not in it ends the reading. States go to stand-ins that wait for one (`Unfinished`), and nowhere else.

What a file can claim is bounded: the number of opcodes, the bytes in nested streams together (`Allowance`), and keys,
which are plain values, so that nothing nested is ever hashed, compared or printed.
"""

from __future__ import annotations

import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from oneprior.data.decoded import BadFileError

MOST_OPCODES = 2_000_000
"""Three networks of 1024 x 1024 pictures have 30,000."""

_PLAIN = (str, bytes, int, float, bool, type(None))
_PUSHED = frozenset(
    (
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
    )
)
_MADE: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


class RefusedPickleError(BadFileError):
    """A pickle asks for something that a file of weights has no need of; nothing of it was executed."""


@dataclass(frozen=True, eq=False)
class Known:
    """What stands for a name that a pickle may ask for.

    Args:
        name: in full, for messages.
        call: what a call of it gives; None where it is only referred to.
        made: whether it is a class, an instance of which NEWOBJ may ask for.
    """

    name: str
    call: Callable[..., Any] | None = None
    made: bool = False


class Unfinished(ABC):
    """An object that waits for its state (BUILD)."""

    @abstractmethod
    def build(self, state: Any) -> None:
        """Take the state, or raise `ValueError`."""


class Allowance:
    """How much work one file may still ask for, its nested streams included.

    Args:
        where: the file, for messages.
        size: of the file in bytes. A nested stream is a part of it, counted once as the bytes that it is and, in
            protocols without bytes, once as the text that they are decoded from.
    """

    def __init__(self, where: str, size: int) -> None:
        self.where, self.bytes, self.opcodes = where, 2 * size, MOST_OPCODES

    def count(self, steps: int = 1) -> None:
        """Count opcodes, or values that one of them copies."""
        self.opcodes -= steps
        if self.opcodes < 0:
            raise refused(self.where, f"it has more than {MOST_OPCODES:,} opcodes, which no network needs")

    def stream(self, size: int) -> None:
        """Count a nested stream of `size` bytes."""
        self.bytes -= size
        if self.bytes < 0:
            raise refused(self.where, "it reads its own bytes several times over")


def refused(where: str, why: str) -> RefusedPickleError:
    """The error for a file that asks for too much."""
    return RefusedPickleError(where, f"{why}: refused, and nothing in the file was executed")


def unpickle(
    file: BinaryIO,
    known: Mapping[str, Known],
    allowance: Allowance,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle, up to its STOP.

    Args:
        file: at the start of the pickle; left behind its end.
        known: the names that may be asked for ("collections.OrderedDict"), and what stands for each.
        allowance: of the whole file.
        persistent: what an identifier that is persistent stands for; None where there can be none.

    Returns:
        Plain Python values, and what the stand-ins made.

    Raises:
        RefusedPickleError: for a name, an opcode or an amount that is not allowed.
        BadFileError: where it is damaged, or no pickle.
    """
    where = allowance.where
    try:
        return _Machine(known, allowance, persistent).run(file)
    except BadFileError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        reason = f"{type(error).__name__}: {ascii(str(error))[:120]}"
        raise BadFileError(where, f"it is no pickle, or is damaged or cut off ({reason})") from None


def plain_key(value: Any) -> Any:
    """A value that may be a key or a member of a set: hashing it is cheap and calls nothing.

    Raises:
        ValueError: for anything else.
    """
    if type(value) not in _PLAIN:
        raise ValueError("a key that is no plain value")
    return value


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(
        self, known: Mapping[str, Known], allowance: Allowance, persistent: Callable[[Any], Any] | None
    ) -> None:
        self.known, self.allowance, self.persistent = known, allowance, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: BinaryIO) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            self.allowance.count()
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise ValueError("no STOP")

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        stack = self.stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _MADE:
            stack.append(_MADE[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in _STEPS:
            _STEPS[name](self)
        elif name == "GLOBAL":
            self.stack.append(self.find(*argument.split(" ", 1)))
        elif name == "INST":
            callee = self.find(*argument.split(" ", 1))
            arguments = tuple(self.since_mark())
            self.stack.append(self.call(callee, arguments))
        elif name == "PERSID":
            self.stack.append(self.lookup(argument))
        else:  # EXT1, EXT2, EXT4, NEWOBJ_EX, OBJ, NEXT_BUFFER, READONLY_BUFFER
            raise refused(self.allowance.where, f"it uses the opcode {name}")

    def since_mark(self) -> list[Any]:
        """What stands above the last mark, taken off the stack."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def find(self, module: Any, name: Any) -> Known:
        """The stand-in for a name; nothing is imported."""
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no text")
        full = f"{module}.{name}"
        if full not in self.known:
            raise refused(self.allowance.where, f"it asks for {ascii(full)[1:-1][:120]}, which no network needs")
        return self.known[full]

    def call(self, callee: Any, arguments: Any) -> Any:
        if type(callee) is not Known or type(arguments) is not tuple:
            self.odd("it calls what is no name")
        if callee.call is None:
            raise refused(self.allowance.where, f"it calls {callee.name}")
        return callee.call(*arguments)

    def lookup(self, identifier: Any) -> Any:
        if self.persistent is None:
            self.odd("it refers to an object outside of it")
        return self.persistent(identifier)

    def odd(self, why: str) -> NoReturn:
        raise refused(self.allowance.where, why)

    # The opcodes that move more than one value.

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("a tuple of more than there is")
        self.stack[len(self.stack) - count :] = [tuple(self.stack[len(self.stack) - count :])]

    def dict_of(self) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            self.odd("it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[plain_key(key)] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            self.odd("it appends to what is no list")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            self.odd("it adds to what is no set")
        target.update(plain_key(item) for item in items)

    def last(self, count: int) -> list[Any]:
        """The last values of the stack, taken off it."""
        items = [self.stack.pop() for _ in range(count)]
        return items[::-1]

    def reduce(self) -> None:
        callee, arguments = self.last(2)
        self.stack.append(self.call(callee, arguments))

    def new(self) -> None:
        kind, arguments = self.last(2)
        if type(kind) is not Known or not kind.made:
            self.odd("it makes an instance of what is no class of a network's file")
        self.stack.append(self.call(kind, arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Unfinished):
            target.build(state)
        elif not (type(target) is dict and type(state) is dict):  # attributes of a dictionary, which are not kept
            self.odd("it gives a state to what takes none")


_STEPS: Mapping[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": lambda m: (m.since_mark(), None)[1],
    "DUP": lambda m: m.push(m.stack[-1]),
    "TUPLE": lambda m: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m: m.tuple_of(1),
    "TUPLE2": lambda m: m.tuple_of(2),
    "TUPLE3": lambda m: m.tuple_of(3),
    "LIST": lambda m: m.push(m.since_mark()),
    "DICT": _Machine.dict_of,
    "FROZENSET": lambda m: m.push(frozenset(map(plain_key, m.since_mark()))),
    "SETITEM": lambda m: m.set_items(m.last(2)),
    "SETITEMS": lambda m: m.set_items(m.since_mark()),
    "APPEND": lambda m: m.append(m.last(1)),
    "APPENDS": lambda m: m.append(m.since_mark()),
    "ADDITEMS": lambda m: m.add(m.since_mark()),
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new,
    "BUILD": _Machine.build,
    "STACK_GLOBAL": lambda m: m.push(m.find(*m.last(2))),
    "BINPERSID": lambda m: m.push(m.lookup(m.stack.pop())),
}
