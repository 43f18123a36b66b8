"""`oneprior train FAMILY`: fit a prior. The options are the family's own settings and those of the training.

They are read off the two dataclasses, so that a new field is a new option and nothing is listed twice; a group within
(the autoencoder of an ldm) gives `--group.name`. Where a family and the training have a setting of one name (a learning
rate), the training's is meant: it is the one that overrides the family's recipe.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome, Stopped
from oneprior.apps.command_line import HELP, near
from oneprior.models.configs import FAMILIES
from oneprior.training.config import TrainConfig

if TYPE_CHECKING:
    from oneprior.training import Progress

_HIDDEN = {"pretrained", "seed"}  # set by imports; common to all commands
_SUMMARIES = {
    "ppca": "probabilistic PCA and its mixtures: seconds, exact posteriors, the baseline",
    "vae": "a variational autoencoder with learned noise; with --spatial the codec of an ldm",
    "gan": "generator and critic: R3GAN's game by default, up to StyleGAN2",
    "vqvae": "a codebook and an exact law of its codes",
    "diffusion": "a denoiser: EDM, DDPM or flow matching; the strongest default",
    "ldm": "diffusion in the latents of another run (--autoencoder)",
}


@dataclass(frozen=True)
class Data:
    """Which data, and how they become events.

    Args:
        data: a folder or zip of pictures, volumes, DICOM; .npy, .npz, IDX, .gif; see docs/data.md.
        size: of the events: 32 or 80x96; the files' own where not given.
        fit: how a picture comes to that size.
        channels: grey or rgb; the files' own where not given.
        key: the array of a .npz, or the sub-folder of a zip.
        label_key: the labels of a .npz, or the label file of an IDX file.
        slices: cut volumes into pictures along this axis.
        clips: folders of pictures are the frames of clips.
        orientation: turn volumes to these axes, such as RAS.
        value_range: the two values that become -1 and 1.
        skip_bad: go on past broken files, and list them in the run.
        labels: learn the labels, where there are any.
        subject: the subject in a file's name, a regular expression: no subject is then trained on and held out.
    """

    data: Path
    size: str | None = None
    fit: Literal["resize", "cover", "crop", "pad"] = "resize"
    channels: Literal["grey", "rgb"] | None = None
    key: str | None = None
    label_key: str | None = None
    slices: Literal[0, 1, 2] | None = None
    clips: bool = False
    orientation: str | None = None
    value_range: tuple[float, float] | None = None
    skip_bad: bool = False
    labels: bool = True
    subject: str | None = None


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Fit a prior to data and keep it in a run folder.

    Args:
        source: which data.
        out: the run folder.
        resume: go on with the run in that folder, to the same weights as if it had never been stopped.
        from_run: start from the weights of another run.
        model: settings of the family.
        training: settings of the training.
    """

    source: Data
    out: Path
    resume: bool = False
    from_run: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    model: Any = None
    training: Any = None
    family: ClassVar[str] = ""

    def execute(self) -> Outcome:
        from oneprior.training import load

        if self.resume and not (self.out / "config.json").exists():
            screen.say(f"{self.out} holds no run to resume: a new one is started there", error=True)
        try:
            last = screen.track(self._states(), f"train {self.family}", lambda p: p.fraction, words)
        except KeyboardInterrupt:
            raise Stopped(left_behind(self.out)) from None
        if not screen.is_main_process():
            return Outcome()
        run = load(self.out)
        skipped = run.record.data.get("skipped") or []
        for doubt in run.model.doubts(last.losses):
            screen.say(doubt, error=True)
        figures = {"images": last.images, "steps": last.step, "held_out": last.held_out, **dict(last.losses)}
        events = run.record.data.get("trained_on", 0)
        said = f"trained {run.family} on {events:,} events, {last.images:,} drawn: {self.out}"
        if skipped:
            said += f" (skipped {len(skipped)} bad files, see {self.out / 'skipped.txt'})"
        return Outcome(self.out, (self.out,), {**figures, "skipped": len(skipped)}, said)

    def _states(self) -> Iterator[Progress]:
        from oneprior.training import train_iter

        model, source = changed(self.model, self.given), changed(self.source, self.given)
        return train_iter(
            self.family,
            data=source.pop("data"),
            out=self.out,
            model=model,
            resume=self.resume,
            start_from=self.from_run,
            autoencoder=model.pop("autoencoder", None),
            subject=source.pop("subject", None),
            data_options=source,
            device=str(self.common.torch_device()),
            seed=self.common.seed,
            **changed(self.training, self.given),
        )


