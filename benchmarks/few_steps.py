"""How much is lost by 10 network calls instead of 100, in Frechet distance on Fashion-MNIST.

The excess of a model is its distance to the training images minus that of the test images. Distances are of the
features of a small classifier trained on the set's own labels; they are no FID.
"""

from __future__ import annotations

import statistics

from benchmarks.draw import Ruler, load_prior, sample
from benchmarks.harness import Figure, Options, fashion, record
from benchmarks.train import trained

CALLS = (10, 100)


def run(options: Options) -> None:
    """Excess at 10 and at 100 calls of the latent diffusion run, and that of the VAE."""
    count, seeds = (200, 2) if options.quick else (options.samples, options.seeds)
    data = fashion(options)
    distance = Ruler.of(options, data)
    floor = distance.floor(count)
    path = trained("ldm", options)
    found: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for calls in CALLS:
        prior = load_prior(path, fast=not options.quick, steps=calls)
        for seed in range(seeds):
            x, took = sample(prior, count, seed=seed)
            found.setdefault(f"ldm, {calls} calls", []).append(distance(x) - floor)
            seconds[f"ldm, {calls} calls"] = took / count * 1000
    vae = load_prior(trained("vae", options), decoder_noise=False)  # its means: the better law of the two
    for seed in range(seeds):
        x, took = sample(vae, count, seed=seed)
        found.setdefault("vae", []).append(distance(x) - floor)
        seconds["vae"] = took / count * 1000
    few, many, baseline = found[f"ldm, {CALLS[0]} calls"], found[f"ldm, {CALLS[1]} calls"], found["vae"]
    ratios = [a / b for a, b in zip(few, many, strict=True)]
    shares = [a / b for a, b in zip(many, baseline, strict=True)]
    table = [
        {"model": name, "excess": statistics.mean(v), "standard error": _error(v), "ms per image": seconds[name]}
        for name, v in found.items()
    ]
    figures = {
        "excess_ratio_10_to_100": Figure(statistics.mean(ratios), _error(ratios), ("<=", 1.3), "10 calls over 100"),
        "excess_share_of_vae": Figure(statistics.mean(shares), _error(shares), ("<=", 0.25), "at 100 calls"),
        "floor": Figure(floor, note=f"{count} test images against the training images"),
    }
    record(
        "few_steps",
        figures,
        options,
        table=table,
        claim="Excess Frechet distance over real against real, at 10 and at 100 network calls (bf16, compiled).",
        features=distance.network.name,
        samples=count,
        seeds=seeds,
    )


def _error(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
