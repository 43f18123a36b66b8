"""`oneprior demo`: what `make demo` runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneprior.apps import screen
from oneprior.apps.command import Command, Mistake, Outcome, Stopped

if TYPE_CHECKING:
    from oneprior.apps.demo import Contender, Score, Study
    from oneprior.apps.demo_zoo import Shown
    from oneprior.data import Dataset
    from oneprior.tasks import Measurement, Restoration
    from oneprior.tasks.methods import Aim
    from oneprior.training import Run


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Train four priors on real images, draw from them, restore damaged held-out images, and write report.html.

    Args:
        data: a folder of images; the handwritten digits of scikit-learn where not given.
        out: the folder of the runs, the pictures and the report.
        size: of the images of --data.
        vae_images: budget of the vae; a few minutes' worth where not given.
        diffusion_images: budget of the diffusion; likewise.
        held_out: how many images are kept apart and damaged.
        samples: posterior draws of each; 19, 39 or 99.
    """

    data: Path | None = None
    out: Path = Path("demo")
    size: str | None = None
    vae_images: int | None = None
    diffusion_images: int | None = None
    held_out: int | None = None
    samples: int = 19

    def execute(self) -> Outcome:
        from oneprior.apps import demo_page

        if (self.samples + 1) % 20:
            raise Mistake(f"--samples {self.samples}: a 90 % interval needs 19, 39, 59, 79 or 99 draws")
        study = self._study()
        page = demo_page.write(study, self.out / "report.html", self.data)
        written = demo_page.write_pictures(study, self.out / "pictures")
        said = f"{study.seconds:.0f} s; open {page}"
        return Outcome(self.out, (page, *written), figures_of(study), said)

    def _study(self) -> Study:
        from oneprior.apps import demo

        start = time.perf_counter()
        images = demo.open_images(self.data, self.size)
        with demo.threads_for(images):
            return self._studied(images, start)

    def _studied(self, images: Dataset, start: float) -> Study:
        from oneprior.apps import demo
        from oneprior.core import Rows

        asked = {f.name: getattr(self, f.name, None) for f in dataclasses.fields(demo.Budget)}
        work = dataclasses.replace(demo.budget(images), **{k: v for k, v in asked.items() if v is not None})
        learned, held_out = demo.parted(images, work.held_out)
        contenders = demo.contenders(work)
        runs = {c.key: self._trained(c, learned) for c in contenders if c.trains}
        samples = {
            key: run.prior().sample(Rows(64, seed=self.common.seed).to(run.model.device)).cpu()
            for key, run in runs.items()
        }
        mask = demo.active(learned)
        results: dict[tuple[str, str], Restoration] = {}
        scores: dict[tuple[str, str], Score] = {}
        for problem in demo.PROBLEMS:
            measurement = demo.damaged(problem, held_out, self.common.seed)
            for c in contenders:
                result = self._restored(c, runs, measurement, f"{problem.title.lower()}, {c.title}", work.aim)
                results[problem.key, c.key] = result
                scores[problem.key, c.key] = demo.score(result, mask)
        shown = self._from_the_zoo() if self.data is None else []
        seconds = time.perf_counter() - start
        return demo.Study(contenders, runs, samples, results, scores, len(learned), len(held_out), seconds, shown)

    def _from_the_zoo(self) -> list[Shown]:
        """Priors that come with the package, on their own held-out events."""
        from oneprior.apps import demo_zoo

        made, device = [], self.common.torch_device()
        for entry in demo_zoo.chosen():
            states = demo_zoo.restoration(entry, self.samples, self.common.seed, device)
            result = screen.track(states, f"zoo:{entry.name}", lambda state: state.done, lambda state: state.method)
            made.append(demo_zoo.Shown(entry, result))
        return made

    def _trained(self, contender: Contender, data: Dataset) -> Run:
        from oneprior.apps import demo
        from oneprior.apps.commands.train import words
        from oneprior.training import load

        folder, device = self.out / "runs" / contender.key, self.common.torch_device()
        states = demo.training(contender, data, folder, self.common.seed, str(device))
        try:
            screen.track(states, f"train {contender.title}", lambda p: p.fraction, words)
        except KeyboardInterrupt:
            raise Stopped(f"stopped; {folder.parent} holds the runs so far, and the same command goes on") from None
        return load(folder, device=device)

    def _restored(
        self, contender: Contender, runs: Mapping[str, Run], measurement: Measurement, name: str, aim: Aim
    ) -> Restoration:
        from oneprior.tasks import restore_iter

        run, aim = runs[contender.run or contender.key], contender.aim or aim
        states = restore_iter(run, measurement, samples=self.samples, aim=aim, seed=self.common.seed)
        return screen.track(states, name, lambda state: state.done, lambda state: state.method)


def figures_of(study: Study) -> dict[str, Any]:
    """The figures of `result.json`."""
    from oneprior.apps import demo_zoo
    from oneprior.apps.demo import PROBLEMS

    return {
        "learned_from": study.learned,
        "held_out": study.held_out,
        "seconds": round(study.seconds, 1),
        "training_seconds": {key: run.record.result.get("seconds") for key, run in study.runs.items()},
        "gain_over_ppca_db": {p.key: round(study.gain(p), 3) for p in PROBLEMS},
        "gain_over_ppca_error_db": {p.key: round(study.gain_error(p), 3) for p in PROBLEMS},
        "gain_over_mixture_db": {p.key: round(study.gain(p, "mixture"), 3) for p in PROBLEMS},
        "gain_over_mixture_error_db": {p.key: round(study.gain_error(p, "mixture"), 3) for p in PROBLEMS},
        "best_deep": {p.key: study.best_deep(p).key for p in PROBLEMS},
        "zoo": demo_zoo.figures(study.zoo),
        "scores": {f"{p}/{c}": dataclasses.asdict(score) for (p, c), score in study.scores.items()},
    }
