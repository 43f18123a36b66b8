"""Files that are made once and kept.

What is decoded or unpacked lies in `.oneprior-cache` beside the data, or under `~/.cache/oneprior` where the data's
folder cannot be written. Its name carries a hash of the source's sizes and times and of how it was made, so a changed
source is decoded again; deleting the folder is always safe.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

FOLDER = ".oneprior-cache"
_ABANDONED = 24 * 3600  # seconds


def cache_path(source: Path, recipe: str, stamp: str, suffix: str, folder: Path | None = None) -> Path:
    """Where the product of `source` lies.

    Args:
        source: the file or folder it is made from.
        recipe: how it is made.
        stamp: changes with the source; products of the same recipe with another stamp are removed.
        suffix: of the file's name.
        folder: where to put it, instead of beside the source.
    """
    source = source.resolve()
    folder = folder or _folder(source)
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
    stem = f"{source.name[:60]}-{_hash(str(source) + chr(0) + recipe)}"
    path = folder / f"{stem}-{_hash(stamp)}{suffix}"
    if not path.exists():
        for stale in folder.glob(f"{_escape(stem)}-*{suffix}"):
            stale.unlink(missing_ok=True)
        for left in folder.glob(f".*.tmp.{_escape(stem)}-*"):  # of a process that was killed
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink(missing_ok=True)
    return path


def file_stamp(path: Path) -> str:
    """Size and time of change of one file."""
    status = path.stat()
    return f"{status.st_size}/{status.st_mtime_ns}"


def _folder(source: Path) -> Path:
    home = source if source.is_dir() else source.parent
    if os.access(home, os.W_OK) and home.stat().st_mode & 0o222:  # root may write anywhere, and should not
        return home / FOLDER
    for place in (Path.home() / ".cache", Path(tempfile.gettempdir())):
        own = place / "oneprior"
        try:
            own.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(own, os.W_OK) and own.stat().st_uid == os.getuid():
            return own
    return home / FOLDER


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()


def _escape(stem: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)
