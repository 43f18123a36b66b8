"""What of the documentation is made by the program: tables from the code, pictures from the tutorials' own results.

    python docs/make.py tables      writes the tables of the pages anew; a test asks that they are as the code is
    python docs/make.py pictures    runs the tutorials in an empty folder, and keeps some of their pictures

A table stands between two comments, `<!-- NAME: made by docs/make.py -->` and `<!-- end -->`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
import measured  # noqa: E402 (the tables of what benchmarks have measured, beside this file)

WITH_TABLES = ("restore.md", "domains.md", "optimise.md")
PAGES = (
    "train.md",
    "sample.md",
    "restore.md",
    "evaluate.md",
    "specifications.md",
    "optimise.md",
    "python.md",
    "zoo.md",
)
PICTURES = {
    "first/panel.png": "restore-first.png",
    "volume/panel.png": "restore-volume.png",
    "slice/panel.png": "restore-kspace.png",
    "film/panel.png": "restore-tiles.png",
}
"""What the tutorials leave behind -> its name in docs/pictures."""
WHEN_OPERATOR = {
    "identity": "nothing is wrong but the noise",
    "mask": "pixels are missing and you know which: scratches, an occlusion, dead sensors",
    "downsample": "pixels, or thick slices, that average over what falls on them: cameras, binning, `1x1x4` in 3-D",
    "mri": "raw data of a scanner; a fastMRI file says all this by itself",
    "ct": "a sinogram of few views, or of a limited angle",
    "bicubic": "a picture that a photo program has shrunk",
    "blur": "you know the kernel: defocus, a straight motion, a measured point spread",
    "grey": "old photographs, for a prior of colour pictures",
    "function": "everything else: see below",
    "phase": "only intensities of a diffraction pattern were recorded",
    "saturation": "under- and overexposed pictures",
    "jpeg": "the file is a JPEG of low quality",
    "bias": "a receive coil, or a lamp, whose field was measured",
    "unknown-bias": "the same, not measured",
    "page": "a scanned page whose fading and stains were measured",
    "unknown-page": "old documents, as they come",
    "unknown-blur": "out of focus by an amount that you can only guess",
    "unknown-motion": "shaken, in a direction that you can only guess",
    "unknown-kernel": "a small blur of any shape; the least that can be known, and the slowest",
    "unknown-mri": "coil maps that were measured before the patient moved",
}
WHEN_NOISE = {
    "gaussian": "you know it, from a flat part of the picture or from the instrument's sheet",
    "unknown": "you do not; a wrong picture can pass for noise, so read the residual",
    "poisson": "photons or counts, few enough that dark is quieter than bright",
    "rician": "magnitudes of MRI below 3 deviations of the noise; above, `gaussian` will do",
    "laplace": "film grain, rounding, errors that are often small and sometimes large",
    "outliers": "dust, cosmic rays, a few pixels that say nothing",
}
_HIGHEST = 0.15  # of the value range: the brightest deviation in the picture of the instruments
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def methods_by_aim() -> str:
    """The table of `tasks.methods`, from its own page of theory."""
    from oneprior.tasks import methods

    lines = [line for line in (methods.__doc__ or "").splitlines() if line.startswith("|")]
    assert len(lines) > 3, "the table has left tasks/methods.py"
    return "\n".join(lines)


def methods_by_name() -> str:
    """Every method by name, and whether it has its paper's settings."""
    from oneprior.tasks.methods import METHODS

    lines = ["| `--method` | what it is | `:published` |", "|---|---|---|"]
    lines += [f"| `{name}` | {m.meaning} | {'yes' if m.published else ''} |" for name, m in METHODS.items()]
    return "\n".join(lines)


def operators() -> str:
    """The grammar of --operator, and when to take which."""
    from oneprior.operators.grammar import grammar

    return _grammar("--operator", grammar(), WHEN_OPERATOR)


def noises() -> str:
    """The grammar of --noise, and when to take which."""
    from oneprior.likelihoods.noise_words import noise_grammar

    return _grammar("--noise", noise_grammar(), WHEN_NOISE)


def _grammar(head: str, entries, when: Mapping[str, str]) -> str:
    lines = [f"| `{head}` | what it says | take it for |", "|---|---|---|"]
    for entry in entries:
        usage = "<br>".join(f"`{words.replace('|', chr(92) + '|')}`" for words in entry.usage)
        lines.append(f"| {usage} | {entry.meaning.replace('|', chr(92) + '|')} | {when[entry.name]} |")
    return "\n".join(lines)


