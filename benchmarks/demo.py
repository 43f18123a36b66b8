"""The demonstration's figures, kept: what deep priors gain over exact posteriors on held-out digits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from benchmarks.harness import ROOT, Figure, Options, record

MINUTES = 4.0


def run(options: Options) -> None:
    """`oneprior demo` in an empty folder, and its result.json as a record."""
    folder = options.runs / ("demo-quick" if options.quick else "demo")
    shutil.rmtree(folder, ignore_errors=True)
    small = ["--vae-images", "2000", "--diffusion-images", "2000", "--held-out", "10"] if options.quick else []
    subprocess.run([sys.executable, "-m", "oneprior", "demo", "--out", str(folder), *small], cwd=ROOT, check=True)
    result = json.loads((folder / "result.json").read_text())
    told = result["figures"]
    figures = {
        f"gain_over_{rival}_{problem}": Figure(
            gain,
            told[f"gain_over_{rival}_error_db"][problem],
            (">=", 1.0) if rival == "ppca" else None,
            "dB of the posterior mean, best network",
        )
        for rival in ("ppca", "mixture")
        for problem, gain in told[f"gain_over_{rival}_db"].items()
    }
    figures["minutes"] = Figure(result["seconds"] / 60, None, ("<=", MINUTES), "wall time, imports included")
    table = [{"problem and prior": name, **score} for name, score in told["scores"].items()]
    record(
        "demo",
        figures,
        options,
        table=table,
        claim="Held-out digits restored (left half hidden; 2x2 means; noise 0.5), on the scale of [-1, 1].",
        held_out=told["held_out"],
        learned_from=told["learned_from"],
    )
