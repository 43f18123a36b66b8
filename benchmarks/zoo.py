"""The zoo remade: the priors of the domains, trained where they are missing, measured, and published as entries.

    python -m benchmarks zoo                       every entry whose run can be had, trained now where it is missing
    python -m benchmarks zoo --only chest-gan      one of them

Each restores the same held-out events by the same command, so that `oneprior zoo list` can show one figure that means
the same for all: `--operator downsample:4 --noise 5% --aim fast`, with 19 draws. What is measured is the entry, through
its weights in half precision. The figures stand in benchmarks/results/zoo.json; a run with `--only` keeps the others'.

The data are not part of the package, not even four pictures of them: what an entry brings to be tried on was drawn by
another prior of the domain (`TEACHERS`), and says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import domain_sets
from benchmarks.harness import Figure as Measured
from benchmarks.harness import Options, record
from benchmarks.train import JOBS, cpu, trained
from oneprior.core import Rows
from oneprior.evaluation import psnr
from oneprior.tasks import restore, simulate
from oneprior.training import Run, load, publish
from oneprior.training.zoo import Facts, Figure, entry, zoo_folder

KINDS = {
    "mixture": "ten Gaussians of low rank, exact posteriors",
    "diffusion": "a denoiser (EDM)",
    "gan": "StyleGAN2 in R3GAN's game, with the space w",
    "ldm": "diffusion in the latents of an autoencoder",
}
TEACHERS = {"mixture": "ldm", "diffusion": "ldm", "gan": "ldm", "ldm": "diffusion"}
"""Whose draws are the examples of an entry."""
SHOWN, RESTORED, SAMPLES = 4, 16, 19
OPERATOR, NOISE = "downsample:4", 0.1  # of [-1, 1]: 5 % of the range
_HALF = "Half the size that was aimed at (64 x 64 films, 80 x 96 slices), for lack of an accelerator."
DOMAINS: dict[str, dict[str, str]] = {
    "chest": {
        "data": "MedNIST, class CXR",
        "licence": "CC-BY-SA-4.0",
        "credit": "MedNIST was made available by Dr. Bradley J. Erickson M.D., Ph.D. (Department of Radiology, Mayo "
        "Clinic), gathered from sets of TCIA, the RSNA Bone Age Challenge and the NIH Chest X-ray dataset",
        "source": "https://github.com/apolanco3225/Medical-MNIST-Classification (resized/CXR)",
        "citation": "B. J. Erickson, MedNIST, Mayo Clinic; as MONAI's tutorials ask it to be acknowledged",
        "prepared": "10,000 films of 64 x 64, the last 1,000 kept apart from everything here; means of 2 x 2 "
        f"pixels, 32 x 32. {_HALF}",
        "leaves_out": "disease, sex, age, hospital and machine of each film: none is recorded, so that nobody can say "
        "who is missing; windows and exposures vary as they came, and some films are tilted; nothing finer than a "
        "thirty-second of a film is shown",
    },
    "brain": {
        "data": "IXI, T1, 185 heads",
        "licence": "CC-BY-SA-3.0",
        "credit": "the IXI dataset, brain-development.org (Imperial College London); at 2 mm with labels from the "
        "NiChart project (CBICA, University of Pennsylvania)",
        "source": "https://brain-development.org/ixi-dataset/",
        "citation": "IXI, Information eXtraction from Images (EPSRC GR/S21533/02), brain-development.org",
        "prepared": "heads at 2 mm, nothing but the brain; of each the 24 axial slices around its ventricles, scaled "
        "so that the 99th percentile of the head is 200 of 255; means of 2 x 2 pixels, 48 x 40 at 4 mm; left "
        f"and right also exchanged; the last 35 heads kept apart from everything here. {_HALF}",
        "leaves_out": "patients: all 185 are healthy adults from one hospital (Hammersmith), 20 to 82 years; other "
        "contrasts than T1, other levels than those around the ventricles, the skull, anything below 4 mm",
    },
}
CLAIM = (
    f"Held-out events restored by each entry of the zoo: means of 4 x 4 pixels with noise of 5 % of the range, "
    f"{SAMPLES} draws, --aim fast."
)


def facts(domain: str, kind: str) -> Facts:
    """What a person says of an entry."""
    what = {"chest": "chest films, 32 x 32", "brain": "brain slices, 48 x 40"}[domain]
    examples = (
        f"pictures of nobody, drawn by {domain}-{TEACHERS[kind]}, another prior of the same data, with seed 0: the "
        "data themselves are not part of the package. The figures below are of real events"
    )
    return Facts(title=f"{what}, {KINDS[kind]}", domain=domain, examples=examples, **DOMAINS[domain])


def run(options: Options) -> None:
    """Train what is missing, publish it, restore with it, and publish it again with what was measured."""
    all_names = [f"{domain}-{kind}" for domain in domain_sets.NAMES for kind in KINDS]
    names = [options.only] if options.only else all_names
    if strange := set(names) - set(all_names):
        raise SystemExit(f"--only {strange.pop()}: there is {', '.join(all_names)}")
    place = options.runs / "quick" / "zoo" if options.quick else zoo_folder()
    known = _known(options)
    for name in names:
        known[name] = _published(name, options, place)
        _record(known, options, [one for one in all_names if one in known])
    for name in names:
        _publish(name, options, place, known[name])


def _published(name: str, options: Options, place: Path) -> dict[str, Any]:
    """An entry without its figure, restored with; the row of the table."""
    domain, _, kind = name.partition("-")
    made = _publish(name, options, place, None)
    held_out = domain_sets.domain(domain, options).one_each(SHOWN + RESTORED)
    loaded, start = load(made.folder), time.process_time()
    mean, error, method = _restored(loaded, held_out.test[SHOWN:])
    return {
        "entry": name,
        "family": JOBS[f"{domain}-half-{kind}"].family,
        "PSNR of mean": mean,
        "standard error": error,
        "n": len(held_out.test) - SHOWN,
        "method": method,
        "CPU seconds": round(time.process_time() - start, 1),
        "half precision": made.relative_error,
        "MB": round(made.megabytes, 2),
    }


def _restored(run: Run, truth: torch.Tensor) -> tuple[float, float, str]:
    """PSNR of the mean of draws on [-1, 1], its standard error, and the method that was chosen."""
    rows = Rows(len(truth), seed=0, stream="zoo")
    units, geometry = run.units, run.geometry
    y = simulate(truth, OPERATOR, NOISE * units.scale, rows, units=units, geometry=geometry)
    result = restore(run, y, samples=SAMPLES, aim="fast", seed=0)
    each = psnr(units.to_model(result.mean.double().cpu()), truth.double())
    return float(each.mean()), float(each.std() / len(each) ** 0.5), result.method


def _publish(name: str, options: Options, place: Path, row: Mapping[str, Any] | None) -> Any:
    """The run as an entry, with a row of the table as its figure."""
    domain, _, kind = name.partition("-")
    job = f"{domain}-half-{kind}"
    source, first = load(trained(job, options)), JOBS[job].after
    figures = []
    if row is not None:
        what = f"PSNR of the mean, {row['n']} held-out events, {OPERATOR} with noise 5%, {SAMPLES} draws, --aim fast"
        figures = [Figure(what, row["PSNR of mean"], "dB", row["standard error"], "benchmarks/results/zoo.json")]
    return publish(
        source,
        name,
        facts(domain, kind),
        place,
        first=load(trained(first, options)).record if first else None,
        figures=figures,
        cpu_minutes=cpu(job, options)["total_cpu_minutes"],
        examples=_drawn(f"{domain}-half-{TEACHERS[kind]}", options),
    )


def _drawn(job: str, options: Options) -> torch.Tensor:
    """Draws of a prior, (SHOWN, *event_shape) in [-1, 1]."""
    return load(trained(job, options)).prior().sample(Rows(SHOWN, seed=0, stream="zoo examples")).clamp(-1, 1)


def _known(options: Options) -> dict[str, dict[str, Any]]:
    """The rows that were measured before, of entries that are there."""
    path = (options.runs / "quick" if options.quick else options.results) / "zoo.json"
    rows = json.loads(path.read_text())["table"] if path.is_file() else []
    return {row["entry"]: row for row in rows if (zoo_folder() / row["entry"]).is_dir()}


def _record(known: Mapping[str, Mapping[str, Any]], options: Options, names: list[str]) -> None:
    """The table of all entries, and their sizes against what the zoo may have."""
    place = options.runs / "quick" / "zoo" if options.quick else zoo_folder()
    sizes = [entry(name, place).megabytes for name in names if (place / name).is_dir()]
    figures = {
        "largest_entry": Measured(max(sizes), None, ("<=", 20.0), "MB"),
        "all_entries": Measured(sum(sizes), None, ("<=", 100.0), "MB"),
        "half_precision": Measured(
            max(known[name]["half precision"] for name in names),
            None,
            ("<=", 0.02),
            "the most that it moves a draw, in deviations of the draws",
        ),
    }
    record("zoo", figures, options, table=[known[name] for name in names], claim=CLAIM)
