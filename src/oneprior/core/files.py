"""A file is there whole or not at all: it is written under another name, and renamed when it is finished.

A rename within a folder is atomic, so that a reader sees the old file or the new one and never half of one; a process
that is killed in between leaves a hidden `.tmp` file and no damage.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path | str, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, with the same suffixes, which takes its place when the block ends well.

    Args:
        path: the file to be; its folder is made where it is missing.
        durable: whether to wait for the disk, so that the file outlives a power cut; some milliseconds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # some libraries make their files private
        yield temporary
        temporary.chmod(mode)
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
        if durable:
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
