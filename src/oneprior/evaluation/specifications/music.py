"""Measures of music: scale, range, number of notes, order of the voices; of events of `data.midi`.

All look at the tokens that are the largest of their voice at each step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.data.chorales import MAJOR
from oneprior.data.midi import HOLD, known_pitches
from oneprior.data.one_hot import likeliest
from oneprior.evaluation.specifications.outputs import Outputs

_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")


def in_scale(outputs: Outputs, key: str | None = None) -> Tensor:
    """Share of the notes of an output that lie in a major scale: in that of `key` ("D", "Bb"), else in its best one.

    The natural minor scale of a key is the major one three half tones above it. 1 for an output without notes.
    """
    onset, pitch = _onsets(outputs)
    classes = torch.nn.functional.one_hot((pitch % 12).clamp_min(0), 12) * onset[..., None]
    count = classes.flatten(1, 2).sum(1).double()  # (n, 12) notes of each pitch class
    scale = torch.zeros(12, 12, dtype=torch.float64)
    for tonic in range(12):
        scale[tonic, [(tonic + step) % 12 for step in MAJOR]] = 1
    if key is not None:
        if key not in _NAMES:
            raise InputError(f"in_scale: no key is called {key!r}; there are {', '.join(_NAMES)}")
        scale = scale[_NAMES.index(key)][None]
    inside = (count @ scale.T.to(count.device)).amax(1)
    return torch.where(count.sum(1) > 0, inside / count.sum(1).clamp_min(1), torch.ones_like(inside))


def lowest_note(outputs: Outputs, voice: int = 0) -> Tensor:
    """The lowest pitch that begins, as a MIDI number; of one voice (from 1, the highest) or of all. 127 for none."""
    onset, pitch = _onsets(outputs, voice)
    return torch.where(onset, pitch, 127).flatten(1).amin(1).double()


def highest_note(outputs: Outputs, voice: int = 0) -> Tensor:
    """The highest pitch that begins, as a MIDI number; of one voice or of all. 0 for none."""
    onset, pitch = _onsets(outputs, voice)
    return torch.where(onset, pitch, 0).flatten(1).amax(1).double()


def notes(outputs: Outputs, voice: int = 0) -> Tensor:
    """How many notes begin; of one voice or of all."""
    return _onsets(outputs, voice)[0].flatten(1).sum(1).double()


def crossings(outputs: Outputs) -> Tensor:
    """Share of the steps at which a voice sounds below one that is lower by its number."""
    onset, pitch = _onsets(outputs)
    tokens = _tokens(outputs)
    sounding = torch.zeros_like(pitch)
    now = torch.zeros_like(pitch[..., 0])
    for k in range(pitch.shape[2]):  # steps follow one another: what is held began before
        rests = tokens[..., k] < HOLD
        now = torch.where(onset[..., k], pitch[..., k], torch.where(rests, torch.zeros_like(now), now))
        sounding[..., k] = now
    above, below = sounding[:, :-1], sounding[:, 1:]
    crossed = ((above > 0) & (below > 0) & (above < below)).any(1)
    return crossed.double().mean(1)


def _tokens(outputs: Outputs) -> Tensor:
    """The token of each voice at each step, (n, voices, steps)."""
    known = known_pitches(outputs.tokens)
    if known is None:
        raise InputError("measures of music need music: events read from MIDI files")
    return likeliest(outputs.x, known[0])


def _onsets(outputs: Outputs, voice: int = 0) -> tuple[Tensor, Tensor]:
    """Where notes begin, (n, voices, steps) bool, and their pitches there, int64."""
    tokens, known = _tokens(outputs), known_pitches(outputs.tokens)
    assert known is not None
    if not 0 <= voice <= known[0]:
        raise InputError(f"there are voices 1 to {known[0]}, and voice {voice} was asked for")
    tokens = tokens if voice == 0 else tokens[:, voice - 1 : voice]
    return tokens > HOLD, tokens - HOLD - 1 + known[1]
