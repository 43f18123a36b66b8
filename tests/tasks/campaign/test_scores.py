"""Scores that work, and all the ways in which one does not: each becomes an outcome with words."""

import math
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from oneprior.core import InputError
from oneprior.tasks.campaign.scores import CommandScore, Evaluator, FunctionScore, on_dask, scored

EVENT = np.full((1, 4, 4), 3.0)


def mean(event: np.ndarray) -> float:
    return float(event.mean())


def hangs(event: np.ndarray) -> float:
    if event.max() > 5:
        time.sleep(60)
    return mean(event)


def sleeps(event: np.ndarray) -> float:
    time.sleep(0.3)
    return mean(event)


def dies(event: np.ndarray) -> float:
    if event.max() > 5:
        os._exit(3)
    return mean(event)


def raises(event: np.ndarray) -> float:
    raise KeyError("no such organ")


def written(event: np.ndarray, folder: Path) -> Path:
    np.savetxt(folder / "event.txt", event.reshape(4, 4))
    return folder / "event.txt"


def test_a_number_of_any_kind_is_a_score():
    for value in (2, 2.0, np.float32(2), np.array([[2.0]]), True + 1):
        assert scored(lambda event, value=value: value, EVENT).scores == (2.0,)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("2", "no number: '2'"),
        (None, "no number"),
        ([1, 2], "gives 2 numbers: name those"),
        ({"ink": 1, "edge": 2}, "--objective ink=maximise"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
    ids=["text", "nothing", "two", "named", "nan", "inf"],
)
def test_what_is_no_number_fails_in_words(value, said):
    outcome = scored(lambda event: value, EVENT)
    assert math.isnan(outcome.scores[0])
    assert said in outcome.note


@pytest.mark.parametrize(
    "value",
    [(2, 3.0), [2, 3], np.array([2, 3]), {"depth": 3, "width": 2, "else": "x"}],
    ids=["tuple", "list", "array", "names"],
)
def test_several_scores_come_in_order_or_by_name(value):
    assert scored(lambda event: value, EVENT, names=("width", "depth")).scores == (2.0, 3.0)


@pytest.mark.parametrize(
    ("value", "said"),
    [(2, "no 2 numbers (width, depth)"), ({"width": 1}, "has no depth: it has width"), ((1, math.nan), "depth is nan")],
    ids=["one", "missing", "nan"],
)
def test_too_few_scores_fail_in_words(value, said):
    outcome = scored(lambda event: value, EVENT, names=("width", "depth"))
    assert outcome.failed
    assert len(outcome.scores) == 2
    assert said in outcome.note


def test_what_it_raises_is_told():
    assert scored(raises, EVENT).note == "KeyError: 'no such organ'"


def test_what_hangs_is_stopped():
    outcome = scored(hangs, EVENT + 9, seconds=0.3)
    assert outcome.note == "no score within 0.3 s"
    assert outcome.seconds < 5
    assert scored(hangs, EVENT, seconds=5).scores == (3.0,)


def test_what_hangs_in_another_thread_is_stopped_between_its_steps():
    def spins(event: np.ndarray) -> float:
        while True:
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(scored, spins, EVENT, 0.3).result(10).note == "no score within 0.3 s"


def test_a_function_is_told_by_name(tmp_path, monkeypatch):
    (tmp_path / "organ.py").write_text("def size(event):\n    return event.sum()\n")
    monkeypatch.chdir(tmp_path)
    assert scored(FunctionScore("organ:size"), EVENT).scores == (48,)
    with pytest.raises(InputError, match="no function 'weight'"):
        FunctionScore("organ:weight")


def test_a_command_reads_a_file_and_prints_a_number():
    words = f"{sys.executable} -c 'import sys; print(1, float(open(sys.argv[1]).read().split()[0]) * -2e0)'"
    assert scored(CommandScore(words, written), EVENT).scores == (-6,)
    assert scored(CommandScore(words, written, count=2), EVENT, names=("a", "b")).scores == (1, -6)
    assert "fewer than 3 numbers" in scored(CommandScore(words, written, count=3), EVENT, names=("a", "b", "c")).note
    braces = f"{sys.executable} -c 'import sys; print(sys.argv[1].count(sys.argv[2]))' {{}} event"
    assert scored(CommandScore(braces, written), EVENT).scores == (1,)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('large')", "no number of its own on its last line: 'large'"),
        ("print('/tmp/a-7/252.png')", "no number of its own"),
        ("", "nothing"),
        ("raise SystemExit('no')", "status 1: no"),
    ],
    ids=["text", "of a name", "nothing", "fails"],
)
def test_a_command_that_prints_no_number_fails_in_words(program, said):
    outcome = scored(CommandScore(f'{sys.executable} -c "{program}"', written), EVENT)
    assert math.isnan(outcome.scores[0])
    assert said in outcome.note


@pytest.mark.parametrize("printed", ["3", "score: 3", "a=3", "3 mm", "2, 3", "(3)"])
def test_a_number_that_is_a_word_is_read_from_any_line(printed):
    program = f"print({printed!r})"
    assert scored(CommandScore(f'{sys.executable} -c "{program}"', written), EVENT).scores == (3,)


@pytest.mark.parametrize("command", ["measure {} | tail -1", "a {} && b", "m {} > out", "'open", ""])
def test_a_command_for_a_shell_is_refused(command):
    with pytest.raises(InputError, match="shell|cannot be read|no words"):
        CommandScore(command, written)


def test_a_command_that_is_not_there_fails_in_words():
    assert "nobody-has-this" in scored(CommandScore("nobody-has-this", written), EVENT).note


def test_processes_score_and_what_hangs_or_kills_its_process_is_alone_in_failing():
    events = {k: EVENT + k for k in (0, 1, 8, 2)}
    with Evaluator(dies, workers=2) as evaluate:
        found = dict(evaluate(events))
    assert {k: outcome.scores[0] for k, outcome in found.items() if k != 8} == {0: 3, 1: 4, 2: 5}
    assert found[8].note == "its process died, twice"
    with Evaluator(hangs, workers=2, seconds=1.0) as evaluate:
        found = dict(evaluate(events))
    assert found[8].note == "no score within 1 s"
    assert found[2].scores == (5,)


def test_a_score_that_cannot_be_sent_fails_in_words():
    with Evaluator(lambda event: 1.0) as evaluate:
        assert "pickle" in dict(evaluate({0: EVENT}))[0].note


def test_a_dask_cluster_scores_though_a_worker_is_killed():
    """One of two workers dies in the middle of its work; nothing is lost."""
    make = on_dask("local", workers=2)
    try:
        with Evaluator(sleeps, executor=make, seconds=60) as evaluate:
            found, victim = {}, next(iter(make()._client.run(os.getpid).values()))
            for number, outcome in evaluate({k: EVENT + k for k in range(8)}):
                if not found:
                    os.kill(victim, signal.SIGKILL)
                found[number] = outcome.scores[0]
        assert found == {k: 3.0 + k for k in range(8)}
    finally:
        client = make()._client
        client.close()
        client.cluster.close()


def test_nobody_at_an_address_is_said():
    with pytest.raises(InputError, match="no Dask scheduler answers at 127.0.0.1:9"):
        on_dask("127.0.0.1:9", 1)
