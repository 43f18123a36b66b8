"""python -m benchmarks [NAME ...] [--quick] [--data ...]: run the named benchmarks, or all of them in order."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.harness import ROOT, Options

NAMES = (
    "demo",
    "train",
    "sampling_speed",
    "few_steps",
    "latent_vs_pixel",
    "parzen",
    "gan_stability",
    "frechet_speed",
    "calibration_verdict",
    "posterior_ratios",
    "posterior_bias",
    "restoration",
    "restore_speed",
    "misfit_alarm",
    "domains",
    "volumes",
    "faces",
    "exact_search",
    "ehrlich",
    "beyond",
    "molecules",
    "music",
    "specifications",
    "diagnosis",
    "zoo",
    "pages",
    "tables",
)

WITHOUT_DATA = {
    "demo",
    "gan_stability",
    "calibration_verdict",
    "posterior_ratios",
    "posterior_bias",
    "ehrlich",
    "tables",
}


def main(arguments: list[str] | None = None) -> int:
    """Parse, then run one benchmark here or several in processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    described = dict(re.findall(r"^ +(\w+): (.*)$", Options.__doc__ or "", re.MULTILINE))
    for field in fields(Options):
        flag, text = "--" + field.name, described[field.name]
        if field.name == "quick":
            parser.add_argument(flag, action="store_true", help=text)
        else:
            kind = {"Path": Path, "int": int, "str": str}.get(str(field.type).split(" ")[0], float)
            parser.add_argument(flag, type=kind, default=field.default, help=text)
    given = vars(parser.parse_args(arguments))
    asked = given.pop("names")
    names = asked or list(NAMES)
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    options = Options(**given)
    if not options.data.exists() and not asked:
        names = [name for name in NAMES if name in WITHOUT_DATA]
        print(f"no data at {options.data} (--data): only {', '.join(names)} are run", flush=True)
    elif not options.data.exists() and set(names) - WITHOUT_DATA:
        parser.error(f"no data at {options.data}; give the folder of Fashion-MNIST's IDX files with --data")
    if len(names) == 1:
        torch.set_num_threads(options.threads)
        import_module(f"benchmarks.{names[0]}").run(options)
        return 0
    rest = [text for text in (sys.argv[1:] if arguments is None else arguments) if text not in names]
    failed = []
    for name in names:
        start = time.time()
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", "benchmarks", name, *rest], cwd=ROOT, check=False).returncode:
            failed.append(name)
        print(f"== {name}: {time.time() - start:.0f} s", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all ran")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
