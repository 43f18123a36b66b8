"""kill -9 at any moment, and the run resumes to the bits of one that was never killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training.killed import states

from oneprior.training.folder import read_tensors


def _start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("killed.py")), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def _steps(folder: Path) -> int:
    lines = (folder / "metrics.jsonl").read_bytes().count(b"\n") if (folder / "metrics.jsonl").exists() else 0
    return lines


@pytest.mark.slow
def test_kill_nine_at_any_moment(tmp_path):
    """Checkpoints at every step, so that many kills fall into the writing of one."""
    reference, cut, kills, chance = tmp_path / "whole", tmp_path / "cut", 0, random.Random(0)
    for _ in states(reference):
        pass
    while kills < 3:
        before, process = _steps(cut), _start(cut)
        deadline = time.monotonic() + 120
        while _steps(cut) in (0, before) and process.poll() is None:  # it is at work again
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        code = process.wait()
        assert code in (-signal.SIGKILL, 0), process.stderr.read().decode()
        if code == 0:
            break
        kills += 1
    assert kills >= 2
    for _ in states(cut):
        pass
    for name in ("model.safetensors", "checkpoint/000000001600.safetensors", "checkpoint/best.safetensors"):
        (a, _), (b, _) = read_tensors(reference / name), read_tensors(cut / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    assert json.loads((cut / "config.json").read_text())["finished"]
    steps = [json.loads(line)["step"] for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert steps == [*range(1, 101), 100]
    assert not list(cut.rglob(".*.tmp.*"))
