"""A training that somebody will kill: `python killed.py FOLDER`; resumes if there is something to resume."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.toys import Blobs, Toy, ToyConfig

from oneprior.training import TrainConfig, fit
from oneprior.training.order import seeded

CONFIG = TrainConfig(
    images=1600, batch_size=16, checkpoint_every=16, evaluate_every=64, keep="best", log_every=1, preview_every=0,
    tracker="none",
)  # fmt: skip


def states(folder: Path):
    """The training, from wherever the folder stands."""
    with seeded("toy"):
        model = Toy(ToyConfig(dropout=0.2), (1, 4, 4))
    return fit(model, Blobs(), CONFIG, folder, held_out=Blobs(20, seed=1), resume=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for _ in states(Path(sys.argv[1])):
        pass
