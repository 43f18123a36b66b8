"""Two processes over gloo take the steps that one process takes with the whole batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training import spread
from training.toys import Blobs, Toy, ToyConfig

from oneprior.core import InputError
from oneprior.training import TrainConfig, fit
from oneprior.training.folder import read_tensors
from oneprior.training.parallel import Team

STEPS = 2


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def launch(script: Path, *arguments: str, size: int = 2, **environment: str) -> None:
    """The processes of one training, started as torchrun starts them."""
    common = {
        **os.environ,
        **environment,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "OMP_NUM_THREADS": "1",
    }
    crew = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(size)
    ]
    said = [process.communicate(timeout=240)[0].decode() for process in crew]
    assert all(process.returncode == 0 for process in crew), said[0] + said[-1]


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def two(request, tmp_path_factory):
    """The folder of a training by two processes, gradients averaged or everything cut."""
    out = tmp_path_factory.mktemp(request.param)
    environment = {"ACCELERATE_USE_FSDP": "true"} if request.param == "fsdp" else {}
    launch(Path(spread.__file__), str(out), str(STEPS), **environment)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in spread.models()])
def test_two_processes_are_one(two, name):
    """Weights after two steps of a tenth of the gradient, codebook and augmentation statistics to 1e-6.

    The logged losses and norms are sums of many float32 and are looked at to 1e-5.
    """
    one = spread.train(name, dict(spread.models())[name], STEPS, Team("cpu"))
    (a, facts), (b, _) = (read_tensors(two / f"{name}.{rank}.safetensors") for rank in range(2))
    assert facts["size"] == 2
    assert a.keys() == b.keys() == one.keys()
    for key in set(one) - {"asked"}:  # FSDP's parameters ask for gradients in every turn
        assert torch.equal(a[key], b[key]), f"{key} differs between the processes"
        ours, theirs = one[key].double(), a[key].double()
        gap = float((ours - theirs).abs().max()) / max(1.0, float(ours.abs().max()))
        assert gap <= (1e-6 if key in facts["weights"] else 1e-5), f"{key}: {gap:.1e}"


@pytest.mark.slow
def test_only_the_first_process_writes(two):
    folder = two / "runs" / "toy"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) >= 1
    assert {p.name for p in folder.iterdir()} >= {"config.json", "card.md", "model.safetensors", "checkpoint"}


def test_a_batch_that_cannot_be_shared_is_refused():
    team = Team("cpu")
    team.size = 3
    with pytest.raises(InputError, match="batch_size 16 cannot be shared by 3 processes"):
        fit(Toy(ToyConfig(), (1, 4, 4)), Blobs(), TrainConfig(batch_size=16), team=team)
