"""One self-contained HTML page from a small declarative structure: text, tables, pictures, cards, commands.

The page has no script and fetches nothing: styles stand in its head and pictures are base64 in place, so that it can
be mailed, kept for years, and opened without a network. It follows the reader's light or dark setting and folds to the
width of a telephone.

    Report("Digits", [Text("Drawn by three priors."), Picture(png, "ppca"), Command("oneprior sample run")]).write(path)
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oneprior.apps.pictures import Picture as Image


@dataclass(frozen=True)
class Heading:
    """A heading; `level` 2 opens a part of the page, 3 stands within one."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; `code` in backticks and **bold** are understood, and nothing else."""

    text: str


@dataclass(frozen=True)
class Table:
    """Columns of words and numbers.

    Args:
        head: names of the columns.
        rows: cells, already formatted; None leaves a dash.
        caption: said under the table.
        best: (row, column) of the cells to set in bold.
        rules: rows above which a line is drawn, to part groups.
        words: how many leading columns hold words, and stand to the left.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | None]]
    caption: str = ""
    best: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    rules: frozenset[int] = field(default_factory=frozenset)
    words: int = 1


@dataclass(frozen=True)
class Picture:
    """One picture with a caption below."""

    image: Image
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures beside one another, as many as the page is wide."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Strips:
    """Pictures of one width under one another, each with a label: a line for each method, a column for each case."""

    rows: Sequence[tuple[str, Image]]
    caption: str = ""


@dataclass(frozen=True)
class Notice:
    """What a reader must not miss, in red: why a result is not to be trusted."""

    title: str
    text: str


@dataclass(frozen=True)
class Cards:
    """A few figures that stand for the rest: (figure, what it is)."""

    figures: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Command:
    """What to type, and what it does."""

    text: str
    caption: str = ""


@dataclass(frozen=True)
class Field:
    """A number that is asked for.

    Args:
        name: that it is sent under.
        label: beside it.
        value: that stands in it.
        problem: what was wrong with what was sent.
    """

    name: str
    label: str
    value: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Form:
    """Pictures, each with numbers that are asked for, to be sent back to where the page came from."""

    cards: Sequence[tuple[Image, Sequence[Field]]]
    button: str


Section = Heading | Text | Notice | Table | Picture | Gallery | Strips | Cards | Command | Form


@dataclass(frozen=True)
class Report:
    """A page.

    Args:
        title: at its head and in the browser's tab.
        sections: from top to bottom.
        lead: one sentence under the title.
        foot: the small print: version, seed, date.
        again: seconds after which a page that is served is asked for anew; 0 for never.
    """

    title: str
    sections: Sequence[Section]
    lead: str = ""
    foot: str = ""
    again: int = 0

    def html(self) -> str:
        """The whole page."""
        body = "\n".join(_render(section) for section in self.sections)
        lead = f'<p class="lead">{_inline(self.lead)}</p>' if self.lead else ""
        foot = f"<footer>{_inline(self.foot)}</footer>" if self.foot else ""
        again = f'<meta http-equiv="refresh" content="{self.again}">' if self.again else ""
        return _PAGE.format(title=html.escape(self.title), style=_STYLE, lead=lead, body=body, foot=foot, again=again)

    def write(self, path: str | Path) -> Path:
        """Write the page, making its folder; returns the path."""
        from oneprior.core import replacing

        with replacing(path) as draft:
            draft.write_text(self.html(), encoding="utf-8")
        return Path(path)


def _render(section: Section) -> str:
    match section:
        case Heading(text, level):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Text(text):
            return f"<p>{_inline(text)}</p>"
        case Notice(title, text):
            return f'<div class="notice" role="alert"><strong>{_inline(title)}</strong><p>{_inline(text)}</p></div>'
        case Table():
            return _table(section)
        case Picture(image, caption):
            shown = _image(image, caption)
            shown = (
                f'<div class="wide">{shown}</div>' if image.words else shown
            )  # at its own width, or it cannot be read
            return f"<figure>{shown}{_caption(caption)}</figure>"
        case Gallery(pictures):
            inner = "".join(f"<figure>{_image(p.image, p.caption)}{_caption(p.caption)}</figure>" for p in pictures)
            return f'<div class="gallery">{inner}</div>'
        case Strips(rows, caption):
            inner = "".join(
                f"<dt>{_inline(label)}</dt><dd>{_image(image, label, 2 * image.width)}</dd>" for label, image in rows
            )
            return f'<figure class="strips"><dl>{inner}</dl>{_caption(caption)}</figure>'
        case Form():
            return _form(section)
        case Cards(figures):
            inner = "".join(
                f"<div><b>{_inline(figure)}</b><span>{_inline(what)}</span></div>" for figure, what in figures
            )
            return f'<div class="cards">{inner}</div>'
        case Command(text, caption):
            note = f"<p>{_inline(caption)}</p>" if caption else ""
            return f"{note}<pre><code>{html.escape(text)}</code></pre>"


def _form(form: Form) -> str:
    cards = []
    for k, (image, fields) in enumerate(form.cards):
        asked = "".join(_field(one, focus=not k and not j) for j, one in enumerate(fields))
        cards.append(f"<figure>{_image(image, f'picture {k + 1}')}{asked}</figure>")
    inner = "".join(cards)
    return f'<form method="post"><div class="gallery">{inner}</div><button>{html.escape(form.button)}</button></form>'


def _field(one: Field, focus: bool) -> str:
    name, value = html.escape(one.name, quote=True), html.escape(one.value, quote=True)
    problem = f'<em role="alert">{_inline(one.problem)}</em>' if one.problem else ""
    first = " autofocus" if focus else ""
    return (
        f'<label>{_inline(one.label)} <input name="{name}" value="{value}" autocomplete="off"{first}></label>{problem}'
    )


def _table(table: Table) -> str:
    def cell(tag: str, column: int, inner: str) -> str:
        return f'<{tag} class="w">{inner}</{tag}>' if column < table.words else f"<{tag}>{inner}</{tag}>"

    lines = []
    for i, row in enumerate(table.rows):
        texts = ["–" if text is None else _inline(text) for text in row]
        bold = [f"<b>{text}</b>" if (i, j) in table.best else text for j, text in enumerate(texts)]
        opening = '<tr class="rule">' if i in table.rules else "<tr>"
        lines.append(opening + "".join(cell("td", j, text) for j, text in enumerate(bold)) + "</tr>")
    head = "".join(cell("th", j, _inline(name)) for j, name in enumerate(table.head))
    return (
        f'<figure><div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        f"{_caption(table.caption)}</figure>"
    )


def _image(image: Image, alt: str, most: int = 0) -> str:
    """An <img>; at most so many pixels wide."""
    data = base64.b64encode(image.png).decode("ascii")
    words = html.escape(re.sub(r"[`*]", "", alt), quote=True)
    size = f'width="{image.width}" height="{image.height}"'
    style = f' style="max-width: min(100%, {most}px)"' if most else ""
    letters = ' class="words"' if image.words else ""
    return f'<img src="data:image/png;base64,{data}" alt="{words}"{letters} {size}{style}>'


def _caption(text: str) -> str:
    return f"<figcaption>{_inline(text)}</figcaption>" if text else ""


def _inline(text: str) -> str:
    text = html.escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{again}<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1>{lead}</header>
{body}
{foot}
</main>
</body>
</html>
"""

