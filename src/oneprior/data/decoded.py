"""What one file becomes: an event, how to write it back, and the reason where it cannot be read.

A file is decoded to values in the user's units (grey levels, Hounsfield units, whatever the file says after its own
slope and intercept), in the smallest type that holds them, with the channel axis first. Scaling to [-1, 1] comes later,
when the range of the whole set is known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from oneprior.core import Geometry, InputError


class BadFileError(InputError):
    """One file is damaged or holds values that are no numbers; `skip_bad` passes over these, and only these."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


@dataclass(frozen=True)
class Decoded:
    """One event as the file has it.

    Args:
        event: (channels, *space), in the user's units.
        geometry: type, spacing and place, to write it back.
        declared: the range of values that the file declares (DICOM's bits stored), or None.
        unit: the name of the unit, or empty.
        orientation: the directions of a volume's axes ("RAS"), or empty.
    """

    event: np.ndarray
    geometry: Geometry = field(default_factory=Geometry)
    declared: tuple[float, float] | None = None
    unit: str = ""
    orientation: str = ""


class Reader(ABC):
    """Things that decode to events one by one, by number, from several threads at once.

    Attributes:
        names: the name of each thing.
        skipped: (name, reason) of what was passed over when the reader was made.
        converts: True where unlike number types may be brought to float32 because the values carry units (volumes);
            False where unlike types mean unlike values (8-bit and 16-bit pictures).
    """

    names: Sequence[str]
    skipped: tuple[tuple[str, str], ...] = ()
    converts: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int, gaps: bool = False) -> Decoded:
        """Thing i, checked for values that are no numbers; raises `BadFileError`. With `gaps` some may be NaN."""
        return guarded(self.where(i), lambda: self.decode(i), gaps)

    @abstractmethod
    def decode(self, i: int) -> Decoded:
        """Decode thing i; may raise anything."""

    @abstractmethod
    def where(self, i: int) -> str:
        """Thing i as an error message should name it."""

    @abstractmethod
    def digest(self) -> str:
        """Changes when any of the files changes."""


def guarded(where: str, decode: Callable[[], Decoded], gaps: bool = False) -> Decoded:
    """Decode, and turn whatever the format's library raises into a `BadFileError` that names the file.

    The libraries raise nearly every built-in exception on damaged files, hence the wide net.

    Args:
        where: names the file.
        decode: reads it.
        gaps: whether some of the values may be NaN: gaps, of which the caller knows.
    """
    try:
        decoded = decode()
    except InputError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify image file" in reason:
            reason = "not a picture that can be read (empty, damaged, or of another format)"
        raise BadFileError(where, reason) from error
    event = decoded.event
    if event.size == 0:
        raise BadFileError(where, f"holds no values (shape {event.shape})")
    if event.dtype.kind == "f":
        wrong, gap = event.size - int(np.isfinite(event).sum()), int(np.isnan(event).sum()) if gaps else 0
        if wrong > gap or gap == event.size:
            raise BadFileError(where, f"{wrong} of {event.size} values are NaN or infinite; mend them or leave it out")
    elif event.dtype.kind not in "biu":
        raise BadFileError(where, f"holds values of type {event.dtype}, needed are real numbers")
    return decoded
