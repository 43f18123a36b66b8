"""`oneprior zoo list|get|train`: the priors that come with the package, a run of one's own from one, and their recipes.

`zoo:NAME` stands for an entry wherever a command takes a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome, Stopped
from oneprior.apps.command_line import HELP, near

if TYPE_CHECKING:
    from oneprior.training import Progress
    from oneprior.training.zoo import Entry


@dataclass(frozen=True, kw_only=True)
class List(Command):
    """The priors of the zoo: what they are of, their licence, their size, and one figure of each.

    Args:
        json: print all that is known of them as JSON.
    """

    json: bool = False

    def execute(self) -> Outcome:
        from oneprior.training.zoo import PREFIX, entries

        known = entries()
        if self.json:
            screen.say("[" + ",".join(one.to_json().strip() for one in known) + "]")
            return Outcome()
        if not known:
            return Outcome(said="the zoo is empty: this copy of oneprior came without its priors")
        head = ("name", "family", "event", "licence", "MB", "PSNR")
        rows = [
            (
                f"{PREFIX}{one.name}",
                one.recipe.family,
                "x".join(map(str, one.event_shape)),
                one.facts.licence,
                f"{one.megabytes:.1f}",
                f"{one.figures[0].value:.1f} {one.figures[0].unit}" if one.figures else "",
            )
            for one in known
        ]
        screen.table(rows, head=head, whole=head)
        for said in dict.fromkeys(one.figures[0].name for one in known if one.figures):
            screen.say(f"measured: {said}")
        return Outcome(
            said="not for diagnosis; the weights are under the licence of their data (oneprior info zoo:NAME)"
        )


@dataclass(frozen=True, kw_only=True)
class Get(Command):
    """An entry as a run folder of one's own, weights in single precision: to look into, or to train on with --from.

    Args:
        name: of the entry, with or without `zoo:`.
        out: the run folder, a new one.
    """

    name: tyro.conf.Positional[str]
    out: Path

    def execute(self) -> Outcome:
        from oneprior.training.publication import get
        from oneprior.training.zoo import entry

        run, facts = get(self.name, self.out), entry(self.name).facts
        shape = " x ".join(map(str, run.event_shape))
        said = f"{run.family} of {shape} events ({facts.data}): {self.out}. Its licence is {facts.licence}"
        return Outcome(self.out, (self.out,), said=said + ", for what is made of it too" * facts.share_alike)


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train again by the recipe of an entry, on its own data or yours, brought to the size of its events.

    Args:
        name: of the entry, with or without `zoo:`.
        data: a folder or zip of pictures, volumes, arrays; see docs/data.md.
        out: the run folder.
        images: another budget than the recipe's, in images; it is kept in the run's record.
        minutes: another budget, in minutes of wall time.
        subject: the subject in a file's name, a regular expression, where yours are called otherwise.
        resume: go on with the run in that folder.
    """

    name: tyro.conf.Positional[str]
    data: Path
    out: Path
    images: int | None = None
    minutes: float | None = None
    subject: str | None = None
    resume: bool = False

    def execute(self) -> Outcome:
        from oneprior.apps.commands.train import left_behind, words
        from oneprior.training import load
        from oneprior.training.zoo import entry

        known = entry(self.name)
        try:
            last = screen.track(self._states(known), f"train {known.name}", lambda p: p.fraction, words)
        except KeyboardInterrupt:
            raise Stopped(left_behind(self.out)) from None
        if not screen.is_main_process():
            return Outcome()
        run = load(self.out)
        figures: dict[str, Any] = {"images": last.images, "held_out": last.held_out, **dict(last.losses)}
        events = run.record.data.get("trained_on", 0)
        said = f"trained {run.family} on {events:,} events by the recipe of {known.name}: {self.out}"
        return Outcome(self.out, (self.out,), figures, said)

    def _states(self, known: Entry) -> Iterator[Progress]:
        from oneprior.training.recipe import train_again

        return train_again(
            known,
            self.data,
            self.out,
            images=self.images,
            minutes=self.minutes,
            seed=self.common.seed if "seed" in self.given else None,
            subject=self.subject,
            device=str(self.common.torch_device()),
            resume=self.resume,
        )


VERBS: dict[str, tuple[type[Command], str]] = {
    "list": (List, "what there is: data, licence, size, a figure of each"),
    "get": (Get, "an entry as a run folder of your own"),
    "train": (Train, "train again by an entry's recipe, on its data or yours"),
}


def zoo_command(typed: Sequence[str]) -> tuple[type[Command], str, list[str]]:
    """The command that is named first, how it is called, and the words after it.

    Raises:
        Mistake: for none, or an unknown one.
        SystemExit: with status 0, after printing which there are.
    """
    if typed and typed[0] in HELP:
        print(_help())
        raise SystemExit(0)
    if not typed or typed[0] not in VERBS:
        given = f"zoo has no {typed[0]!r}{near(typed[0], VERBS)}" if typed else "zoo needs a word more"
        raise Mistake(f"{given}: {', '.join(VERBS)} (see oneprior zoo --help)")
    return VERBS[typed[0]][0], f"oneprior zoo {typed[0]}", list(typed[1:])


def _help() -> str:
    return "\n".join(
        [
            "usage: oneprior zoo list | get NAME --out RUN | train NAME --data PATH --out RUN",
            "",
            *(f"  {name:<6} {summary}" for name, (_, summary) in VERBS.items()),
            "",
            "zoo:NAME stands for an entry wherever a command takes a run:",
            "",
            "  oneprior sample zoo:chest-mixture --n 16 --out films.png",
            "  oneprior restore zoo:chest-mixture --input film.png --operator downsample:4 --noise 5% --out restored/",
        ]
    )
