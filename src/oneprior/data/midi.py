"""Music: a piece is voices of notes on a grid of time, one-hot, (voices x tokens, steps).

A Standard MIDI File (1.0, formats 0 and 1) is read into voices, one for each track and channel that has notes, the
highest first. Each voice says one token at each step: it rests, holds the note of the step before, or begins a pitch.
Where a voice of the file sounds several notes at once, the highest is kept. Time is counted in quarter notes and put
on a grid of sixteenths; tempo is not kept, and written as 120 quarters a minute.

A piece longer than an event is cut into windows, of which a last one that is not full is left out. Windows of one file
are one group, so that none is held out while its neighbour is learned from.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oneprior.core import Geometry, InputError
from oneprior.data.decoded import BadFileError, Decoded, Reader, guarded
from oneprior.data.files import Files
from oneprior.data.one_hot import likeliest

FORMAT = "midi"
SUFFIXES = (".mid", ".midi")
STEP = 0.25
"""Quarter notes of one step."""
STEPS = 64
"""Steps of an event, where no size is asked for: four bars of four quarters."""
REST, HOLD = 0, 1
_TICKS, _TEMPO, _VELOCITY = 480, 500_000, 80


@dataclass(frozen=True, order=True)
class Note:
    """One note.

    Args:
        start: in quarter notes from the beginning of the piece.
        length: in quarter notes.
        pitch: MIDI number, 60 for middle C.
    """

    start: float
    length: float
    pitch: int


def read_notes(data: bytes) -> list[list[Note]]:
    """The bytes of a Standard MIDI File -> the notes of each voice, the highest voice first.

    Raises:
        ValueError: for what is no such file.
    """
    if data[:4] != b"MThd" or len(data) < 14:
        raise ValueError("not a Standard MIDI File (it does not begin with MThd)")
    size, kind, tracks, division = struct.unpack(">IHHH", data[4:14])
    if kind == 2 or division & 0x8000 or not division:
        raise ValueError("a MIDI file of independent patterns or of film frames; needed is one in quarter notes")
    found: dict[tuple[int, int], list[Note]] = {}
    place = 8 + size
    for track in range(tracks):
        if data[place : place + 4] != b"MTrk":
            raise ValueError(f"cut short: track {track + 1} of {tracks} is missing")
        (length,) = struct.unpack(">I", data[place + 4 : place + 8])
        end = place + 8 + length
        if end > len(data):
            raise ValueError(f"cut short: track {track + 1} has {len(data) - place - 8} of {length} bytes")
        for channel, note in _track(data[place + 8 : end], division):
            found.setdefault((track, channel), []).append(note)
        place = end
    voices = [sorted(notes) for notes in found.values()]
    return sorted(voices, key=lambda notes: -sum(note.pitch for note in notes) / len(notes))


def _track(data: bytes, division: int) -> Iterator[tuple[int, Note]]:
    """The channel and the note of each pair of note-on and note-off; drums (channel 10) are left out."""
    sounding: dict[tuple[int, int], float] = {}
    place, time, status = 0, 0, 0
    while place < len(data):
        wait, place = _number(data, place)
        time += wait
        if data[place] & 0x80:
            status, place = data[place], place + 1
        if status in (0xFF, 0xF0, 0xF7):  # what is said beside the notes
            place += status == 0xFF
            length, place = _number(data, place)
            place += length
            continue
        kind, channel = status & 0xF0, status & 0x0F
        first = data[place]
        second = data[place + 1] if kind not in (0xC0, 0xD0) else 0
        place += 1 if kind in (0xC0, 0xD0) else 2
        if kind not in (0x80, 0x90) or channel == 9:
            continue
        began = sounding.pop((channel, first), None)
        now = time / division
        if began is not None and now > began:
            yield channel, Note(began, now - began, first)
        if kind == 0x90 and second:
            sounding[channel, first] = now


def _number(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where the next thing begins."""
    value = 0
    while True:
        byte = data[place]
        value, place = value << 7 | byte & 0x7F, place + 1
        if not byte & 0x80:
            return value, place


