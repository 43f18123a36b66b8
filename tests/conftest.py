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
