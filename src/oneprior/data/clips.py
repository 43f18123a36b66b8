"""Clips: a moving picture is one event (channels, time, height, width).

It is read from an animated GIF, or from a folder of frames in natural order of their names (`clips=True`); it is
written back as a GIF to look at, or as a folder of frames, which loses nothing.
"""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from oneprior.core import Geometry
from oneprior.data.decoded import BadFileError, Decoded, Reader, guarded
from oneprior.data.files import Files
from oneprior.data.pictures import PICTURES, decode_picture

FRAME_MILLISECONDS = 100


def decode_gif(data: bytes, name: str) -> Decoded:
    """The bytes of a GIF -> (channels, time, height, width) uint8; one frame alone is a picture.

    A GIF has no grey mode that survives animation, so three equal channels are taken as grey.
    """
    with Image.open(io.BytesIO(data)) as image:
        frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)])
    event = np.moveaxis(frames, -1, 0)
    if (event[0] == event[1]).all() and (event[0] == event[2]).all():
        event = event[:1]
    if event.shape[1] == 1:
        return Decoded(np.ascontiguousarray(event[:, 0]), Geometry("uint8", format="gif"))
    return Decoded(np.ascontiguousarray(event), Geometry("uint8", format="clip"))


class FramesReader(Reader):
    """Folders of frames, each folder one clip.

    Args:
        files: the frames of all clips.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        members: dict[str, list[int]] = {}
        for i, name in enumerate(files.names):
            members.setdefault(name.rpartition("/")[0], []).append(i)
        self._members = list(members.values())
        self.names = [folder or files.root.name for folder in members]

    def digest(self) -> str:
        return f"clips/{self._files.digest()}"

    def where(self, i: int) -> str:
        return f"{self._files.root}/{self.names[i]}"

    def decode(self, i: int) -> Decoded:
        frames, kind = [], Geometry()
        for k in self._members[i]:
            where = self._files.where(k)
            decoded = guarded(where, partial(decode_picture, self._files.read(k), where))
            if frames and (decoded.event.shape, decoded.event.dtype) != (frames[0].shape, frames[0].dtype):
                first, here = (f"{e.shape} {e.dtype}" for e in (frames[0], decoded.event))
                raise BadFileError(where, f"this frame is {here}, the first of its clip is {first}")
            frames.append(decoded.event)
            kind = decoded.geometry
        return Decoded(np.stack(frames, axis=1), replace(kind, format="clip"))


def is_frame(name: str) -> bool:
    """Whether a file may be a frame of a clip."""
    return name.lower().endswith(PICTURES)


def encode_gif(clips: np.ndarray, path: Path, milliseconds: int = FRAME_MILLISECONDS) -> None:
    """Write (1 | 3, time, height, width) uint8 as an animated GIF that repeats."""
    frames = [Image.fromarray(f[0] if len(f) == 1 else np.moveaxis(f, 0, -1)) for f in np.moveaxis(clips, 1, 0)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