_STYLE = """
:root { --ink: #1b1f24; --soft: #5c6570; --line: #dfe3e8; --page: #ffffff; --card: #f5f7f9; --accent: #2459c4;
  --red: #b3261e; --blush: #fdf0ee; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7eaee; --soft: #9aa4b0; --line: #2d343d; --page: #14181d; --card: #1c2229; --accent: #86aef8;
    --red: #ff8a80; --blush: #33191a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header { border-bottom: 1px solid var(--line); margin-bottom: 1.5rem; padding-bottom: .75rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.2; letter-spacing: -.02em; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; line-height: 1.3; letter-spacing: -.01em; margin: 2.75rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .25rem; }
p { max-width: 44rem; margin: .5rem 0 1rem; }
.lead { font-size: 1.1rem; color: var(--soft); margin: 0 0 .5rem; }
.notice { background: var(--blush); border: 1px solid var(--red); border-left-width: 6px; border-radius: 8px;
  padding: .8rem 1.1rem; margin: 1.25rem 0; }
.notice strong { color: var(--red); }
.notice p { margin: .25rem 0 0; }
figure { margin: 1rem 0 1.5rem; }
figcaption { color: var(--soft); font-size: .9rem; line-height: 1.45; margin-top: .5rem; max-width: 44rem; }
img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; border-radius: 3px; }
img.words { image-rendering: auto; }
.wide img { max-width: none; }
.gallery { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(10rem, 40%), 1fr)); gap: 1.25rem; }
.gallery figure { margin: 0; }
.gallery img { width: 100%; }
.strips dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .4rem 1rem; margin: 0;
  align-items: center; }
.strips dt { text-align: right; font-size: .9rem; line-height: 1.25; color: var(--soft); max-width: 11rem; }
.strips dd { margin: 0; min-width: 0; }
.strips img { width: 100%; }
.wide { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: .82rem; border-bottom: 1px solid var(--line);
  vertical-align: bottom; white-space: normal; line-height: 1.25; }
th.w, td.w { text-align: left; }
td.w { white-space: normal; min-width: 7rem; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tbody tr + tr td { border-top: 1px solid color-mix(in srgb, var(--line) 55%, transparent); }
tbody tr.rule td { border-top: 1px solid var(--soft); }
td b { color: var(--accent); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.cards div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem; }
.cards b { display: block; font-size: 1.6rem; line-height: 1.2; letter-spacing: -.02em; }
.cards span { color: var(--soft); font-size: .88rem; line-height: 1.35; display: block; margin-top: .2rem; }
form label { display: flex; gap: .5rem; align-items: baseline; font-size: .9rem; color: var(--soft);
  margin-top: .4rem; }
form input { flex: 1; min-width: 3rem; font: inherit; color: var(--ink); background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; padding: .3rem .5rem; }
form em { color: var(--red); font-size: .85rem; font-style: normal; }
form button { font: inherit; font-weight: 600; color: #fff; background: #2459c4; border: 0; border-radius: 8px;
  padding: .6rem 1.4rem; margin-top: 1.25rem; cursor: pointer; }
code { font: .9em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
p code, td code, figcaption code, li code { background: var(--card); border-radius: 4px; padding: .1em .3em; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1.1rem;
  overflow-x: auto; margin: .5rem 0 1.25rem; }
footer { border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; margin-top: 3rem;
  padding-top: 1rem; }
@media (max-width: 34rem) {
  main { padding-top: 1.5rem; }
  .strips dl { grid-template-columns: 1fr; gap: .15rem; }
  .strips dt { text-align: left; max-width: none; margin-top: .5rem; }
}
@media print {
  main { max-width: none; padding: 0; }
  .wide img { max-width: 100%; }
  pre, .cards div { break-inside: avoid; }
}
"""
