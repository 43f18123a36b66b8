"""Which decoder a file needs, told from its name, and the reader of files that each are one event."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np

from oneprior.core import Geometry
from oneprior.data.clips import decode_gif
from oneprior.data.decoded import Decoded, Reader
from oneprior.data.files import Files
from oneprior.data.layouts import event_layout
from oneprior.data.midi import SUFFIXES as MUSIC
from oneprior.data.pictures import PICTURES, decode_picture
from oneprior.data.volumes import VOLUMES, decode_nifti

Decoder = Callable[[bytes, str], Decoded]


def decode_npy(data: bytes, name: str) -> Decoded:
    """The bytes of a .npy that holds one event, (h, w), (c, h, w), (h, w, c) or a volume."""
    values = np.load(io.BytesIO(data), allow_pickle=False)
    layout = event_layout(values.shape, name)
    event = values[None] if "c" not in layout else np.moveaxis(values, layout.index("c"), 0)
    event = np.ascontiguousarray(event).astype(event.dtype.newbyteorder("="), copy=False)
    return Decoded(event, Geometry(event.dtype.name, format="npy"))


_DECODERS: tuple[tuple[str, tuple[str, ...], Decoder], ...] = (
    ("pictures", PICTURES, decode_picture),
    ("clips", (".gif",), decode_gif),
    ("volumes", VOLUMES, decode_nifti),
    ("arrays", (".npy",), decode_npy),
)


def kind_of(name: str) -> str | None:
    """'pictures', 'clips', 'volumes', 'arrays' or 'music' by the suffix; None for anything else."""
    lower = name.lower()
    if lower.endswith(MUSIC):
        return "music"
    return next((kind for kind, suffixes, _ in _DECODERS if lower.endswith(suffixes)), None)


class FileReader(Reader):
    """Files of one kind, each one event.

    Args:
        files: the files.
        kind: what `kind_of` says of all of them.
    """

    def __init__(self, files: Files, kind: str) -> None:
        self._files = files
        self._decode = next(decode for name, _, decode in _DECODERS if name == kind)
        self._kind = kind
        self.names = files.names
        self.converts = kind == "volumes"

    def where(self, i: int) -> str:
        return self._files.where(i)

    def decode(self, i: int) -> Decoded:
        return self._decode(self._files.read(i), self.where(i))

    def digest(self) -> str:
        return f"{self._kind}/{self._files.digest()}"
