"""`oneprior operators`: how to write `--operator` and `--noise`."""

from __future__ import annotations

from dataclasses import dataclass

from oneprior.apps import screen
from oneprior.apps.command import Command, Outcome


@dataclass(frozen=True, kw_only=True)
class Operators(Command):
    """The grammar of --operator and --noise. Several --operator are applied from left to right."""

    def execute(self) -> Outcome:
        from oneprior.likelihoods.noise_words import noise_grammar
        from oneprior.operators.grammar import grammar

        for entries, head in (
            (grammar(), ("--operator", "what it does")),
            (noise_grammar(), ("--noise", "what it means")),
        ):
            rows = [
                ("\n".join(entry.usage), f"{entry.meaning} For example {', '.join(entry.examples)}.")
                for entry in entries
            ]
            screen.table(rows, head=head)
        screen.say("name:value:key=value; several --operator are applied from left to right.")
        return Outcome()
