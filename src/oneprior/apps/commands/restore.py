"""`oneprior restore`: a measurement and a prior give the posterior: mean, deviation, interval, samples, and a page.

Files of a folder that cannot be restored are left out, wherever they stand, and named at the end, on the page and in
`result.json`. Exit status: 0 where all were restored; 1 where some were not; 2 where none was, and for a mistake; 130
after Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome, Stopped
from oneprior.apps.record import plain, typed
from oneprior.apps.restore_place import Place

if TYPE_CHECKING:
    from oneprior.apps.restore_inputs import Intake, Item
    from oneprior.apps.restore_many import Settings
    from oneprior.inference import Sampler
    from oneprior.tasks.methods import Guide
    from oneprior.training import Run
    from oneprior.training.parallel import Team

_FREE = ("out", "resume", "common", "batch_size")  # may differ between a run and what goes on with it


@dataclass(frozen=True, kw_only=True)
class Restore(Command):
    """Restore a measurement with a trained prior, or a folder of them; several processes (torchrun) share a folder.

    Exit status: 0 where all were restored, 1 where some files of a folder were not, 2 where none was.

    Args:
        run: a trained run.
        input: y.npz of `oneprior simulate`, which knows its operator and noise; or a picture, a volume, an array of one
            or several, DICOM, fastMRI HDF5; or a folder of such files.
        study: a clean image or a folder of them instead: each is measured by the operator with noise, restored, and
            scored against itself.
        operator: how the input was made, left to right; see `oneprior operators`.
        noise: standard deviation in the units of the input (of k-space: of its real and of its imaginary part), or 5%
            of the range of values; see `oneprior operators`.
        out: the folder of the results, a new one; of a folder, each image has a folder of its own there.
        resume: go on with what is in that folder: images that are finished are left as they are.
        samples: draws of each; 19, 39 or 99 have exact 90 % intervals.
        aim: how the method is chosen: quickly, for the smallest error, or for honest intervals.
        method: its name instead: closed-form, daps, moment-matching, hmc, elliptical-slice, resampling, ...
        guide: a trained ppca or mixture of the same data, which lends a denoiser its covariance; its own by default.
        space: latents of a StyleGAN2 in which the posterior is asked: w by default, w+ for brgm.
        truncation: of a gan: below 1 its pictures are drawn towards the average one.
        features: the perceptual term of brgm: own:FILE, inception:FILE, or module:function of two batches of pictures
            (LPIPS, where its weights are at hand); without it the term is left out.
        condition: name=value, such as label=3; may be repeated.
        batch_size: images worked on at once, which bounds the memory.
        fit: how a file of another size comes to the one that is needed; refused where not given.
        key: the array of a .npz that is no measurement file.
        slices: of a fastMRI file: 10 or 10:20.
        channels: grey or rgb, to turn the input into; its own where not given.
        value_range: the two values of the input (of k-space: of its picture) that are black and white; where not given
            the run's, but for whole numbers of another type than the run's that type's.
    """

    run: tyro.conf.Positional[Path]
    input: Path | None = None
    study: Path | None = None
    operator: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    noise: str | None = None
    out: Path
    resume: bool = False
    samples: int = 19
    aim: Literal["fast", "best", "calibrated"] = "best"
    method: str | None = None
    guide: Path | None = None
    space: Literal["z", "w", "w+"] | None = None
    truncation: float | None = None
    features: str | None = None
    condition: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    batch_size: int = 64
    fit: Literal["resize", "cover", "crop", "pad"] | None = None
    key: str | None = None
    slices: str | None = None
    channels: Literal["grey", "rgb"] | None = None
    value_range: tuple[float, float] | None = None

    def execute(self) -> Outcome:
        source = self._source()
        try:
            return self._restore(source)
        except KeyboardInterrupt:
            raise self._stopped() from None

    def _restore(self, source: Path) -> Outcome:
        asked = {k: v for k, v in plain(dataclasses.asdict(self)).items() if k not in _FREE}
        asked["seed"] = self.common.seed
        Place(self.out).check(self, self.resume, asked)
        team = self._team()
        from oneprior.apps.restore_inputs import Intake
        from oneprior.apps.restore_many import Share, restore_many
        from oneprior.training import load

        run = load(self.run, device=self.common.torch_device() if team is None else team.device)
        intake = Intake(
            run=run,
            operator=self.operator,
            noise=self.noise,
            study=self.study is not None,
            seed=self.common.seed,
            fit=self.fit,
            key=self.key,
            channels=self.channels,
            value_range=self.value_range,
            slices=self.slices,
        )
        items, many = intake.items(source)
        intake.check(items)
        place, settings = Place(self.out, many), self._settings(run)
        before = self._begin(place, asked, team)
        share = Share() if team is None else Share(team.rank, team.size)
        states = restore_many(intake, items, place, settings, share)
        from oneprior.core import OnePriorError

        try:
            screen.track(states, f"restore with {run.family}", lambda p: p.done, lambda p: p.words)
        except KeyboardInterrupt:
            raise self._stopped(place, len(items)) from None
        except OnePriorError:
            place.undo()
            raise
        if team is not None:
            team.wait()
            if not team.main:
                return Outcome()
        return self._folder(place, intake, items, before) if many else self._file(place, intake, items[0], before)

    def _source(self) -> Path:
        """The path of the input, after what can be checked without reading anything."""
        if self.samples < 1 or self.batch_size < 1:
            raise Mistake("--samples and --batch-size must be at least 1")
        either = "--input (a measurement) or --study (a clean image, to be measured)"
        if self.input is None and self.study is None:
            raise Mistake(f"restore needs {either}")
        if self.input is not None and self.study is not None:
            raise Mistake(f"restore takes {either}, not both")
        if self.study is not None and not self.operator:
            both = " and --noise, such as --operator downsample:4 --noise 5%" if self.noise is None else ""
            raise Mistake(f"--study needs --operator{both or ', such as --operator downsample:4'}")
        source = self.input or self.study
        assert source is not None
        inside = self.out.expanduser().resolve()
        if source.is_dir() and source.resolve() in (inside, *inside.parents):
            raise Mistake(f"--out {self.out} lies in the folder that is restored; give another")
        return source

    def _team(self) -> Team | None:
        """The processes that `torchrun` or `accelerate launch` started; None where there is one."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return None
        from datetime import timedelta

        from accelerate import PartialState

        from oneprior.training.parallel import Team

        device = None if self.common.device == "auto" else self.common.device
        PartialState(cpu=device == "cpu", timeout=timedelta(days=30))  # shares of the work may end hours apart
        return Team(device)

    def _settings(self, run: Run) -> Settings:
        from oneprior.apps.conditions import read_conditions
        from oneprior.apps.restore_many import Settings
        from oneprior.tasks.belief import Belief

        Belief(space=self.space, truncation=self.truncation).check(run)  # mistakes are told before any file is read
        return Settings(
            samples=self.samples,
            aim=self.aim,
            method=asked_method(self.method, self.features, run),
            space=self.space,
            truncation=self.truncation,
            guide=lent(self.guide, run, self.run),
            told=read_conditions(self.condition, run.conditions),
            seed=self.common.seed,
            batch=self.batch_size,
        )

    def _begin(self, place: Place, asked: dict[str, Any], team: Team | None) -> list[str]:
        """Make the folder ours, anew or to go on with; returns which images were finished before."""
        before = place.names()
        if team is not None:
            team.wait()
        if team is None or team.main:
            if self.resume and place.settings() is not None:
                place.forget()
            else:
                place.begin(asked)
        if team is not None:
            team.wait()
        return before

    def _stopped(self, place: Place | None = None, total: int = 0) -> BaseException:
        """What is said after Ctrl-C; while the images were restored (`place`, of so many files) with a record."""
        count = Place(self.out).count()
        if not count:
            return KeyboardInterrupt()
        are = "image is" if count == 1 else "images are"
        said = f"stopped; {count} {are} finished in {self.out}: the same command with --resume goes on"
        if place is None or not place.many or not screen.is_main_process():
            return Stopped(said)
        outputs = tuple(place.folder / name for name in place.names())
        return Stopped(said, Outcome(place.folder, outputs, {"n": count, "of": total}))

    def _file(self, place: Place, intake: Intake, item: Item, before: list[str]) -> Outcome:
        """What is left of the events of one file."""
        from oneprior.apps import restored, restored_page
        from oneprior.apps.restore_many import whole

        measurement = intake.read(item)
        result = whole(place, measurement)
        rows = restored.figures_of_events(result)
        numbers = [f"{k:04d}" for k in range(len(rows))]
        names = [item.name] if len(rows) == 1 else numbers
        figures = restored.judge(rows, names) | {"aim": self.aim}
        written = restored.write_restoration(result, place.folder)
        told = self._told(item.name, rows, "", intake.run)
        page = restored_page.page_of_file(result, names, rows, figures, told).write(place.folder / "report.html")
        place.end()
        done = _done(figures, [row["seconds"] for row, one in zip(rows, numbers, strict=True) if one not in before])
        return Outcome(place.folder, (*written, page), figures, done + _said(figures), whole=True)

    def _folder(self, place: Place, intake: Intake, items: list[Item], before: list[str]) -> Outcome:
        """What is left of a folder of files."""
        from oneprior.apps import restored, restored_page
        from oneprior.core import InputError

        names, failed = place.names(), place.failed()
        for said in _failures(failed):
            screen.say(f"oneprior: {said}", error=True)
        if not names:
            place.undo()
            raise InputError(f"none of the {len(items)} files could be restored; see above")
        rows = [place.figures(name) for name in names]
        figures = restored.judge(rows, names) | {"aim": self.aim, "failed": failed}
        source = self.input or self.study
        told = self._told(f"{len(rows)} images of {source}", rows, " ".join(self.operator), intake.run)
        page = restored_page.page_of_folder(place.folder, names, rows, figures, told).write(
            place.folder / "report.html"
        )
        place.end()
        outputs = (page, *(place.folder / name for name in names))
        done = _done(figures, [row["seconds"] for row, name in zip(rows, names, strict=True) if name not in before])
        return Outcome(place.folder, outputs, figures, done + _said(figures), whole=True, status=1 if failed else 0)

    def _told(self, title: str, rows: list[dict[str, Any]], operator: str, run: Run) -> Any:
        from oneprior.apps.restored_page import Told
        from oneprior.apps.restored_words import of_all
        from oneprior.data.midi import FORMAT as MUSIC

        operator, noise = operator or of_all(rows, "operator"), self.noise or of_all(rows, "noise")
        prior, values = f"{run.family} `{self.run}`", of_all(rows, "value_range")
        music = run.geometry.format == MUSIC
        return Told(title, operator, noise, prior, self.aim, typed(), self.common.seed, values, _credit(run), music)


