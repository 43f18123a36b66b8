"""Measures of music, on pieces whose scale, range and voices are known."""

import numpy as np
import pytest
import torch

from oneprior.core import InputError
from oneprior.data import open_dataset
from oneprior.data.chorales import write_chorales
from oneprior.data.midi import HOLD, Note, on_grid, tokens_of
from oneprior.evaluation.specifications import Outputs, music, suite_from

LOW, HIGH = 48, 84
TOKENS = tokens_of(2, LOW, HIGH)


def piece(*voices) -> Outputs:
    """One output of two voices."""
    lines = np.stack([on_grid(notes, 16) for notes in voices])
    lines = np.where(lines > HOLD, lines - LOW, lines)
    x = lines[:, None] == np.arange(HIGH - LOW + 3)[:, None]
    return Outputs(torch.from_numpy(x.reshape(1, -1, 16)).float() * 2 - 1, tokens=TOKENS)


UPPER = [Note(0, 1, 74), Note(1, 1, 76), Note(2, 1, 78), Note(3, 1, 79)]  # D E F# G: of D or G major
LOWER = [Note(0, 2, 50), Note(2, 2, 60)]


def test_known_pieces():
    one = piece(UPPER, LOWER)
    assert music.in_scale(one).tolist() == [1]
    assert music.in_scale(one, key="D").tolist() == [pytest.approx(5 / 6)]  # C is not in D major
    assert music.in_scale(one, key="C").tolist() == [pytest.approx(5 / 6)]  # nor F sharp in C
    assert music.lowest_note(one).tolist() == [50]
    assert music.lowest_note(one, voice=1).tolist() == [74]
    assert music.highest_note(one).tolist() == [79]
    assert music.highest_note(one, voice=2).tolist() == [60]
    assert music.notes(one).tolist() == [6]
    assert music.crossings(one).tolist() == [0]
    assert music.crossings(piece(LOWER, UPPER)).tolist() == [1]
    crossed = piece([Note(0, 2, 60), Note(2, 2, 50)], [Note(0, 4, 55)])
    assert music.crossings(crossed).tolist() == [0.5]
    empty = piece([], [])
    assert music.in_scale(empty).tolist() == [1]
    assert (music.lowest_note(empty).tolist(), music.highest_note(empty).tolist()) == ([127], [0])


def test_chorales_keep_their_specification_and_noise_does_not(tmp_path):
    rules = [
        {"name": "in a scale", "check": "in_scale", "at_least": 0.99},
        {"name": "a singer reaches it", "check": "lowest_note", "at_least": 41},
        {"name": "nor too high", "check": "highest_note", "at_most": 91},
        {"name": "voices keep their order", "check": "crossings", "at_most": 0.05},
    ]
    data = open_dataset(write_chorales(tmp_path / "set", 40))
    x, suite = data.batch(torch.arange(len(data))).x, suite_from({"checks": rules})
    told = suite.check(Outputs(x, units=data.units, tokens=data.geometry.tokens))
    assert [finding.rate for finding in told[:3]] == [1, 1, 1]
    assert told[3].rate > 0.9
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=x.shape)).float()
    rates = [finding.rate for finding in suite.check(Outputs(noise, tokens=data.geometry.tokens))]
    assert rates[0] == rates[3] == 0


def test_what_is_no_music_is_told():
    with pytest.raises(InputError, match="need music"):
        music.notes(Outputs(torch.zeros(1, 1, 8, 8)))
    with pytest.raises(InputError, match="no key is called 'H'"):
        music.in_scale(piece(UPPER, LOWER), key="H")
    with pytest.raises(InputError, match="voices 1 to 2, and voice 3"):
        music.notes(piece(UPPER, LOWER), voice=3)