TABLES = {
    **measured.TABLES,
    "methods": methods_by_aim,
    "method names": methods_by_name,
    "operators": operators,
    "noises": noises,
}


def with_tables(page: str) -> str:
    """The page with every table as the code has it now."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: made by docs/make.py -->", "<!-- end -->"
        if begin in page:
            before, _, rest = page.partition(begin)
            page = f"{before}{begin}\n{table()}\n{end}{rest.partition(end)[2]}"
    return page


def blocks(page: str) -> list[tuple[str, str]]:
    """(bash or python, text) of each block of a page that is executed."""
    return _BLOCK.findall((DOCS / page).read_text())


def run_page(page: str) -> dict[str, Any]:
    """Execute a page in the present folder: shell blocks in a shell, its Python in one namespace, as a reader would.

    Returns:
        The names that its Python has made.

    Raises:
        AssertionError: where a shell block fails, with its last words.
    """
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    command = f'oneprior() {{ {shlex.quote(sys.executable)} -m oneprior "$@"; }}\nset -e\n'
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    for kind, text in blocks(page):
        if kind == "python":
            exec(compile(text, page, "exec"), namespace)
            continue
        words = ["bash", "-c", command + text]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page}:\n{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return namespace


def pictures() -> None:
    """Run the pages that make pictures, and keep these."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made = {page: run_page(page) for page in PAGES[: PAGES.index("restore.md") + 1]}
        for source, name in PICTURES.items():
            shutil.copy(source, DOCS / "pictures" / name)
            print(f"-> {DOCS / 'pictures' / name}")
        if (DOCS.parent / "benchmarks/results/volumes.npz").exists():  # hours of restoring, unlike the pages
            head_planes(DOCS / "pictures/domains-heads.png")
        instruments(made["restore.md"]["seen"], DOCS / "pictures/restore-instruments.png")
        os.chdir(DOCS)


def instruments(results: Mapping[str, Any], path: Path, side: int = 96) -> None:
    """A column for each instrument that a phantom was seen by: what was measured, and what is known of it then."""
    import numpy as np
    from PIL import Image

    from oneprior.apps import panels
    from oneprior.apps.pictures import encode, stack

    lines: dict[str, list[np.ndarray]] = {}
    for result in results.values():
        shown = panels.views(result, 0, samples=1, highest=_HIGHEST)
        for name in ("measurement", "mean", "sample 1", "deviation", "truth"):
            cell = Image.fromarray(shown[name]).resize((side, side), Image.Resampling.NEAREST)
            lines.setdefault(name, []).append(np.pad(np.asarray(cell), ((0, 0), (0, 6), (0, 0))))
    stack([(name, encode(np.hstack(cells))) for name, cells in lines.items()]).save(path)
    print(f"-> {path}")


def head_planes(path: Path) -> None:
    """Three planes of a held-out head, thick slices on the left and a lost slab on the right, from the benchmark."""
    import numpy as np
    from PIL import Image

    from oneprior.apps.pictures import encode, stack

    with np.load(DOCS.parent / "benchmarks/results/volumes.npz", allow_pickle=False) as file:
        strips = {key: file[key] for key in file.files}
    lines: dict[str, list[np.ndarray]] = {}
    for key, strip in strips.items():
        lines.setdefault(key.partition("/")[2], []).append(np.pad(strip, ((0, 0), (0, 8))))
    shown = []
    for name, parts in lines.items():
        line = Image.fromarray(np.hstack(parts)).convert("RGBA")
        shown.append((name, encode(np.asarray(line.resize((3 * line.width, 3 * line.height))))))
    stack(shown).save(path)
    print(f"-> {path}")


def main(words: list[str]) -> None:
    """`tables`, `pictures`, or both."""
    sys.path.insert(0, str(DOCS.parent / "src"))
    if unknown := set(words) - {"tables", "pictures"}:
        sys.exit(f"docs/make.py makes tables and pictures, not {', '.join(sorted(unknown))}")
    if not words or "tables" in words:
        for path in map(DOCS.joinpath, WITH_TABLES):
            path.write_text(with_tables(path.read_text()))
            print(f"-> {path}")
    if not words or "pictures" in words:
        pictures()


if __name__ == "__main__":
    main(sys.argv[1:])
