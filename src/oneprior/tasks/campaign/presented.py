"""Events as a score is given them, and what makes two of them the same to it."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from oneprior.data.midi import FORMAT as MUSIC
from oneprior.data.midi import Note, as_notes
from oneprior.data.molecules import FORMAT, as_smiles, canonical
from oneprior.data.one_hot import likeliest, one_hot
from oneprior.data.write import in_units
from oneprior.training import Run

NOTHING = b""
"""The identity of a molecule of no atom, which nobody asks for."""

Event = np.ndarray | str | list[list[Note]]
"""What is scored: an array in the user's units, the SMILES of a molecule, or the notes of each voice of music."""


def presented(run: Run, x: Tensor) -> list[Event]:
    """Events as a score is given them.

    Args:
        run: whose events.
        x: (n, *event_shape) in [-1, 1].
    """
    if run.geometry.format == FORMAT:
        return list(as_smiles(x, run.geometry.tokens))
    if run.geometry.format == MUSIC:
        return list(as_notes(x, run.geometry.tokens))
    return list(run.to_units(x).numpy())


def identities(run: Run, x: Tensor) -> list[bytes]:
    """What events that are stored alike, or are one molecule, have in common; (n, *event_shape) -> n of them."""
    if run.geometry.format == FORMAT:
        return [one.encode() for one in canonical(as_smiles(x, run.geometry.tokens))]
    return [row.tobytes() for row in in_units(x, run.units, run.geometry)]


def settled(run: Run, x: Tensor) -> Tensor:
    """Events of tokens with the likeliest at every place, in [-1, 1]; others as they are."""
    if not run.geometry.tokens:
        return x
    groups = run.geometry.groups
    return one_hot(likeliest(x, groups), x.shape[1] // groups).to(x)
