"""Molecules: each is a sequence of tokens, one-hot, (tokens, length).

They are read from SMILES, one to a line or in a column of a table, and written as SMILES. In between they are SELFIES
(Krenn, Häse, Nigam, Friederich, Aspuru-Guzik 2020), of which every sequence of tokens is a molecule that can exist: so
whatever a generator draws can be read. A sequence ends at its first [nop]; what is behind it is filled up with [nop].

The tokens and the length are those of the set that a model was trained on; another set is read with the same ones
(`tokens=`, `size=`), and a molecule that needs others is refused by its line.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from oneprior.core import Geometry, InputError
from oneprior.data.decoded import BadFileError, Decoded, Reader

END = "[nop]"
FORMAT = "selfies"
_LINES = (".smi", ".smiles", ".selfies")
_TABLES = (".csv", ".tsv")
_HEAD = 1 << 16
"""Bytes of the first line that are looked at."""


def is_molecules(place: Path, key: str | None) -> bool:
    """Whether a file holds molecules: lines of SMILES or SELFIES, or a table with a column of SMILES."""
    if _suffix(place) in _LINES:
        return place.is_file()
    return (key or "smiles").lower() in [name.lower() for name in columns_of(place)]


def columns_of(place: Path) -> list[str]:
    """The names of the columns of a table, as its first line has them; none of what is no table."""
    if _suffix(place) not in _TABLES or not place.is_file():
        return []
    return [name.strip() for name in next(_cells(_head(place).strip()), [])]


class MoleculeReader(Reader):
    """The molecules of a file, each one event of Booleans, (tokens, length).

    Args:
        place: the file: .smi, .smiles, .selfies, .csv or .tsv, packed with gzip or not.
        key: the column of a table; "smiles" by default.
        tokens: that a molecule may have, [nop] the first; those of the file where empty.
        length: of every sequence; that of the longest where None.
        skip_bad: pass over lines that cannot be read.

    Raises:
        InputError: where `selfies` is not installed, or the file holds no molecule.
        BadFileError: for a line that is no molecule, or does not fit; names it.
    """

    def __init__(
        self,
        place: Path,
        key: str | None,
        tokens: Sequence[str] = (),
        length: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        self._place, text = place, _text(place)
        self._digest = hashlib.sha256(f"{key} {tokens} {length} {text}".encode()).hexdigest()
        found, skipped = [], []
        for number, line in _molecules(place, text, key):
            try:
                found.append((number, _tokenised(line, f"{place}, line {number}", place)))
            except BadFileError as error:
                if not skip_bad:
                    raise
                skipped.append((f"line {number}", error.reason))
        if not found:
            raise InputError(f"{place} holds no molecule that can be read")
        every = {token for _, parts in found for token in parts}
        self.tokens = tuple(tokens) or (END, *sorted(every - {END}))
        self.length = length or max(len(parts) for _, parts in found)
        known = {token: k for k, token in enumerate(self.tokens)}
        fits = [self._misfit(parts, known) for _, parts in found]
        for (number, _), why in zip(found, fits, strict=True):
            if why and not skip_bad:
                raise BadFileError(f"{place}, line {number}", why)
            skipped += [(f"line {number}", why)] if why else []
        kept = [one for one, why in zip(found, fits, strict=True) if not why]
        self._codes = np.zeros((len(kept), self.length), dtype=np.int64)
        for row, (_, parts) in zip(self._codes, kept, strict=True):
            row[: len(parts)] = [known[token] for token in parts]
        self._lines = [number for number, _ in kept]
        self.names, self.skipped = [f"line-{number}" for number in self._lines], tuple(skipped)

    def _misfit(self, parts: Sequence[str], known: dict[str, int]) -> str:
        """Why a molecule does not fit, or nothing."""
        if len(parts) > self.length:
            return f"it has {len(parts)} tokens, and there is room for {self.length}"
        strange = next((token for token in parts if token not in known), "")
        return f"it needs the token {strange}, which the model has never seen" if strange else ""

    def where(self, i: int) -> str:
        return f"{self._place}, line {self._lines[i]}"

    def digest(self) -> str:
        return self._digest

    def decode(self, i: int) -> Decoded:
        event = self._codes[i][None] == np.arange(len(self.tokens))[:, None]
        return Decoded(event, Geometry("bool", format=FORMAT, tokens=self.tokens))


def as_smiles(x: Tensor, tokens: Sequence[str]) -> list[str]:
    """The molecules of events, by the largest entry at each place; "" for one of no atom.

    Args:
        x: (n, tokens, length).
        tokens: what the channels stand for.
    """
    selfies = _selfies()
    found = []
    for codes in x.argmax(1).tolist():
        words = [str(tokens[int(k)]) for k in codes]
        end = words.index(END) if END in words else len(words)
        found.append(str(selfies.decoder("".join(words[:end])) or ""))
    return found


def canonical(smiles: Sequence[str]) -> list[str]:
    """One SMILES for each molecule, however it was written; as they are where RDKit is not installed, or cannot read
    them."""
    chem = chemistry()
    if chem is None:
        return list(smiles)
    read = ((one, chem.MolFromSmiles(one) if one else None) for one in smiles)
    return [one if molecule is None else chem.MolToSmiles(molecule) for one, molecule in read]


def chemistry() -> Any | None:
    """RDKit's `Chem`, which keeps silent of molecules that it cannot read; None where it is not installed."""
    try:
        from rdkit import Chem, RDLogger  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
    return Chem


