"""The folder of results of `oneprior restore`: what is finished there, what failed, and how it was begun.

`.restore/` in it holds the settings of the run, why files failed, and, for the several events of one file, what is
finished until all are and the archive of the whole is written. A folder that holds a finished image is gone on with or
left alone, never begun again. Nothing here imports torch at once, so that this is known before any work.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneprior.apps.command import Mistake
from oneprior.apps.record import check_place, plain, read

if TYPE_CHECKING:
    from oneprior.apps.command import Command
    from oneprior.apps.restore_inputs import Item
    from oneprior.tasks import Restoration

FIGURES, STATE = "figures.json", ".restore"


@dataclass(frozen=True)
class Place:
    """The folder of results.

    Args:
        folder: of `--out`.
        many: whether each event has a folder of its own.
    """

    folder: Path
    many: bool = False

    @property
    def state(self) -> Path:
        """What is needed to go on."""
        return self.folder / STATE

    def settings(self) -> dict[str, Any] | None:
        """With which settings the folder was begun; None where it was not, or not by `restore`."""
        return _read_json(self.state / "settings.json") or None

    def check(self, command: Command, resume: bool, settings: Mapping[str, Any]) -> None:
        """Raises `Mistake` where results would be lost, mixed, or written among other files.

        Args:
            command: that asks for the folder.
            resume: whether what is there is to be gone on with.
            settings: of the run, as of `begin`.
        """
        begun, count = self.settings(), self.count()
        if begun is None:
            check_place(self.folder, command)
            if read(self.folder):
                raise Mistake(
                    f"{self.folder} holds a restoration that cannot be gone on with, since {STATE} is gone from it: "
                    "give another --out"
                )
        elif resume:
            if other := [k for k in settings if begun.get(k) != settings[k]]:
                told = ", ".join(f"--{k.replace('_', '-')} {begun.get(k)}" for k in other)
                raise Mistake(
                    f"{self.folder} was begun with {told}: --resume needs the same command, or give another --out"
                )
        elif count:
            raise Mistake(
                f"{self.folder} holds a restoration ({count} image{'s' * (count > 1)} finished): go on with --resume, "
                "or give another --out"
            )

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start a run, where nothing is finished."""
        shutil.rmtree(self.state, ignore_errors=True)
        _write_json(self.state / "settings.json", settings)

    def undo(self) -> None:
        """Leave no trace of a run in which nothing was finished."""
        if not self.count():
            shutil.rmtree(self.state, ignore_errors=True)
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def end(self) -> None:
        """All is written: the events of one file are in the one archive."""
        if not self.many and not self.ended:
            (self.state / "ended").write_text(f"{self.count()}\n", encoding="utf-8")
        for path in self.state.glob("*.npz"):
            path.unlink()

    def count(self) -> int:
        """How many images are finished, whether of a folder or of one file."""
        if (self.state / "ended").exists():
            return int((self.state / "ended").read_text(encoding="utf-8").strip() or 1)
        return len([*self.folder.glob(f"*/{FIGURES}"), *self.state.glob("*.npz")])

    def archive(self, name: str) -> Path:
        """Where the archive of one event stands."""
        return self.folder / name / "restoration.npz" if self.many else self.state / f"{name}.npz"

    def finished(self, name: str) -> bool:
        """Whether an event is there, whole."""
        if self.many:
            return bool(self.figures(name))
        return self.ended or self.archive(name).is_file()

    @property
    def ended(self) -> bool:
        """Whether all events of one file are in the one archive."""
        return not self.many and (self.state / "ended").exists()

    def save(self, name: str, file: str, event: Restoration) -> None:
        """Write one finished event; with its figures the event is there."""
        from oneprior.apps.restored import figures_of_events, keep, write_restoration

        if not self.many:
            keep(event, self.archive(name))
            return
        write_restoration(event, self.folder / name)
        facts = {"name": name, "file": file, **figures_of_events(event)[0]}
        _write_json(self.folder / name / FIGURES, plain(facts))

    def figures(self, name: str) -> dict[str, Any]:
        """The figures of an event of a folder; empty where there are none."""
        return _read_json(self.folder / name / FIGURES)

    def fail(self, item: Item, reason: str) -> None:
        """Note why an item came to nothing."""
        _write_json(self.state / "failed" / f"{item.stem or 'input'}.json", {"file": item.name, "reason": reason})

    def failed(self) -> dict[str, str]:
        """The items that came to nothing, and why."""
        notes = [_read_json(path) for path in sorted((self.state / "failed").glob("*.json"))]
        return {note["file"]: note["reason"] for note in notes}

    def forget(self) -> None:
        """Leave the failures behind: they are tried again."""
        shutil.rmtree(self.state / "failed", ignore_errors=True)

    def names(self) -> list[str]:
        """The finished events: by the names of their folders, or the numbers of those of one file."""
        from oneprior.data.files import natural

        if self.ended:
            return [f"{k:04d}" for k in range(self.count())]
        if not self.many:
            return sorted(path.stem for path in self.state.glob("*.npz"))
        there = sorted((path.parent.name for path in self.folder.glob(f"*/{FIGURES}")), key=natural)
        return [name for name in there if self.finished(name)]


def _read_json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where it is missing, or another's."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    from oneprior.core import replacing

    with replacing(path) as draft:
        draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
