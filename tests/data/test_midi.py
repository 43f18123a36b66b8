"""Music read from Standard MIDI Files, one-hot, and written again; what cannot be read is told by its file."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oneprior.core import Geometry, InputError
from oneprior.data import open_dataset, read_events, write_events
from oneprior.data.chorales import MAJOR, RANGES, chorale, write_chorales
from oneprior.data.decoded import BadFileError
from oneprior.data.midi import HOLD, REST, STEP, Note, as_notes, off_grid, on_grid, read_notes, write_notes

TUNE = [Note(0, 1, 60), Note(1, 0.5, 62), Note(2, 2, 64)]

lines = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(0, 127)), min_size=1, max_size=12)


@given(st.lists(lines, min_size=1, max_size=4))
def test_notes_are_written_and_read_again(voices):
    told = []
    for voice in voices:
        notes, at = [], 0.0
        for rest, length, pitch in voice:
            notes.append(Note(at + rest * STEP, length * STEP, pitch))
            at = notes[-1].start + notes[-1].length
        told.append(notes)
    again = read_notes(write_notes(told))
    assert sorted(map(sorted, again)) == sorted(map(sorted, told))
    for notes in told:
        steps = int((notes[-1].start + notes[-1].length) / STEP)
        assert off_grid(on_grid(notes, steps)) == notes


def test_a_step_rests_holds_or_begins_a_pitch():
    line = on_grid(TUNE, 16)
    expected = [62, HOLD, HOLD, HOLD, 64, HOLD, REST, REST, 66, *[HOLD] * 7]
    assert line.tolist() == expected
    assert off_grid(np.array([HOLD, HOLD, 62, REST, HOLD])) == [Note(0.5, 0.25, 60)]  # a hold of nothing is a rest


def test_of_several_notes_at_once_the_highest_is_kept():
    line = on_grid([Note(0, 2, 48), Note(0.5, 0.5, 60)], 8)
    assert line.tolist() == [50, HOLD, 62, HOLD, REST, REST, REST, REST]


def test_files_of_other_programs():
    """Running status, note-on of velocity 0, a tempo, a lyric, a programme change, drums."""
    track = bytes.fromhex(
        "00ff510307a12000ff05046162636400c00500903c40833c3e40003c00833c3e000099244060992400"
    ) + bytes.fromhex("00ff2f00")
    data = b"MThd" + bytes.fromhex("000000060001000101dc") + b"MTrk" + len(track).to_bytes(4, "big") + track
    (voice,) = read_notes(data)
    assert voice == [Note(0, 444 / 476, 60), Note(444 / 476, 444 / 476, 62)]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"RIFF" + data[4:], "does not begin with MThd"),
        (lambda data: data[:40], "cut short"),
        (lambda data: data[:9] + b"\2" + data[10:], "independent patterns"),
        (lambda data: data[:12] + b"\xe7\x28" + data[14:], "film frames"),
        (lambda data: write_notes([[]]), "has no notes"),
    ],
    ids=["another format", "cut", "format 2", "film", "silence"],
)
def test_what_is_no_music_is_told_by_its_file(tmp_path, damage, said):
    (tmp_path / "good.mid").write_bytes(write_notes([TUNE]))
    (tmp_path / "bad.mid").write_bytes(damage(write_notes([TUNE])))
    with pytest.raises(BadFileError, match=f"bad.mid: .*{said}"):
        open_dataset(tmp_path)
    data = open_dataset(tmp_path, skip_bad=True)
    assert list(data.names) == ["good.mid#1"]


@given(st.integers(0, 10_000))
def test_chorales_keep_key_ranges_and_order_of_voices(seed):
    voices = chorale(np.random.default_rng(seed))
    key = int(np.random.default_rng(seed).integers(-3, 4))
    scale = {(step + key) % 12 for step in MAJOR}
    grid = np.stack([on_grid(notes, 128) for notes in voices])
    for notes, (low, high) in zip(voices, RANGES, strict=True):
        assert {note.pitch % 12 for note in notes} <= scale
        assert low <= min(note.pitch for note in notes)
        assert max(note.pitch for note in notes) <= high + 12
    assert (grid != REST).all()


def test_windows_of_a_piece_are_one_hot_and_a_group(tmp_path):
    data = open_dataset(write_chorales(tmp_path / "set", 3))
    assert len(data) == 6  # eight bars are two windows of four
    assert data.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.geometry.groups == 4
    x = data.batch(torch.arange(6)).x
    assert (x.unflatten(1, (4, -1)).sum(2) == 2 - x.shape[1] // 4).all()
    first = chorale(np.random.default_rng([0, 0]))
    told = as_notes(x[:1], data.geometry.tokens)[0]
    assert [n for n in sorted(told[3]) if n.start < 15] == [n for n in sorted(first[3]) if n.start < 15]


def test_what_is_written_is_read_again_in_the_same_words(tmp_path):
    data = open_dataset(write_chorales(tmp_path / "set", 2), size=32)
    x = data.batch(torch.arange(len(data))).x
    (path,) = write_events(x, tmp_path / "tune.mid", data.units, data.geometry)
    told = {"tokens": data.geometry.tokens, "size": 32}
    again = open_dataset(path, **told).batch(torch.arange(len(data))).x
    assert [as_notes(again, told["tokens"])[k] for k in range(8)] == [as_notes(x, told["tokens"])[k] for k in range(8)]
    events, units, geometry = read_events(path, 1, tokens=told["tokens"], size=(32,))
    assert torch.equal(units.to_model(events), again)
    assert geometry.format == "midi"
    assert [p.name for p in write_events(x[:2], tmp_path / "both", data.units, data.geometry)] == [
        "000000.mid",
        "000001.mid",
    ]
    with pytest.raises(InputError, match="are no music"):
        write_events(x, tmp_path / "no.mid", data.units, Geometry())
    high = write_events(x, tmp_path / "high.mid", data.units, data.geometry)[0]
    high.write_bytes(write_notes([[Note(0, 1, 120)]]))
    with pytest.raises(BadFileError, match="has the pitch 120, and the model knows"):
        open_dataset(high, **told)
    high.write_bytes(write_notes([TUNE] * 5))
    with pytest.raises(BadFileError, match="has 5 voices, and the model knows 4"):
        open_dataset(high, **told)
