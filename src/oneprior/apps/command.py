"""What every command is: a frozen dataclass of options that can be executed, and what it leaves behind.

Nothing here imports torch, so that help and mistakes are answered at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch


class Mistake(Exception):
    """A mistake on the command line, found before anything heavy is imported; shown as one line, exit status 2."""


class Stopped(Exception):
    """The user stopped the work (Ctrl-C); the message says what is saved. Exit status 130.

    Args:
        said: the message.
        outcome: of the part that is saved, for its `result.json`.
    """

    def __init__(self, said: str, outcome: Outcome | None = None) -> None:
        super().__init__(said)
        self.outcome = outcome


@dataclass(frozen=True)
class Common:
    """Understood by every command.

    Args:
        config: a YAML file with any of these options, by name; what is typed on the command line wins over it.
        device: auto, cpu, cuda, cuda:1, mps.
        seed: of every random number.
    """

    config: Path | None = None
    device: str = "auto"
    seed: int = 0

    def torch_device(self) -> torch.device:
        """The device that was asked for; with "auto", a GPU where there is one.

        Raises:
            InputError: where the name is unknown or the device is not there.
        """
        import torch

        from oneprior.core import InputError

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"--device {self.device} cannot be used here ({reason}); try --device cpu") from error
        return device


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Args:
        folder: where `result.json` goes; None where nothing was written.
        outputs: the files and folders that were written.
        figures: numbers worth keeping.
        said: the last line on the screen.
        whole: whether the outputs are one result: of an earlier one in the folder nothing is left.
        status: the exit status: 1 where a part of the work could not be done.
    """

    folder: Path | None = None
    outputs: tuple[Path, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""
    whole: bool = False
    status: int = 0


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """One verb of the command line; its fields are its options and its docstring is its help."""

    common: Common = Common()
    given: ClassVar[frozenset[str]] = frozenset()
    """Names of the options that were typed or read from a file, where `command_line.parse` made the command."""

    @abstractmethod
    def execute(self) -> Outcome:
        """Do the work.

        Raises:
            InputError: for a mistake of the user.
            Stopped: on Ctrl-C, where something is saved that is worth a word.
        """
