"""How an event is scored: by a function, by a command that reads a picture, in other processes, with a limit of time.

A score is a callable of one event in the user's units that returns a number, or one of each objective. Whatever it does
wrong (it raises, hangs, returns text or NaN, takes its process with it) becomes an `Outcome` with a note, and never an
error of the campaign. Everything here can be sent to another process or machine: a function is sent by its name.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from oneprior.core import InputError, user_function
from oneprior.tasks.campaign.presented import Event

_NUMBER = re.compile(r"(?<![^\s=:,;(\[])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?=[\s,;)\]]|$)")
"""A number that is a word of its own, and not part of a file's name."""
_SHELL = ("|", "||", "&&", "&", ";", "<", ">", ">>")
_DEATHS = 2
"""Processes that one event may take with it before it counts as failed."""
_WATCHED = 1.0
"""Seconds between two looks of a process at whether that which made it is there."""


@dataclass(frozen=True)
class Outcome:
    """What came of scoring an event.

    Args:
        scores: one of each objective; NaN where it failed.
        note: why it failed.
        seconds: that it took.
    """

    scores: tuple[float, ...]
    note: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it has no score."""
        return not all(map(math.isfinite, self.scores))


class Score(Protocol):
    """Scores one event; must be picklable."""

    def __call__(self, event: Event) -> Any:
        """The score of an event in the user's units, (channels, *space), of a molecule's SMILES, or of the notes of
        each voice of music.

        Of several objectives it is a sequence of numbers in their order, or a mapping by their names.
        """
        ...


@dataclass(frozen=True)
class FunctionScore:
    """module:function of one event: a NumPy array in the user's units, the SMILES of a molecule, or the notes of music.

    Args:
        word: its name.
    """

    word: str

    def __post_init__(self) -> None:
        user_function(self.word)  # refused here, not in another process

    def __call__(self, event: Event) -> Any:
        return user_function(self.word)(event)


@dataclass(frozen=True)
class CommandScore:
    """A command that reads a file and prints its scores, the last numbers on its last line.

    Args:
        command: its words; `{}` stands for the file, which else comes last.
        write: writes an event into a folder, and gives the file.
        count: of scores.
    """

    command: str
    write: Callable[[Event, Path], Path]
    count: int = 1

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise InputError(f"the command {self.command!r} cannot be read: {error}") from error
        if not words:
            raise InputError("the command that scores has no words")
        if foreign := [word for word in words if word in _SHELL]:
            raise InputError(
                f"the command is not given to a shell, which would know {foreign[0]!r}: write sh -c '... $0 ...', or "
                f"put it into a script"
            )

    def __call__(self, event: Event) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="oneprior-score-") as folder:
            path = str(self.write(event, Path(folder)))
            words = shlex.split(self.command)
            words = [word.replace("{}", path) for word in words] if "{}" in self.command else [*words, path]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()[-1]
            raise ValueError(f"the command ended with status {done.returncode}: {last}")
        lines = done.stdout.strip().splitlines()
        found = _NUMBER.findall(lines[-1]) if lines else []
        if len(found) < self.count:
            wanted = "no number of its own" if self.count == 1 else f"fewer than {self.count} numbers"
            raise ValueError(f"the command printed {wanted} on its last line: {lines[-1] if lines else 'nothing'!r}")
        return [float(word) for word in found[-self.count :]]


def scored(score: Score, event: Event, seconds: float | None = None, names: Sequence[str] = ("score",)) -> Outcome:
    """The outcome of scoring one event, whatever the score does.

    Args:
        score: of one event.
        event: in the user's units.
        seconds: limit of time; None for none.
        names: of the objectives.
    """
    start, values, note = time.perf_counter(), (math.nan,) * len(names), ""
    try:
        with _limit(seconds):
            values = _as_numbers(score(event), names)
        wrong = [k for k, value in enumerate(values) if not math.isfinite(value)]
        if wrong:
            note = f"the {'score' if len(names) == 1 else names[wrong[0]]} is {values[wrong[0]]}"
            values = (math.nan,) * len(names)
    except _TimeIsUp:
        note = f"no score within {seconds:g} s"
    except Exception as error:  # whatever the user's score raises
        note = f"{type(error).__name__}: {error}"
    return Outcome(values, note, time.perf_counter() - start)


def _as_numbers(value: Any, names: Sequence[str]) -> tuple[float, ...]:
    """What a score returned, as one number of each objective."""
    if isinstance(value, Mapping):
        if len(names) == 1 and len(value) > 1 and names[0] not in value:
            raise ValueError(f"the score gives {', '.join(map(str, value))}: {_name_them(map(str, value))}")
        if missing := [name for name in names if name not in value]:
            raise ValueError(f"the score has no {', '.join(missing)}: it has {', '.join(map(str, value))}")
        value = [value[name] for name in names]
    found = np.asarray(value)
    if found.size != len(names) or found.dtype.kind not in "biuf":
        if len(names) == 1 and found.size > 1 and found.dtype.kind in "biuf":
            raise ValueError(f"the score gives {found.size} numbers: {_name_them(('first', 'second'))}")
        wanted = "number" if len(names) == 1 else f"{len(names)} numbers ({', '.join(names)})"
        raise ValueError(f"the score is no {wanted}: {str(value)[:60]!r}")
    return tuple(found.astype(np.float64).flatten().tolist())


def _name_them(names: Iterable[str]) -> str:
    return "name those that are sought, " + " ".join(f"--objective {name}=maximise" for name in names)


class _TimeIsUp(BaseException):
    """Not an Exception, so that no score catches it by accident."""


@contextmanager
def _limit(seconds: float | None) -> Iterator[None]:
    """Raise after some seconds: by an alarm in the main thread of a process, in other threads between two steps of
    Python, so that there a single call of C that hangs is waited for."""
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        thread = ctypes.c_ulong(threading.get_ident())
        timer = threading.Timer(
            seconds, lambda: ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_TimeIsUp))
        )
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        return

    def ring(*_: Any) -> None:
        raise _TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Evaluator:
    """Scores events in an executor, and gives outcomes as they come.

    Args:
        score: of one event.
        executor: makes the executor, again where it broke; processes by default.
        workers: of the default executor.
        seconds: limit of time of one event; None for none.
        names: of the objectives, one score each.
    """

    def __init__(
        self,
        score: Score,
        *,
        executor: Callable[[], Executor] | None = None,
        workers: int = 1,
        seconds: float | None = None,
        names: Sequence[str] = ("score",),
    ) -> None:
        if workers < 1:
            raise InputError(f"at least one process scores, got {workers}")
        context = multiprocessing.get_context("spawn")  # nothing of this process, its threads least of all
        self.score, self.seconds, self.names = score, seconds, tuple(names)
        self._make = executor or (lambda: ProcessPoolExecutor(workers, context, _leave_with, (os.getpid(),)))
        self._executor = self._make()
        self._futures: dict[Future[Outcome], int] = {}

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        for future in self._futures:
            future.cancel()
        self._executor.shutdown(wait=False)

    def __call__(self, events: Mapping[int, Event]) -> Iterator[tuple[int, Outcome]]:
        """The outcome of each event, as it comes, with the event's number.

        A process that dies takes its events with it: they are scored again, one at a time, so that the one to blame is
        found; it fails when it has taken `_DEATHS` processes.
        """
        deaths = dict.fromkeys(events, 0)
        waiting = dict(events)
        alone = False
        while waiting:
            batch = dict(list(waiting.items())[:1]) if alone else dict(waiting)
            broken = False
            for number, outcome in self._round(batch):
                if outcome is None:
                    broken = True
                    deaths[number] += 1 if alone else 0
                    if deaths[number] >= _DEATHS:
                        del waiting[number]
                        yield number, self._failed("its process died, twice")
                    continue
                del waiting[number]
                yield number, outcome
            if broken:
                self._close()
                self._executor, alone = self._make(), True

    def _round(self, events: Mapping[int, Event]) -> Iterator[tuple[int, Outcome | None]]:
        """Outcomes of events that are all given to the executor; None for one that was lost with its process."""
        self._futures = {}
        try:
            for number, event in events.items():
                self._futures[self._executor.submit(scored, self.score, event, self.seconds, self.names)] = number
        except (BrokenProcessPool, RuntimeError):
            yield from ((number, None) for number in events)
            return
        while self._futures:
            done, _ = wait(self._futures, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda future: self._futures[future]):
                number = self._futures.pop(future)
                error = future.exception()
                yield number, future.result() if error is None else self._lost(error)

    def _failed(self, note: str) -> Outcome:
        return Outcome((math.nan,) * len(self.names), note)

    def _lost(self, error: BaseException) -> Outcome | None:
        """None where the process is gone; what cannot be sent to a process is the event's own failure."""
        if isinstance(error, BrokenProcessPool):
            return None
        if type(error).__name__ == "KilledWorker":  # Dask's own, after it has tried other workers
            return self._failed("it took every worker that it was given to")
        return self._failed(f"{type(error).__name__}: {error}")


def _leave_with(parent: int) -> None:
    """End this process when that which made it is gone, be it by `kill -9`."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCHED)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def on_dask(address: str, workers: int) -> Callable[[], Executor]:
    """Makes executors on a Dask cluster.

    Args:
        address: of its scheduler, or "local" for one of processes on this machine.
        workers: of a local one.

    Raises:
        InputError: where `distributed` is not installed, or nobody answers at the address.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError("scoring on Dask needs `pip install distributed`") from error
    try:
        if address == "local":
            client = Client(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None))  # type: ignore[no-untyped-call]
        else:
            client = Client(address, timeout=5)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {address}: {error}") from error
    return lambda: client.get_executor(retries=_DEATHS)  # a worker that dies is replaced, and its events are moved
