"""The zoo: small trained priors that come with the package, each a run folder of its own.

A prior is worth most where nobody has to train it first. An entry is a run folder (`training.folder`) whose tensors are
stored in half precision, with what a stranger needs before using it (Mitchell et al. 2019, "Model Cards for Model
Reporting", arXiv:1810.03993): what it was trained on and by whom that was given, under which licence, how it was
prepared, what it leaves out, how long it took on what, what was measured, and the checksum of every file.

    zoo/NAME/config.json, model.safetensors, moments.safetensors, residual.safetensors, guide/     the run
    zoo/NAME/zoo.json                                                                              `Entry`
    zoo/NAME/card.md                                                                               the same for people
    zoo/NAME/examples/*.png                                                                        pictures to try it on

`zoo:NAME` is a path to it wherever a run is asked for: `oneprior.load("zoo:chest-mixture")`. Weights learned from data
that are shared under a share-alike licence are shared under the same one. Entries are made by `training.publication`,
and remade from their `Recipe` by `oneprior zoo train`. Nothing here imports torch, so that a list is there at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PREFIX = "zoo:"
"""What the name of an entry begins with, where a path to a run may stand too."""
FACTS = "zoo.json"
EXAMPLES = "examples"
FORMAT = 1


@dataclass(frozen=True)
class Facts:
    """What no run knows of itself, and a person has to say before it is shared.

    Args:
        title: the entry in half a line.
        domain: what its events show, in a word; entries of one domain were trained on the same events.
        data: the name of the data.
        licence: of the data, and so of the weights: an SPDX identifier, such as "CC-BY-SA-4.0".
        credit: whom the licence asks to name.
        source: where the data come from.
        citation: the paper of the data, or how they ask to be cited.
        prepared: what was done to the data, which their licence asks to be said.
        leaves_out: what the data do not show, so that the prior does not know it.
        examples: what the pictures are that come with the entry, to try it on.
    """

    title: str
    domain: str
    data: str
    licence: str
    credit: str
    source: str
    citation: str
    prepared: str
    leaves_out: str
    examples: str = ""

    @property
    def share_alike(self) -> bool:
        """Whether what is made of the data has to be shared under their licence."""
        return share_alike(self.licence)

    @property
    def owed(self) -> str:
        """The data with their licence, and whom it asks to name, for a page."""
        return f"{self.data} ({self.licence}; {self.credit})"


def share_alike(licence: str) -> bool:
    """Whether a licence, an SPDX identifier, asks that what is made of the data is shared under it."""
    return "-SA-" in licence.upper()


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        name: what was measured, on how many events, how.
        value: the number.
        unit: of it.
        standard_error: of it; None where it is exact or unknown.
        source: the file of benchmarks/results that it comes from.
    """

    name: str
    value: float
    unit: str = ""
    standard_error: float | None = None
    source: str = ""

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        return f"{self.value:.4g}{error} {self.unit}".strip()


@dataclass(frozen=True)
class Recipe:
    """How the prior is trained again.

    Args:
        family: of the model.
        settings: of `oneprior.train`, those that are not its defaults; the budget in images, which is the same work
            on any machine.
        size: the space of an event, to which data are brought.
        channels: "grey" or "rgb"; empty for the data's own.
        labels: whether labels are learned.
        subject: the subject in a file's name, a regular expression; empty where each file is one.
    """

    family: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, ...] = ()
    channels: str = ""
    labels: bool = False
    subject: str = ""


