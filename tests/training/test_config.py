"""The settings: no torch, and no nonsense."""

import subprocess
import sys

import pytest

from oneprior.core import InputError
from oneprior.training import TrainConfig


def test_the_settings_import_no_torch():
    code = "import sys, oneprior.training.config, oneprior.training.progress; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"images": 10, "minutes": 1.0}, "not in both"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"images": -5}, "images must be positive"),
        ({"held_out": 1.0}, r"share of the data in \[0, 1\)"),
        ({"decay": "linear"}, "decay is one of cosine, constant, inverse_sqrt; got 'linear'"),
        ({"clip": -1.0}, "clip must not be negative"),
        ({"log_every": 0}, "log_every must be at least 1"),
    ],
)
def test_nonsense_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        TrainConfig(**settings)


def test_differences_are_those_that_change_the_weights():
    mine = TrainConfig(images=100, log_every=5, tracker="none", checkpoint_every=10)
    assert mine.differences(TrainConfig(images=100)) == {}
    assert mine.differences(TrainConfig(images=200, seed=1)) == {"images": (100, 200), "seed": (0, 1)}
