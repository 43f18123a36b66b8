"""Latent against pixel diffusion at the same CPU time (the claim of Rombach et al. 2022, measured on Fashion-MNIST).

Both get 30 CPU minutes, the latent one's autoencoder included, the same U-Net constructor, the same sampler and number
of network calls. Distances are of the features of a small classifier trained on the set's own labels; they are no FID.
"""

from __future__ import annotations

import statistics

from benchmarks.draw import Ruler, load_prior, sample
from benchmarks.harness import Figure, Options, fashion, race, record
from benchmarks.train import SNAPSHOTS, cpu, folder, trained

CALLS = 18


def run(options: Options) -> None:
    """Frechet distance and sampling time of both, at the end and at a third of the budget."""
    count = 200 if options.quick else options.samples
    data = fashion(options)
    distance = Ruler.of(options, data)
    floor = distance.floor(count)
    table, ends, priors = [], {}, {}
    for name, share in (("ldm", SNAPSHOTS[0]), ("ldm", 1.0), ("diffusion", SNAPSHOTS[0]), ("diffusion", 1.0)):
        path, cost = trained(name, options), cpu(name, options)
        if share < 1:
            path = folder(f"{name}@{round(100 * share)}", options)
        if not path.exists():
            continue
        priors[name] = load_prior(path, fast=not options.quick, steps=CALLS)
        x, took = sample(priors[name], count)
        parts = [distance(x[k::5]) for k in range(5)]  # of a fifth each: biased, but their spread is the error
        ends[name, share] = distance(x)
        table.append(
            {
                "model": name,
                "CPU minutes": cost["total_cpu_minutes"] - (1 - share) * cost["cpu_minutes"],
                "images seen": round(share * cost["images"]),
                "Frechet distance": ends[name, share],
                "standard error": statistics.stdev(parts) / 5**0.5,
                "excess": ends[name, share] - floor,
                "ms per image": 1000 * took / count,
            }
        )
    drawn = 50 if options.quick else 250
    plain = {name: load_prior(trained(name, options), steps=CALLS) for name in ("ldm", "diffusion")}
    faster, faster_quick = (
        race(lambda p=p: sample(p["diffusion"], drawn), lambda p=p: sample(p["ldm"], drawn), 2 if options.quick else 5)
        for p in (plain, priors)
    )
    excess = {name: ends[name, 1.0] - floor for name in ("ldm", "diffusion")}
    figures = {
        "distance_ratio": Figure(ends["ldm", 1.0] / ends["diffusion", 1.0], None, ("<=", 1.0), "latent over pixel"),
        "excess_ratio": Figure(excess["ldm"] / excess["diffusion"], note="latent over pixel, above the floor"),
        "sampling_speed": Figure(faster.ratio, faster.error, (">=", 3.0), "images per second, latent over pixel, fp32"),
        "sampling_speed_bf16": Figure(faster_quick.ratio, faster_quick.error, note="the same, both in their fast mode"),
        "floor": Figure(floor, note=f"{count} test images against the training images"),
    }
    record(
        "latent_vs_pixel",
        figures,
        options,
        table=table,
        claim=f"Latent against pixel diffusion at the same CPU time, {CALLS} network calls.",
        features=distance.network.name,
        samples=count,
        sampling_cpu_ratio=faster.cpu_ratio,
        cost={name: cpu(name, options) for name in ("ldm", "autoencoder", "diffusion")},
    )
