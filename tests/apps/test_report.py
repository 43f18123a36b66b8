"""The page stands alone: nothing to fetch, nothing to run, everything escaped."""

from html.parser import HTMLParser

import pytest
import torch

from oneprior.apps import pictures
from oneprior.apps.report import Cards, Command, Gallery, Heading, Notice, Picture, Report, Strips, Table, Text


class Tags(HTMLParser):
    """The tags of a page, and whether they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page():
    image = pictures.grid(torch.zeros(4, 1, 8, 8))
    return Report(
        "Bread & <butter>",
        [
            Heading("One"),
            Text("`x < y` and **bold** & more"),
            Cards([("1 dB", "gain")]),
            Notice("Not to be trusted", "it is `a & b`"),
            Picture(image, 'a "caption"'),
            Gallery([Picture(image, "left"), Picture(image, "right")]),
            Strips([("truth", image), ("mean", image)], "rows"),
            Table(["name", "dB"], [["ppca", "16.9"], ["vae", None]], "numbers", frozenset({(0, 1)}), frozenset({1})),
            Command("oneprior demo --data 'a b' > log", "again"),
        ],
        lead="lead",
        foot="foot",
    )


def test_the_page_is_well_formed_and_fetches_nothing(page, tmp_path):
    text = page.write(tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    kinds = {tag for tag, _ in tags.seen}
    assert not kinds & {"script", "link", "iframe", "object"}
    for tag, attributes in tags.seen:
        for name in ("src", "href", "srcset"):
            if name in attributes:
                assert attributes[name].startswith("data:image/png;base64,"), tag
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text
    assert sum(tag == "img" for tag, _ in tags.seen) == 5
    assert all(attributes["alt"] for tag, attributes in tags.seen if tag == "img")


def test_words_are_escaped_and_marked(page):
    text = page.html()
    assert "<title>Bread &amp; &lt;butter&gt;</title>" in text
    assert "<code>x &lt; y</code> and <strong>bold</strong> &amp; more" in text
    assert "--data 'a b' &gt; log" in text or "--data &#x27;a b&#x27; &gt; log" in text
    assert 'alt="a &quot;caption&quot;"' in text
    assert "<td><b>16.9</b></td>" in text
    assert "<td>–</td>" in text
    assert '<tr class="rule"><td class="w">vae' in text


def test_the_page_serves_both_lights_and_a_telephone(page):
    text = page.html()
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert "@media (max-width" in text


def test_pictures_that_hold_letters_are_never_scaled_by_whole_pixels_and_scroll_where_the_page_is_narrow():
    image, bar = pictures.grid(torch.zeros(4, 1, 8, 8)), pictures.colour_bar(0, 1, "deviation")
    text = Report("a", [Picture(bar, "bar"), Picture(image, "grid"), Gallery([Picture(bar, "small")])]).html()
    tags = Tags()
    tags.feed(text)
    held = {a["alt"]: a.get("class") for tag, a in tags.seen if tag == "img"}
    assert held == {"bar": "words", "grid": None, "small": "words"}
    assert "img.words { image-rendering: auto; }" in text
    assert ".wide img { max-width: none; }" in text
    assert text.count('<div class="wide"><img') == 1
