"""`oneprior operators`: how to write `--operator` and `--noise`."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass

from oneprior.apps import screen
from oneprior.apps.command import Command, Outcome

_STEP = "    "


@dataclass(frozen=True, kw_only=True)
class Operators(Command):
    """The grammar of --operator and --noise. Several --operator are applied from left to right."""

    def execute(self) -> Outcome:
        from oneprior.likelihoods.noise_words import noise_grammar
        from oneprior.operators.grammar import grammar

        width = min(shutil.get_terminal_size().columns, 120)
        for name, entries in (("--operator", grammar()), ("--noise", noise_grammar())):
            screen.say(f"{name}\n")
            for entry in entries:
                words = f"{entry.meaning} For example {', '.join(entry.examples)}."
                said = textwrap.fill(words, width, initial_indent=_STEP * 2, subsequent_indent=_STEP * 2)
                screen.say("\n".join([*(_STEP + usage for usage in entry.usage), said, ""]))
        screen.say("name:value:key=value; several --operator are applied from left to right.")
        return Outcome()
