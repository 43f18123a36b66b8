"""What every test process needs, however it was started.

One thread: two OpenMP threads under contention collapse (../shared/field/probes.md). And Ctrl-C as a terminal has it: a
shell starts its background jobs with that signal ignored, and children inherit it.
"""

import signal

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def codes_run(tmp_path_factory):
    """A vqvae of digits, 2 x 2 codes of 16; not to be changed."""
    from oneprior.data import digits
    from oneprior.training import train

    tiny = {"codes": 16, "latent": 4, "width": 8, "prior_width": 16, "prior_depth": 1, "prior_heads": 2}
    quiet = {"held_out": 0.0, "preview_every": 0, "tracker": "none"}
    out = tmp_path_factory.mktemp("runs") / "codes"
    return train("vqvae", data=digits(), out=out, images=8000, batch_size=32, **quiet, **tiny)
