"""`oneprior operators`: how to write `--operator` and `--noise`."""

from __future__ import annotations

from dataclasses import dataclass

from oneprior.apps import screen
from oneprior.apps.command import Command, Outcome

NOISE = (
    ("0.05", "Gaussian; the standard deviation in the units of the measurement file."),
    ("5%", "Gaussian; the standard deviation as a share of the recorded range of values."),
    ("0", "A constraint: the measurement is exact."),
)


@dataclass(frozen=True, kw_only=True)
class Operators(Command):
    """The grammar of --operator and --noise. Several --operator are applied from left to right."""

    def execute(self) -> Outcome:
        from oneprior.operators.grammar import grammar

        rows = [
            ("\n".join(entry.usage), f"{entry.meaning} For example {', '.join(entry.examples)}.") for entry in grammar()
        ]
        screen.table(rows, head=("--operator", "what it does"))
        screen.table(NOISE, head=("--noise", "what it means"))
        screen.say("name:value:key=value; several --operator are applied from left to right.")
        return Outcome()
