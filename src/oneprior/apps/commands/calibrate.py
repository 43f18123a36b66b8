"""`oneprior calibrate`: is the stated uncertainty of restorations true?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.commands.evaluate import Against
from oneprior.apps.record import check_place, typed


@dataclass(frozen=True, kw_only=True)
class Calibrate(Command):
    """Measure real events, restore them, and hold the posterior draws against the truth.

    Args:
        run: a trained run.
        against: the real events.
        operator: the instrument, left to right; see `oneprior operators`.
        noise: standard deviation in the data's units, or 5% of the range.
        n: real events; of one subject or file only the first counts.
        samples: draws of each; 19, 39 or 99 have exact intervals.
        aim: how the method is chosen.
        method: its name instead.
        guide: a trained ppca or mixture of the same data, which lends a denoiser its covariance.
        space: latents of a StyleGAN2 in which the posterior is asked: w by default.
        truncation: of a gan: below 1 its pictures are drawn towards the average one.
        inside: only entries count whose standard deviation over the real events is above this share of the range;
            a constant border flatters every figure.
        features: own:FILE or inception:FILE, for a perceptual distance.
        batch_size: events worked on at once.
        out: the folder of report.html and result.json.
    """

    run: tyro.conf.Positional[Path]
    against: Against = Against()  # noqa: RUF009 (frozen)
    operator: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    noise: str = "5%"
    n: int = 100
    samples: int = 99
    aim: Literal["fast", "best", "calibrated"] = "calibrated"
    method: str | None = None
    guide: Path | None = None
    space: Literal["z", "w", "w+"] | None = None
    truncation: float | None = None
    inside: float = 0.02
    features: str | None = None
    batch_size: int = 16
    out: Path

    def execute(self) -> Outcome:
        from oneprior.apps.calibrated import figures, write_page
        from oneprior.apps.commands.restore import lent
        from oneprior.evaluation import open_features
        from oneprior.tasks.calibration import calibrate_iter
        from oneprior.tasks.real import independent
        from oneprior.training import load

        if not self.operator:
            raise Mistake("calibrate needs --operator, such as --operator downsample:4 (see oneprior operators)")
        if self.n < 2 or self.samples < 4 or self.batch_size < 1 or not 0 <= self.inside < 1:
            raise Mistake("--n is at least 2, --samples at least 4, --batch-size at least 1, --inside in [0, 1)")
        check_place(self.out, self)
        run = load(self.run, device=self.common.torch_device())
        real, _ = self.against.open(run, self.common.seed, training=False)
        varies = real.x.double().std(0, keepdim=True) > 2 * self.inside
        features = None if self.features is None else open_features(self.features, real.x)
        states = calibrate_iter(
            run,
            independent(real, self.n),
            list(self.operator),
            self.noise,
            samples=self.samples,
            aim=self.aim,
            method=self.method,
            guide=lent(self.guide, run, self.run),
            region=varies if bool(varies.any()) and not bool(varies.all()) else None,
            features=features,
            batch=self.batch_size,
            seed=self.common.seed,
            space=self.space,
            truncation=self.truncation,
        )
        study = screen.track(states, f"calibrate {run.family}", lambda s: s.done, lambda s: s.restoration.method)
        assert study.calibration is not None
        page = write_page(study, self.out / "report.html", f"{run.family}: {self.run}", typed(), self.common.seed)
        return Outcome(self.out, (page,), figures(study), study.calibration.verdict.sentence, whole=True)
