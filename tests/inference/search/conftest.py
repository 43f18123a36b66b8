"""Small problems are asked of the program here, which would be looked through otherwise (`test_listing`)."""

import pytest


@pytest.fixture(autouse=True)
def _by_programs(monkeypatch):
    monkeypatch.setattr("oneprior.inference.search.exact.can_list", lambda *_: False)
