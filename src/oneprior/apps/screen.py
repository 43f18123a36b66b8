"""The screen: a progress bar with the time left, tables, last words. Progress goes to stderr, results to stdout.

Ctrl-C is gentle: the first lets the present step end, so that an iterator can put its affairs in order (a training
writes a checkpoint) before KeyboardInterrupt is raised; the second is raised at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
Show = Callable[[float, str], None]  # (finished share, words)
_SECONDS = 10.0  # between lines of a log


def track(states: Iterable[T], name: str, done: Callable[[T], float], words: Callable[[T], str] | None = None) -> T:
    """Run an iterator of states to its end under a progress bar; returns the last state.

    On a terminal a bar with the time left; elsewhere a line every ten seconds and at the end; nothing on the screens of
    further processes of a distributed training.

    Args:
        states: at least one.
        name: what is being done.
        done: the finished share of a state, 0 to 1.
        words: what a state says of itself, shown beside the bar.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the step and after the iterator was closed.
    """
    display = _silence if not is_main_process() else _bar if sys.stderr.isatty() else _log
    last: list[T] = []
    with _gentle_stop() as asked, display(name) as show:
        try:
            for state in states:
                last[:] = [state]
                show(min(done(state), 1.0), words(state) if words else "")
                if asked.is_set():
                    raise KeyboardInterrupt
        finally:
            if isinstance(states, Generator):
                states.close()
    return last[0]


def is_main_process() -> bool:
    """Whether this process is the one that speaks, of those that `torchrun` or `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _gentle_stop() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second raises KeyboardInterrupt."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        say("stopping after this step (Ctrl-C again: at once)", error=True)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _silence(name: str) -> Iterator[Show]:
    yield lambda share, words: None


@contextmanager
def _bar(name: str) -> Iterator[Show]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("[bold]{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[words]}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), speed_estimate_period=120) as bar:
        task = bar.add_task(name, total=1.0, words="")
        yield lambda share, words: bar.update(task, completed=share, words=words)


@contextmanager
def _log(name: str) -> Iterator[Show]:
    start = told = time.monotonic()
    newest, over = "", threading.Event()

    def show(share: float, words: str) -> None:
        nonlocal told, newest
        newest, now = words, time.monotonic()
        if now - told > _SECONDS and 0 < share < 1:
            told, left = now, (now - start) * (1 - share) / share
            say("  ".join(filter(None, (f"{name} {share:4.0%}", words, f"{left:.0f} s left"))), error=True)

    def wait() -> None:  # a step may take minutes, and a log without a line looks like a program that hangs
        nonlocal told
        pause = 3 * _SECONDS
        while not over.wait(pause):
            now = time.monotonic()
            if now - told >= pause:
                told, pause = now, 2 * pause
                say("  ".join(filter(None, (name, newest, f"working, {now - start:.0f} s so far"))), error=True)

    watch = threading.Thread(target=wait, daemon=True)
    if _SECONDS > 0:
        watch.start()
    try:
        yield show
    finally:
        over.set()
    say("  ".join(filter(None, (name, newest, f"{time.monotonic() - start:.1f} s"))), error=True)


def say(text: str, *, error: bool = False) -> None:
    """One line, on stdout or stderr."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def table(
    rows: Sequence[Sequence[Any]], *, title: str = "", head: Sequence[str] = (), whole: Sequence[str] = ()
) -> None:
    """A table on stdout; without a head, names in the first column.

    Args:
        rows: its lines.
        title: above it.
        head: names of the columns.
        whole: columns beside the first that are never broken; the others are, between words where they can be.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    sheet = Table(
        title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_header=bool(head)
    )
    for k, name in enumerate(head or [""] * max((len(row) for row in rows), default=1)):
        sheet.add_column(name, style="cyan" if k == 0 else "", overflow="fold", no_wrap=k == 0 or name in whole)
    for row in rows:
        sheet.add_row(*(Text(str(cell)) for cell in row))
    Console().print(sheet)