def train_command(typed: Sequence[str]) -> tuple[type[Train], str, list[str]]:
    """The command of the family that is named first, how it is called, and the words after it.

    Raises:
        Mistake: for no family, or an unknown one.
        SystemExit: with status 0, after printing which families there are.
    """
    if typed and typed[0] in HELP:
        print(_help())
        raise SystemExit(0)
    if not typed or typed[0].startswith("-"):
        raise Mistake(f"train needs a family first: {', '.join(FAMILIES)} (see oneprior train --help)")
    if typed[0] not in FAMILIES:
        there = near(typed[0], FAMILIES) or f"; there is {', '.join(FAMILIES)}"
        raise Mistake(f"no family is called {typed[0]!r}{there}")
    return command_of(typed[0]), f"oneprior train {typed[0]}", list(typed[1:])


def command_of(family: str) -> type[Train]:
    """`Train` with the settings of one family."""
    config = FAMILIES[family][0]
    model = options_of(config(), {f.name for f in dataclasses.fields(TrainConfig)} | _HIDDEN)
    training = options_of(TrainConfig(), _HIDDEN)
    return make_dataclass(
        f"Train{family.capitalize()}",
        [("model", model, field(default=model())), ("training", training, field(default=training()))],
        bases=(Train,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": Train.__doc__, "__module__": __name__, "family": family},
    )


def options_of(settings: Any, hidden: set[str]) -> type:
    """A flat dataclass like that of these settings: their values are the defaults, hidden fields are left out."""
    kept = list(_fields(settings, hidden))
    names = {"__doc__": type(settings).__doc__, "__module__": __name__, "like": settings}
    return make_dataclass(type(settings).__name__, kept, frozen=True, kw_only=True, namespace=names)


def _fields(settings: Any, hidden: set[str], above: str = "", helps: Mapping[str, str] | None = None) -> Iterator[Any]:
    hints = typing.get_type_hints(type(settings))
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, _HIDDEN, f"{above}{item.name}.", _docs(type(value)))
        elif item.name not in hidden:
            name, hint = above + item.name, hints[item.name]
            if above:
                hint = Annotated[hint, tyro.conf.arg(name=name, help=(helps or {}).get(item.name))]
            yield name.replace(".", "__"), hint, field(default=value)


def _docs(kind: type) -> dict[str, str]:
    """The words of help of a dataclass, by field."""
    import docstring_parser

    params = docstring_parser.parse(kind.__doc__ or "").params
    return {p.arg_name: " ".join((p.description or "").split()) for p in params}


def changed(options: Any, given: Collection[str] = ()) -> dict[str, Any]:
    """The options that were given or are not at their defaults: --resume and --from need not be told the others again.

    Args:
        options: a dataclass of `options_of`, or a plain one.
        given: the names of flags.
    """
    asked: dict[str, Any] = {}
    for item in dataclasses.fields(options):
        value, (group, _, name) = getattr(options, item.name), item.name.rpartition("__")
        flag = item.name.replace("__", ".").replace("_", "-")
        if value == item.default and flag not in given:
            continue
        if group:
            asked[group] = dataclasses.replace(asked.get(group, getattr(options.like, group)), **{name: value})
        else:
            asked[name] = value
    return asked


def _help() -> str:
    width = max(map(len, FAMILIES))
    return "\n".join(
        [
            "usage: oneprior train FAMILY --data PATH --out RUN [--size 32] [--images N | --minutes M] ...",
            "",
            *(f"  {name:<{width}}  {_SUMMARIES.get(name, '')}" for name in FAMILIES),
            "",
            "  oneprior train FAMILY --help     the settings of a family and of the training",
        ]
    )


def words(progress: Progress) -> str:
    """The newest losses, briefly; after the last step, what still takes its time."""
    losses = [f"{name} {value:.4g}" for name, value in progress.losses.items() if not name.startswith("metric/")]
    trained = progress.fraction >= 1 and not progress.finished
    last = "  trained; its laws are measured on the data" if trained else ""
    return f"{progress.images:,} images  {'  '.join(losses[:3])}{last}"


def left_behind(out: Path) -> str:
    """What a training that was stopped has left of its run."""
    if (out / "checkpoint").is_dir():
        return f"stopped; {out} holds a checkpoint: the same command with --resume goes on from it"
    return f"stopped before the first checkpoint; nothing of {out} can be resumed"
