"""The screen: a progress bar with the time left, tables, last words. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
_SECONDS = 10.0  # between lines of a log


def track(states: Iterable[T], name: str, done: Callable[[T], float], words: Callable[[T], str] | None = None) -> T:
    """Run an iterator of states to its end under a progress bar; returns the last state.

    On a terminal a bar with the time left; elsewhere a line every ten seconds and at the end.

    Args:
        states: at least one.
        name: what is being done.
        done: the finished share of a state, 0 to 1.
        words: what a state says of itself, shown beside the bar.
    """
    last: list[T] = []
    tell = words or (lambda _: "")
    if sys.stderr.isatty():
        _bar(states, name, done, tell, last)
    else:
        _lines(states, name, done, tell, last)
    return last[0]


def _bar(states: Iterable[T], name: str, done: Callable[[T], float], tell: Callable[[T], str], last: list[T]) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=120) as bar:
        task = bar.add_task(name, total=1.0, words="")
        for state in states:
            last[:] = [state]
            bar.update(task, completed=min(done(state), 1.0), words=tell(state))


def _lines(states: Iterable[T], name: str, done: Callable[[T], float], tell: Callable[[T], str], last: list[T]) -> None:
    start = told = time.monotonic()
    for state in states:
        last[:] = [state]
        now, share = time.monotonic(), min(done(state), 1.0)
        if now - told > _SECONDS and 0 < share < 1:
            told = now
            left = (now - start) * (1 - share) / share
            say(
                f"{name} {share:4.0%}  {tell(state)}  {now - start:.0f} s, {left:.0f} s left".replace("    ", "  "),
                error=True,
            )
    if last:
        say(f"{name}: {tell(last[0])}  {time.monotonic() - start:.1f} s".replace(":   ", ": "), error=True)


def say(text: str, *, error: bool = False) -> None:
    """One line, on stdout or stderr."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def table(rows: Sequence[Sequence[Any]], *, title: str = "", head: Sequence[str] = ()) -> None:
    """A table on stdout; without a head, names in the first column."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    sheet = Table(
        title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_header=bool(head)
    )
    for k, name in enumerate(head or [""] * max((len(row) for row in rows), default=1)):
        sheet.add_column(name, style="cyan" if k == 0 else "", overflow="fold", no_wrap=k == 0)
    for row in rows:
        sheet.add_row(*(Text(str(cell)) for cell in row))
    Console().print(sheet)