def _credit(run: Run) -> str:
    """What a prior of the zoo learned from, as its licence asks; nothing for a run of one's own."""
    from oneprior.training.zoo import Entry

    return Entry.read(run.path).facts.owed if run.published else ""


def _failures(failed: dict[str, str]) -> list[str]:
    """Which files were not restored, those with one reason on one line."""
    alike: dict[str, list[str]] = {}
    for file, reason in failed.items():
        alike.setdefault(reason, []).append(file)
    lines = []
    for reason, files in alike.items():
        more = f" and {len(files) - 5} more" if len(files) > 5 else ""
        lines.append(f"{', '.join(files[:5])}{more} {'were' if files[1:] else 'was'} not restored: {reason}")
    return lines


def _done(figures: dict[str, Any], seconds: list[float]) -> str:
    """What was done now, in so many seconds an image, and what before."""
    n, new, spent = figures["n"], len(seconds), sum(seconds)
    if not new and not figures.get("failed"):
        return f"nothing was left to do: {f'all {n} were' if n > 1 else 'it was'} finished before"
    said = f"restored {new} by {figures['method']} in {spent:.1f} s" if new else "restored none"
    if new > 1:
        said += f" ({new / max(spent, 1e-9):.3g} images/s)"
    return said + (f", {n - new} {'were' if n - new > 1 else 'was'} finished before" if new < n else "")


