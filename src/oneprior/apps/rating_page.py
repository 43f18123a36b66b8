"""A page on which a person rates the candidates of a campaign: pictures, a number under each, one round after another.

It is served on this machine alone, and has no script: a form goes to the server and comes back as the next round. Every
score is kept as it is sent, so the page may be closed and the program stopped at any moment. One request is answered
at a time, by the thread that owns the campaign; asking for a round and training take place between two requests, while
the page says so and asks again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs

from oneprior.apps import report
from oneprior.apps.optimised import best_strip, drawn_events
from oneprior.core import InputError
from oneprior.tasks.campaign.campaign import Campaign
from oneprior.tasks.campaign.ledger import Entry
from oneprior.tasks.campaign.ratings import FAILED, parse_score

_LARGEST = 1 << 20
"""Bytes of a form."""
_LAST_WORDS = 1.0
"""Seconds in which the last page is still asked for."""


class RatingPage:
    """The rounds of a campaign, rated in a browser.

    Args:
        campaign: begun or resumed, whose data have scores.
        budget: candidates in all.
        batch: of a round.
        port: of this machine; 0 for any that is free.

    Attributes:
        address: where the page is.

    Raises:
        InputError: where the port is taken.
    """

    def __init__(self, campaign: Campaign, *, budget: int, batch: int, port: int = 0) -> None:
        self.campaign, self.budget, self.batch = campaign, budget, batch
        self.problems: dict[str, tuple[str, str]] = {}
        self.finished = False
        self._said = False  # whether the reader has been told to wait
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/":
                    self.send_error(HTTPStatus.NOT_FOUND)
                    return
                self._send(page.html())

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                if not 0 <= length <= _LARGEST:
                    self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                    return
                sent = parse_qs(self.rfile.read(length).decode("utf-8", "replace"), keep_blank_values=True)
                page.take({name: values[-1].strip() for name, values in sent.items()})
                self.send_response(HTTPStatus.SEE_OTHER)
                self.send_header("Location", "/")
                self.end_headers()

            def _send(self, text: str) -> None:
                body = text.encode("utf-8")
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        try:
            self._server = HTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise InputError(f"port {port} cannot be served ({error.strerror}): give another --port") from error
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def serve(self) -> None:
        """Until the budget is spent, or no other candidate is allowed."""
        try:
            while not self.finished:
                self._server.handle_request()
                if self._said:
                    self._next_round()
            self._server.timeout = _LAST_WORDS
            end = time.monotonic() + 2 * _LAST_WORDS
            while time.monotonic() < end:
                self._server.handle_request()
        finally:
            self._server.server_close()

    def take(self, sent: Mapping[str, str]) -> None:
        """Tell the campaign what a form says of its open candidates; what is wrong is said beside it."""
        self.problems = {}
        names = self.campaign.objectives.names
        for entry in self.campaign.open():
            texts = [sent.get(_name(entry, k), "") for k in range(len(names))]
            if not any(texts):
                continue
            if FAILED in (text.lower() for text in texts):
                self.campaign.tell(entry.id, [math.nan] * len(names), "rated as failed")
                continue
            scores = [parse_score(text) for text in texts]
            if None in scores:
                for k, (text, score) in enumerate(zip(texts, scores, strict=True)):
                    problem = "" if score is not None else f"a number, or {FAILED}"
                    self.problems[_name(entry, k)] = (text, problem)
                continue
            self.campaign.tell(entry.id, [score for score in scores if score is not None])

    def html(self) -> str:
        """The page as it is now."""
        told, waiting = self.campaign.spent, self.campaign.open()
        best = best_strip(self.campaign)
        if self.finished:
            return report.Report("Rated", best, f"{told} candidates are rated. The program has ended.").html()
        if not waiting:
            self._said = True
            next_words = "The next pictures are being made." if told < self.budget else "That was the last of them."
            lead = f"{told} of {self.budget} are rated. {next_words}"
            return report.Report("Rate", best, lead, again=2).html()
        cards = [(drawn_events(self.campaign, [entry], 1), self._fields(entry)) for entry in waiting]
        lead = (
            f"Round {self.campaign.rounds}, {told} of {self.budget} rated; the goal: {self.campaign.objectives.said}."
        )
        note = report.Text(f"Leave empty what you cannot tell yet; `{FAILED}` says that there is none.")
        return report.Report("Rate", [report.Form(cards, "Rate these"), note, *best], lead).html()

    def _fields(self, entry: Entry) -> list[report.Field]:
        fields = []
        for k, name in enumerate(self.campaign.objectives.names):
            value, problem = self.problems.get(_name(entry, k), ("", ""))
            fields.append(report.Field(_name(entry, k), name, value, problem))
        return fields

    def _next_round(self) -> None:
        told, self._said = self.campaign.spent, False
        if told >= self.budget:
            self.finished = True
            return
        if self.campaign.due:
            for _ in self.campaign.retrain():
                pass
        self.finished = not self.campaign.ask(min(self.batch, self.budget - told))


def _name(entry: Entry, k: int) -> str:
    return f"candidate-{entry.id}-{k}"
