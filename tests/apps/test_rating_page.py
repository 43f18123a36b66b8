"""The page on which a person rates: served, filled in, told what is wrong, and read by a real browser."""

import re
import shutil
import subprocess
import threading
import time
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
import torch

from oneprior.apps.main import run as oneprior
from oneprior.apps.rating_page import RatingPage
from oneprior.core import InputError
from oneprior.data import digits
from oneprior.inference.search.surrogate import Trees
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.settings import Settings


@pytest.fixture
def campaign(codes_run, tmp_path):
    found = Campaign.begin(
        tmp_path / "rated", codes_run, digits(), Settings(trees=Trees(most=30, least=5), retrain_every=0)
    )
    rows = np.arange(0, 1797, 6)
    found.score_data(rows, found.data.batch(torch.from_numpy(rows)).x.flatten(1).mean(1).numpy())
    return found


class Reader(threading.Thread):
    """What a person does, in another thread; the page itself is served by the one that owns the campaign."""

    def __init__(self, page: RatingPage, does) -> None:
        super().__init__(daemon=True)
        self.page, self.does, self.seen, self.error = page, does, [], None

    def run(self) -> None:
        try:
            self.does(self)
        except Exception as error:
            self.error = error
            self.page.finished = True

    def get(self) -> str:
        for _ in range(100):
            text = urlopen(self.page.address, timeout=60).read().decode()
            self.seen.append(text)
            if 'http-equiv="refresh"' not in text:
                return text
            time.sleep(0.1)
        raise TimeoutError

    def send(self, **values: str) -> None:
        urlopen(self.page.address, urlencode(values).encode(), timeout=60).read()


def read_by(page: RatingPage, does) -> Reader:
    """Serve the page to a reader, until both have ended."""
    reader = Reader(page, does)
    reader.start()
    page.serve()
    reader.join(10)
    assert reader.error is None
    return reader


def names(text: str) -> list[str]:
    return re.findall(r'<input name="([^"]+)"', text)


def test_rounds_are_rated_until_the_budget_is_spent(campaign):
    page = RatingPage(campaign, budget=3, batch=2)

    def does(reader):
        first = names(reader.get())
        assert len(first) == 2
        reader.send(**{first[0]: "7.5", first[1]: "very happy"})
        again = reader.get()
        assert names(again) == first[1:]  # what was rated is gone, what was wrong is asked again
        assert "a number, or failed" in again
        assert 'value="very happy"' in again
        reader.send(**{first[1]: "failed"})
        last = reader.get()
        assert len(names(last)) == 1  # the budget is 3
        assert "7.5" in last  # the best so far
        reader.send(**{names(last)[0]: "8"})
        assert "The program has ended" in reader.get()

    reader = read_by(page, does)
    assert [entry.score for entry in campaign.told()] == [7.5, None, 8.0]
    assert campaign.told()[1].note == "rated as failed"
    assert any("being made" in text for text in reader.seen)


def test_nothing_else_is_served_and_markup_stays_text(campaign):
    page = RatingPage(campaign, budget=2, batch=1)

    def does(reader):
        with pytest.raises(HTTPError, match="404"):
            urlopen(page.address + "etc/passwd", timeout=60)
        (name,) = names(reader.get())
        reader.send(**{name: '"><script>alert(1)</script>', "candidate-999-0": "5"})
        assert "<script>" not in reader.get()
        page.finished = True
        reader.get()

    read_by(page, does)
    assert not campaign.told()


def test_a_port_that_is_taken_is_one_line(campaign):
    page = RatingPage(campaign, budget=1, batch=1)
    with pytest.raises(InputError, match="give another --port"):
        RatingPage(campaign, budget=1, batch=1, port=int(page.address.rstrip("/").rpartition(":")[2]))
    assert oneprior(["optimise", "run", "--by-page", "--out", "nowhere"]) == 2


@pytest.mark.skipif(not shutil.which("chromium"), reason="no browser here")
def test_a_browser_shows_the_pictures_and_their_fields(campaign):
    campaign.ask(2)
    page = RatingPage(campaign, budget=2, batch=2)
    found = []

    def does(reader):
        words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.address]
        found.append(subprocess.run(words, capture_output=True, text=True, timeout=120, check=False).stdout)
        page.finished = True
        reader.get()

    read_by(page, does)
    assert found[0].count("<img") == 2
    assert len(names(found[0])) == 2
    assert "Rate these" in found[0]