def _suffix(place: Path) -> str:
    name = place.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _text(place: Path) -> str:
    packed = place.read_bytes()
    try:
        return (gzip.decompress(packed) if place.name.lower().endswith(".gz") else packed).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"{place}: no text that can be read ({error})") from error


def _head(place: Path) -> str:
    """The first line of a text, of a large one too."""
    opened = gzip.open if place.name.lower().endswith(".gz") else open
    try:
        with opened(place, "rb") as file:
            return file.readline(_HEAD).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError) as error:
        raise InputError(f"{place}: no text that can be read ({error})") from error


def _molecules(place: Path, text: str, key: str | None) -> list[tuple[int, str]]:
    """Line numbers from 1, and what stands for the molecule there."""
    if _suffix(place) in _LINES:
        lines = [(k, line.split()[0]) for k, line in enumerate(text.splitlines(), 1) if line.strip()]
        return [(k, word) for k, word in lines if not (k == 1 and word.lower() in ("smiles", "selfies"))]
    told = _cells(text)
    head = [word.strip().lower() for word in next(told)]
    column = head.index((key or "smiles").lower())
    return [(k, line[column].strip()) for k, line in enumerate(told, 2) if len(line) > column]


def _cells(text: str) -> Iterator[list[str]]:
    """The rows of a table, whose cells are parted by tabs, semicolons or commas, as its first line has them."""
    first = text.partition("\n")[0]
    return csv.reader(io.StringIO(text), delimiter=next((mark for mark in "\t;" if mark in first), ","))


def _tokenised(word: str, where: str, place: Path) -> list[str]:
    """The SELFIES tokens of a molecule."""
    selfies = _selfies()
    if not word:
        raise BadFileError(where, "is empty: give a molecule, or pass over such lines (--skip-bad)")
    try:
        return list(selfies.split_selfies(word if _suffix(place) == ".selfies" else selfies.encoder(word) or ""))
    except (selfies.EncoderError, ValueError) as error:
        reason = str(error).replace("\t", " ").splitlines()
        told = " ".join(line.strip() for line in reason if "SMILES:" not in line)[:160]
        advice = "mend it (a nitro group is [N+](=O)[O-]), or pass over such lines (--skip-bad)"
        raise BadFileError(where, f"{word!r} cannot be written in SELFIES ({told}): {advice}") from None


def _selfies() -> Any:
    try:
        import selfies
    except ImportError:
        raise InputError("molecules need `pip install selfies`") from None
    return selfies
