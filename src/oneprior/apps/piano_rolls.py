"""Music to look at: pitch upwards, quarter notes to the right, a colour for each voice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from oneprior.apps.pictures import GREY, INK, Picture, encode, laid_out, lettering
from oneprior.data.midi import STEP, Note, as_notes

_SEMITONE, _QUARTER, _MARGIN, _GAP = 4, 16, 26, 8
"""Pixels."""
_OCTAVE, _BAR = 12, 4
"""Semitones of an octave, and quarter notes of a bar, between two lines."""
_GROUND, _LINE = (125, 132, 142, 28), (125, 132, 142, 110)


Piece = Sequence[Sequence[Note]]


def rolled(x: Tensor, tokens: Sequence[str], columns: int = 8) -> Picture:
    """Pieces on a grid, row by row, all with the same pitches.

    Args:
        x: (n, voices x tokens, steps).
        tokens: what the channels stand for.
        columns: in a row.
    """
    pieces = as_notes(x, tokens)
    pitches = span(pieces)
    tiles = [roll([piece], x.shape[-1] * STEP, pitches) for piece in pieces]
    return encode(laid_out(tiles, columns, _GAP), words=True)


def span(pieces: Sequence[Piece]) -> tuple[int, int]:
    """The lowest and the highest pitch that rolls of some pieces show."""
    pitches = [note.pitch for piece in pieces for voice in piece for note in voice] or [60]
    return min(pitches) - 2, max(pitches) + 2


def roll(pieces: Sequence[Piece], quarters: float, pitches: tuple[int, int]) -> np.ndarray:
    """One piece, or several over each other: the more of them have a note, the fuller is its colour.

    The octaves have their names (C4 is middle C), the bars their numbers.

    Args:
        pieces: of the same voices.
        quarters: quarter notes of each.
        pitches: see `span`.

    Returns:
        uint8 (height, width, 4).
    """
    from PIL import Image, ImageDraw

    low, high = pitches
    wide, tall = round(quarters * _QUARTER), (high - low + 1) * _SEMITONE
    sheet = Image.new("RGBA", (_MARGIN + wide, tall + _MARGIN // 2), (0, 0, 0, 0))
    draw, font = ImageDraw.Draw(sheet), lettering(10)
    draw.rectangle((_MARGIN, 0, _MARGIN + wide, tall), fill=_GROUND)
    for pitch in range(-(-low // _OCTAVE) * _OCTAVE, high + 1, _OCTAVE):
        up = (high - pitch + 1) * _SEMITONE
        draw.line((_MARGIN, up, _MARGIN + wide, up), fill=_LINE)
        draw.text((_MARGIN - 4, up), f"C{pitch // _OCTAVE - 1}", font=font, fill=GREY, anchor="rm")
    for bar in range(math.ceil(quarters / _BAR)):
        across = _MARGIN + bar * _BAR * _QUARTER
        draw.line((across, 0, across, tall), fill=_LINE)
        draw.text((across + 2, tall + 2), str(bar + 1), font=font, fill=GREY, anchor="lt")
    for k in range(max(map(len, pieces))):
        share = np.zeros((sheet.height, sheet.width))
        for piece in pieces:
            for note in piece[k] if k < len(piece) else ():
                left, top = _MARGIN + round(note.start * _QUARTER), (high - note.pitch) * _SEMITONE
                right = left + round(note.length * _QUARTER) - 1
                share[top : top + _SEMITONE, left:right] += 1 / len(pieces)
        ink = np.broadcast_to(np.array(INK[k % len(INK)][:3], np.uint8), (*share.shape, 3))
        sheet.alpha_composite(Image.fromarray(np.dstack([ink, np.uint8(255 * share.clip(0, 1) + 0.5)])))
    return np.asarray(sheet)