@dataclass(frozen=True)
class Entry:
    """One prior of the zoo, as its zoo.json says.

    Args:
        folder: of the entry, which is a run.
        facts: of the data.
        recipe: of the training.
        event_shape: (channels, *space) of one event.
        seed: of the training.
        cost: "seconds", "cpu_minutes", "images" and "hardware" of the training, as far as they are known.
        figures: what was measured, the telling one first.
        relative_error: how far half precision moves what the prior draws, as a share of the draws' deviation.
        files: the SHA-256 of every other file, by its path within the folder.
    """

    folder: Path
    facts: Facts
    recipe: Recipe
    event_shape: tuple[int, ...]
    seed: int
    cost: Mapping[str, Any]
    figures: tuple[Figure, ...]
    relative_error: float
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """After `zoo:`."""
        return self.folder.name

    @property
    def examples(self) -> tuple[Path, ...]:
        """Pictures of a few events to try it on, none of which it has seen; see `Facts.examples`."""
        return tuple(sorted((self.folder / EXAMPLES).glob("*.png")))

    @property
    def megabytes(self) -> float:
        """Of all its files, in millions of bytes."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()) / 1e6

    def to_json(self) -> str:
        """The content of zoo.json."""
        from oneprior import __version__

        body = {k: v for k, v in asdict(self).items() if k != "folder"}
        head = {"oneprior": __version__, "format": FORMAT, "name": self.name}
        return json.dumps({**head, **body}, indent=2, ensure_ascii=False, default=str) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Entry:
        """From `folder`/zoo.json.

        Raises:
            BadRunError: missing, damaged, or of a newer format.
        """
        from oneprior.core import BadRunError

        path = folder / FACTS
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            if body["format"] > FORMAT:
                raise BadRunError(f"{path} has format {body['format']}, and this version reads up to {FORMAT}")
            recipe = {**body["recipe"], "size": tuple(body["recipe"]["size"])}
            return cls(
                folder=folder,
                facts=Facts(**body["facts"]),
                recipe=Recipe(**recipe),
                event_shape=tuple(body["event_shape"]),
                seed=body["seed"],
                cost=body["cost"],
                figures=tuple(Figure(**one) for one in body["figures"]),
                relative_error=body["relative_error"],
                files=body["files"],
            )
        except BadRunError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadRunError(
                f"{path} is missing or damaged ({error!r}); install oneprior again, or publish the entry again"
            ) from None

    def check(self) -> None:
        """That every file is there and as it was published.

        Raises:
            BadRunError: names the first that is not.
        """
        from oneprior.core import BadRunError

        for name, known in self.files.items():
            path = self.folder / name
            if not path.is_file() or checksum(path) != known:
                state = "is missing" if not path.is_file() else "is not the file that was published"
                raise BadRunError(f"{path} {state}; install oneprior again")


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def zoo_folder() -> Path:
    """Where the entries lie that come with the package."""
    return Path(__file__).resolve().parents[1] / "zoo"


def entries(zoo: Path | None = None) -> list[Entry]:
    """All entries, by name.

    Args:
        zoo: a folder of entries; the package's own where None.
    """
    place = zoo or zoo_folder()
    return [Entry.read(place / name) for name in names(place)]


def names(zoo: Path | None = None) -> list[str]:
    """The names of all entries."""
    return sorted(path.parent.name for path in (zoo or zoo_folder()).glob(f"[!.]*/{FACTS}"))


def entry(name: str, zoo: Path | None = None) -> Entry:
    """One entry, by its name with or without `zoo:`.

    Raises:
        InputError: there is none of this name; says which there are.
    """
    from oneprior.core import InputError

    zoo, short = zoo or zoo_folder(), name.removeprefix(PREFIX)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", short) or not (zoo / short / FACTS).is_file():
        there = ", ".join(names(zoo)) or "none: it is empty"
        raise InputError(f"the zoo has no {short!r}; there is {there} (see oneprior zoo list)")
    return Entry.read(zoo / short)


def located(path: str | Path) -> Path:
    """The folder of a run: that of an entry for `zoo:NAME`, else the path itself.

    Raises:
        InputError: the zoo has no such entry.
    """
    words = str(path)
    return entry(words).folder if words.startswith(PREFIX) else Path(path).expanduser()


def name_of(folder: Path) -> str:
    """How a run is called: `zoo:NAME` for an entry of the package, else its path."""
    inside = folder.parent == zoo_folder() and (folder / FACTS).is_file()
    return f"{PREFIX}{folder.name}" if inside else str(folder)
