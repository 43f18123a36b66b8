"""Piano rolls: a note stands where its pitch and its time are, in the colour of its voice."""

import numpy as np
import pytest
import torch

from oneprior.apps.piano_rolls import roll, rolled, span
from oneprior.data import open_dataset
from oneprior.data.chorales import write_chorales
from oneprior.data.midi import Note

HIGH, LOW = [Note(0.0, 1.0, 72), Note(1.0, 3.0, 74)], [Note(0.0, 4.0, 60)]
PITCHES = (58, 76)
LEFT, QUARTER, SEMITONE = 26, 16, 4
"""Where time begins, and the pixels of a quarter and a semitone."""


def seen(picture: np.ndarray, quarter: float, pitch: int) -> np.ndarray:
    """The pixel in the middle of what lasts a quarter."""
    down = (PITCHES[1] - pitch) * SEMITONE + SEMITONE // 2
    return picture[down, LEFT + int((quarter + 0.4) * QUARTER)].astype(int)


def test_notes_are_where_they_sound_and_nowhere_else():
    picture = roll([[HIGH, LOW]], 4.0, PITCHES)
    ground = seen(picture, 2, 67)
    assert (seen(picture, 0, 72) == seen(picture, 2, 74)).all()
    assert (seen(picture, 0, 60) == seen(picture, 3, 60)).all()
    assert (seen(picture, 0, 72) != seen(picture, 0, 60)).any()
    assert (seen(picture, 1, 72)[:3] != seen(picture, 0, 72)[:3]).any()
    assert (seen(picture, 0, 74) == ground).all()


def test_the_more_pieces_have_a_note_the_fuller_it_is():
    picture = roll([[HIGH, LOW], [HIGH[:1], LOW], [HIGH[:1], LOW], [[], LOW]], 4.0, PITCHES)
    full = roll([[HIGH, LOW]], 4.0, PITCHES)
    opacity = [seen(picture, *at)[3] for at in ((2, 67), (2, 74), (0, 72), (0, 60))]
    assert opacity == sorted(opacity)
    assert len(set(opacity)) == 4
    assert (seen(picture, 0, 60) == seen(full, 0, 60)).all()


def test_all_pitches_have_room_also_of_silence():
    assert span([[HIGH, LOW], [[]]]) == (58, 76)
    assert roll([[[], []]], 4.0, span([[[], []]])).shape[1] == LEFT + 4 * QUARTER


def test_pieces_stand_on_a_grid(tmp_path):
    write_chorales(tmp_path, 3)
    data = open_dataset(tmp_path)
    x, tokens = data.batch(torch.arange(3)).x, data.geometry.tokens
    one, three = rolled(x[:1], tokens), rolled(x, tokens, columns=2)
    assert three.words
    assert three.width == pytest.approx(2 * one.width, abs=10)
    assert three.height > 1.8 * one.height
