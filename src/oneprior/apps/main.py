"""`oneprior`: the command line. One table of commands; the one that is asked for is imported, and nothing else.

Exit status: 0 done; 1 a defect, a run that diverged, a campaign without a candidate, or some of many files that could
not be used; 2 a mistake of the user, told in one line; 130 stopped by Ctrl-C, with a line on what is saved.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module

import oneprior
from oneprior.apps.command import Command, Mistake, Stopped

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("oneprior.apps.commands.train:train_command", "fit a prior to a folder of images, volumes, arrays"),
    "sample": ("oneprior.apps.commands.sample:Sample", "draw from a trained prior; interpolate; encode"),
    "simulate": ("oneprior.apps.commands.simulate:Simulate", "measure an image with an operator and noise"),
    "restore": ("oneprior.apps.commands.restore:Restore", "restore a measurement: mean, deviation, samples"),
    "optimise": (
        "oneprior.apps.commands.optimise:Optimise",
        "events of a higher score than any known, by exact search",
    ),
    "evaluate": ("oneprior.apps.commands.evaluate:Evaluate", "measure a prior: distances, copies, specifications"),
    "compare": ("oneprior.apps.commands.compare:Compare", "several priors against the same real events"),
    "calibrate": ("oneprior.apps.commands.calibrate:Calibrate", "is the stated uncertainty of restorations true?"),
    "features": ("oneprior.apps.commands.features:Features", "train a feature network or classifier of one's own"),
    "specify": ("oneprior.apps.commands.specify:Specify", "set the bounds of a specification, and test it"),
    "stress": ("oneprior.apps.commands.stress:Stress", "where does a classifier or segmenter of yours fail?"),
    "info": ("oneprior.apps.commands.info:Info", "what a run is and how it went"),
    "zoo": ("oneprior.apps.commands.zoo:zoo_command", "priors that come with the package: list, get, train again"),
    "export": ("oneprior.apps.commands.exchange:Export", "write a run as a diffusers folder, or push it to the hub"),
    "import": ("oneprior.apps.commands.exchange:Import", "make a run of a diffusers folder"),
    "operators": ("oneprior.apps.commands.operators:Operators", "the grammar of --operator and --noise"),
    "demo": ("oneprior.apps.commands.demo:Demo", "train, draw, restore and report, in minutes"),
}


def main(words: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    warnings.showwarning = _warn
    sys.exit(run(list(sys.argv[1:] if words is None else words)))


def run(words: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    try:
        return _run(words)
    except Mistake as error:
        return _complain(str(error), 2)
    except Stopped as stop:
        return _complain(str(stop), 130)
    except KeyboardInterrupt:
        return _complain("stopped; what was being made is not saved", 130)
    except BrokenPipeError:  # the reader of a pipe has gone: nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        status = _status(error)
        if status is None:
            raise
        return _complain(_message(error), status)


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        print(f"oneprior {oneprior.__version__}")
        return 0
    start = time.perf_counter()
    try:
        command = read(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    from oneprior.apps import record

    try:
        outcome = command.execute()
    except Stopped as stop:
        if stop.outcome is not None:
            record.write(command, stop.outcome, words, time.perf_counter() - start)
        raise
    path = record.write(command, outcome, words, time.perf_counter() - start)
    if outcome.said:
        print(outcome.said)
    if path is not None:
        print(f"wrote {path}")
    return outcome.status


def read(words: Sequence[str]) -> Command:
    """The command that the words ask for, with its options.

    Raises:
        Mistake: where they cannot be understood.
        SystemExit: after printing a help.
    """
    from oneprior.apps.command_line import near, parse

    name, rest = words[0], list(words[1:])
    if name not in COMMANDS:
        raise Mistake(f"unknown command {name!r}{near(name, COMMANDS)} (see oneprior --help)")
    module, _, attribute = COMMANDS[name][0].partition(":")
    kind, prog = getattr(import_module(module), attribute), f"oneprior {name}"
    if name in ("train", "zoo"):  # their first word says which options there are
        kind, prog, rest = kind(rest)
    return parse(kind, rest, prog)


def help_text() -> str:
    """What `oneprior --help` says."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: oneprior COMMAND ... [--config FILE.yaml] [--device auto] [--seed 0]",
            "",
            "Learn p(x) once, then ask it everything.",
            "",
            *lines,
            "",
            "  oneprior COMMAND --help     the options of a command",
            "",
            "  oneprior train diffusion --data photos/ --out runs/photos --size 32 --images 2000000",
            "  oneprior sample runs/photos --n 64 --out samples/",
            "  oneprior simulate photo.png --operator downsample:4 --noise 0.05 --out y.npz",
            "  oneprior restore runs/photos --input y.npz --out restored/",
        ]
    )


def _warn(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
    """A warning as one line, without the line of source that gave it; what libraries tell programmers is left out."""
    if not issubclass(category, DeprecationWarning | FutureWarning):
        print(f"oneprior: warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


def _complain(message: str, status: int) -> int:
    print(f"oneprior: {'error: ' if status != 130 else ''}{' '.join(message.split())}", file=sys.stderr, flush=True)
    return status


def _status(error: Exception) -> int | None:
    """2 for a mistake of the user, 1 for a failure that was foreseen, None for a defect (which shows its traceback)."""
    errors = sys.modules.get("oneprior.core.errors")
    if errors is not None and isinstance(error, errors.OnePriorError):
        return 2 if isinstance(error, errors.InputError) else 1
    if isinstance(error, OSError) and error.filename:
        wrong_path = FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError
        return 2 if isinstance(error, wrong_path) else 1
    return None


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