def write_notes(voices: Sequence[Sequence[Note]]) -> bytes:
    """Notes of each voice -> the bytes of a Standard MIDI File, format 1, a track a voice."""
    tracks = [b"\x00\xff\x51\x03" + _TEMPO.to_bytes(3, "big")]
    for k, notes in enumerate(voices):
        channel = k % 16 if k % 16 < 9 else (k + 1) % 16  # past the drums
        events = [(round(n.start * _TICKS), 1, 0x90 | channel, n.pitch, _VELOCITY) for n in notes]
        events += [(round((n.start + n.length) * _TICKS), 0, 0x80 | channel, n.pitch, 0) for n in notes]
        said, time = b"", 0
        for tick, _, *message in sorted(events):  # a note ends before the next begins
            said += _spelled(tick - time) + bytes(message)
            time = tick
        tracks.append(said)
    out = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), _TICKS)
    for said in tracks:
        whole = said + b"\x00\xff\x2f\x00"
        out += b"MTrk" + struct.pack(">I", len(whole)) + whole
    return out


def _spelled(value: int) -> bytes:
    """A number, seven bits a byte."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def on_grid(notes: Sequence[Note], steps: int) -> np.ndarray:
    """One voice as a token for each step: `REST`, `HOLD`, or 2 + pitch; (steps,) int64."""
    line = np.zeros(steps, dtype=np.int64)
    for note in sorted(notes, key=lambda n: n.pitch):  # the highest is written last, over the others
        first, last = round(note.start / STEP), round((note.start + note.length) / STEP)
        if first < steps:
            line[first : max(last, first + 1)] = HOLD
            line[first] = 2 + note.pitch
            after = max(last, first + 1)
            if after < steps and line[after] == HOLD:  # what it cut off does not go on
                ends = after + int(np.argmax(np.append(line[after:], REST) != HOLD))
                line[after:ends] = REST
    return line


def off_grid(line: np.ndarray) -> list[Note]:
    """The notes that the tokens of one voice say; a hold of nothing is a rest."""
    notes: list[Note] = []
    sounding = False
    for k, token in enumerate(line.tolist()):
        if token == HOLD and sounding:
            last = notes[-1]
            notes[-1] = Note(last.start, last.length + STEP, last.pitch)
        elif token > HOLD:
            notes.append(Note(k * STEP, STEP, token - 2))
        sounding = token > HOLD or (token == HOLD and sounding)
    return notes


def tokens_of(voices: int, low: int, high: int) -> tuple[str, ...]:
    """What the channels stand for: of each voice, by its number, rest, hold and its pitches."""
    return tuple(f"{v}:{word}" for v in range(voices) for word in ("rest", "hold", *range(low, high + 1)))


class MidiReader(Reader):
    """Windows of pieces, each one event of Booleans, (voices x tokens, steps).

    Args:
        files: the pieces.
        tokens: that a model knows; those of the set where empty.
        steps: of an event.
        skip_bad: pass over files that cannot be read.

    Attributes:
        piece: the number of the file of each window, (n,).

    Raises:
        BadFileError: for a file that is no music, or needs a pitch or a voice that the tokens do not have.
    """

    def __init__(
        self, files: Files, tokens: Sequence[str] = (), steps: int | None = None, skip_bad: bool = False
    ) -> None:
        self._files, steps = files, steps or STEPS
        self._digest = f"midi/{steps}/{','.join(tokens)}/{files.digest()}"
        known = known_pitches(tokens)
        lines: list[np.ndarray] = []
        names: list[str] = []
        piece: list[int] = []
        skipped: list[tuple[str, str]] = []
        for i, name in enumerate(files.names):
            try:
                voices = self._voices(i, known)
            except BadFileError as error:
                if not skip_bad:
                    raise
                skipped.append((name, error.reason))
                continue
            last = max(note.start + note.length for notes in voices for note in notes)
            windows = max(1, int(last / STEP) // steps)
            whole = np.stack([on_grid(notes, windows * steps) for notes in voices])
            lines += np.split(whole, windows, axis=1)
            names += [f"{name}#{k + 1}" for k in range(windows)]
            piece += [i] * windows
        if not lines:
            raise InputError(f"{files.root}: holds no music that can be read")
        pitches = np.concatenate([line[line > HOLD] for line in lines]) - 2
        count = known[0] if known else max(len(line) for line in lines)
        low, high = known[1:] if known else (int(pitches.min()), int(pitches.max()))
        self.tokens = tuple(tokens) or tokens_of(count, low, high)
        self.piece, self.names, self.skipped = np.array(piece), names, tuple(skipped)
        self._lines = np.zeros((len(lines), count, steps), dtype=np.int64)
        for row, line in zip(self._lines, lines, strict=True):
            row[: len(line)] = np.where(line > HOLD, line - low, line)
        self._each = high - low + 3

    def _voices(self, i: int, known: tuple[int, int, int] | None) -> list[list[Note]]:
        where = self._files.where(i)
        try:
            voices = read_notes(self._files.read(i))
        except (ValueError, IndexError, struct.error) as error:
            raise BadFileError(where, str(error) if isinstance(error, ValueError) else "cut short") from None
        if not voices:
            raise BadFileError(where, "has no notes")
        if known:
            count, low, high = known
            if len(voices) > count:
                raise BadFileError(where, f"has {len(voices)} voices, and the model knows {count}")
            strange = next((n.pitch for v in voices for n in v if not low <= n.pitch <= high), None)
            if strange is not None:
                raise BadFileError(where, f"has the pitch {strange}, and the model knows {low} to {high}")
        return voices

    def where(self, i: int) -> str:
        return f"{self._files.root}/{self.names[i]}"

    def digest(self) -> str:
        return self._digest

    def decode(self, i: int) -> Decoded:
        event = self._lines[i][:, None] == np.arange(self._each)[:, None]
        geometry = Geometry("bool", spacing=(STEP,), format=FORMAT, tokens=self.tokens)
        return guarded(self.where(i), lambda: Decoded(event.reshape(-1, event.shape[-1]), geometry))


def known_pitches(tokens: Sequence[str]) -> tuple[int, int, int] | None:
    """Voices, lowest and highest pitch of tokens; None where they are not of music."""
    if not tokens or ":" not in tokens[0]:
        return None
    last = int(tokens[-1].partition(":")[0])
    pitches = [int(word.partition(":")[2]) for word in tokens if word[-1].isdigit()]
    return last + 1, min(pitches), max(pitches)


def as_notes(x: Tensor, tokens: Sequence[str]) -> list[list[list[Note]]]:
    """The music of events: of each, the notes of its voices.

    Args:
        x: (n, voices x tokens, steps); the largest entry of a voice counts.
        tokens: what the channels stand for.
    """
    known = known_pitches(tokens)
    assert known is not None
    voices, low, _ = known
    lines = likeliest(x, voices)
    lines = torch.where(lines > HOLD, lines + low, lines).cpu().numpy()
    return [[off_grid(line) for line in event] for event in lines]


def encode_midi(x: Tensor, path: Path, geometry: Geometry) -> None:
    """Write events, one after the other, as one piece."""
    steps, together = x.shape[-1], None
    for k, voices in enumerate(as_notes(x, geometry.tokens)):
        moved = [[Note(n.start + k * steps * STEP, n.length, n.pitch) for n in notes] for notes in voices]
        together = moved if together is None else [[*a, *b] for a, b in zip(together, moved, strict=True)]
    path.write_bytes(write_notes(together or []))
