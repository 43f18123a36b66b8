"""One thread a test process: two OpenMP threads under contention collapse (../shared/field/probes.md)."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
