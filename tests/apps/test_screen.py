"""Progress on a terminal, in a log, and nowhere; Ctrl-C lets the iterator put its affairs in order."""

import os
import signal
import sys
import time

import pytest

from oneprior.apps import screen


def shares(*values):
    yield from values


def test_the_last_state_comes_back(capsys):
    assert screen.track(shares(0.5, 1.0), "work", float, lambda s: f"at {s}") == 1.0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("work  at 1.0  ")


def test_a_log_has_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(screen, "_SECONDS", -1.0)
    screen.track(shares(0.25, 0.5, 1.0), "work", float)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["work", "25%"], ["work", "50%"]]
    assert "s left" in lines[0]
    assert len(lines) == 3


def test_a_log_is_not_silent_through_a_long_step(capsys, monkeypatch):
    monkeypatch.setattr(screen, "_SECONDS", 0.02)

    def one_long_step():
        yield 0.0
        time.sleep(0.4)
        yield 1.0

    screen.track(one_long_step(), "work", float, lambda s: "on a.png")
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("work  on a.png  working, ") for line in lines[:-1])
    assert 1 <= len(lines[:-1]) <= 4  # the pauses grow


def test_a_terminal_has_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert screen.track(shares(0.5, 1.0), "painting", float, lambda s: "red") == 1.0
    assert "painting" in capsys.readouterr().err


def test_further_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert screen.track(shares(1.0), "work", float) == 1.0
    assert capsys.readouterr().err == ""


def test_ctrl_c_waits_for_the_step_and_closes_the_iterator(capsys):
    order = []

    def states():
        try:
            for k in range(5):
                if k == 2:
                    os.kill(os.getpid(), signal.SIGINT)
                order.append(k)
                yield k / 5
        finally:
            order.append("closed")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        screen.track(states(), "work", float)
    assert order == [0, 1, 2, "closed"]  # the third step was finished, and no further one begun
    assert "Ctrl-C again: at once" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_does_not_wait():
    order = []

    def states():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        order.append("not reached")
        yield 1.0

    with pytest.raises(KeyboardInterrupt):
        screen.track(states(), "work", float)
    assert order == []


def test_tables_show_every_cell(capsys):
    screen.table([("a [bold]", 1), ("b", "x" * 3)], title="facts", head=("name", "value"))
    said = capsys.readouterr().out
    for part in ("facts", "name", "a [bold]", "xxx"):
        assert part in said
