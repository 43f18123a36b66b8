"""Chorales made by rule: four voices in a key, to learn music from where no corpus is at hand.

Chords follow one another by the usual harmony of a major key (tonic to anywhere, subdominant to dominant, dominant
home), a quarter note each, eight bars that end on the tonic. The bass takes the root; the upper voices take the nearest
tones of the chord below or above where they were, in their ranges and without crossing; now and then a voice passes
through the step between two of its notes a third apart. Every note lies in the key, by construction.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oneprior.core import replacing
from oneprior.data.midi import Note, write_notes

MAJOR = (0, 2, 4, 5, 7, 9, 11)
RANGES = ((60, 79), (55, 74), (48, 67), (41, 60))
"""Lowest and highest pitch of soprano, alto, tenor and bass."""
_CHORDS = {
    "I": (0, 4, 7),
    "ii": (2, 5, 9),
    "IV": (5, 9, 0),
    "V": (7, 11, 2),
    "vi": (9, 0, 4),
}
_NEXT = {
    "I": ("IV", "V", "vi", "ii"),
    "ii": ("V", "V", "I"),
    "IV": ("V", "I", "ii"),
    "V": ("I", "I", "vi"),
    "vi": ("ii", "IV", "V"),
}


def chorale(rng: np.random.Generator, bars: int = 8) -> list[list[Note]]:
    """The notes of soprano, alto, tenor and bass.

    Args:
        rng: of key, chords and passing notes.
        bars: of four quarters.
    """
    key, chord, chords = int(rng.integers(-3, 4)), "I", []
    for beat in range(4 * bars):
        left = 4 * bars - beat
        chord = "I" if left == 1 or beat == 0 else "V" if left == 2 else str(rng.choice(_NEXT[chord]))
        chords.append(chord)
    lines: list[list[int]] = [[], [], [], []]
    for name in chords:
        tones = [(tone + key) % 12 for tone in _CHORDS[name]]
        bass = _nearest([tones[0]], lines[3][-1] if lines[3] else 48 + key, *RANGES[3])
        lines[3].append(bass)
        below = bass
        for voice in (2, 1, 0):
            low, high = RANGES[voice]
            was = lines[voice][-1] if lines[voice] else (low + high) // 2
            below = _nearest(tones, was, max(low, below + 1), high)
            lines[voice].append(below)
    return [_with_passing(line, key, rng) for line in lines]


def _nearest(tones: list[int], to: int, low: int, high: int) -> int:
    """The pitch of one of some tones that is nearest, within bounds; above them where none is."""
    there = [pitch for pitch in range(low, high + 1) if pitch % 12 in tones]
    there = there or [next(pitch for pitch in range(high + 1, high + 13) if pitch % 12 in tones)]
    return min(there, key=lambda pitch: (abs(pitch - to), pitch))


def _with_passing(line: list[int], key: int, rng: np.random.Generator) -> list[Note]:
    """A quarter a pitch; repeated ones are often held, thirds sometimes filled."""
    scale = {(step + key) % 12 for step in MAJOR}
    notes: list[Note] = []
    for beat, pitch in enumerate(line):
        after = line[beat + 1] if beat + 1 < len(line) else pitch
        between = [p for p in range(min(pitch, after) + 1, max(pitch, after)) if p % 12 in scale]
        if len(between) == 1 and rng.random() < 0.3:
            notes += [Note(beat, 0.5, pitch), Note(beat + 0.5, 0.5, between[0])]
        elif notes and notes[-1].pitch == pitch and notes[-1].start + notes[-1].length == beat and rng.random() < 0.6:
            last = notes.pop()
            notes.append(Note(last.start, last.length + 1, pitch))
        else:
            notes.append(Note(beat, 1.0, pitch))
    return notes


def write_chorales(folder: Path | str, n: int, seed: int = 0, bars: int = 8) -> Path:
    """n chorales as MIDI files in a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(n):
        with replacing(folder / f"chorale-{k:04}.mid") as partial:
            partial.write_bytes(write_notes(chorale(np.random.default_rng([seed, k]), bars)))
    return folder