def _said(figures: dict[str, Any]) -> str:
    """How good it is: the rest of the last lines on the screen."""
    from oneprior.apps.restored_page import briefly, told_once, unmixed

    said = f", {figures['psnr_mean']:.2f} dB" if "psnr_mean" in figures else ""
    if failed := figures.get("failed"):
        said += f"; {len(failed)} file{'s' * (len(failed) > 1)} could not be restored"
    bad = figures["doubtful"]
    if bad and figures["n"] == 1:
        said += f"\nwarning: {next(iter(bad.values()))}: do not trust this picture"
    elif bad:
        brief, cause = briefly(bad)
        first = "; ".join(f"{name}: {why}" for name, why in list(brief.items())[:5])
        looks = f" ({cause})" if cause else ""
        said += f"\nwarning: do not trust {len(bad)} of these {figures['n']} pictures{looks}: {first}"
        said += "; ..." * (len(bad) > 5)
    said += "".join(f"\nnote: {note.replace('`', '')}" for note in told_once(figures, ("notes",)))
    if figures["exact"] and (chains := unmixed(figures)):
        longer = "try another --method" if figures["aim"] == "calibrated" else "--aim calibrated runs longer ones"
        said += f"\nwarning: {chains}; {longer}"
    return said


def asked_method(method: str | None, features: str | None, run: Run) -> str | Sampler | None:
    """The method by name, brgm with the features of its perceptual term; a mistake is told here, before any work."""
    from oneprior.tasks.methods import looking, named

    if features is not None:
        from oneprior.evaluation.perceptual import open_perceptual

        looking(method, lambda a, b: (a - b).flatten(1).mean(1))  # another method is told before the file is read
        return looking(method, open_perceptual(features, run.event_shape))
    if method is not None:
        named(method)
    return method


def lent(guide: Path | None, run: Run, name: Path) -> Guide | None:
    """The law that lends its covariance: that of another run of the same data."""
    from oneprior.tasks.methods import Guide
    from oneprior.training import load

    if guide is None:
        return None
    lender = load(guide, device=run.model.device)
    law = lender.prior()
    if not isinstance(law, Guide):
        raise Mistake(f"--guide {guide} is a {lender.family}; a covariance is lent by a ppca or its mixture")
    if lender.event_shape != run.event_shape or lender.units != run.units:
        raise Mistake(
            f"--guide {guide} and {name} were trained on events of other sizes or ranges of values: train the guide on "
            "the same data"
        )
    return law
