"""Another program's network file as a run: the weights, and where they came from.

    run = import_run("ffhq.pkl", "runs/faces")
    x = run.prior(space="w+").sample(Rows(4, seed=0))

The card names the file, its SHA-256 and the network that was taken; the licence is that of the file, which only the
person who has it can know.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from oneprior.core import AffineMap, Geometry
from oneprior.models.stylegan_format import import_stylegan
from oneprior.training.order import seeded
from oneprior.training.run import Run, refuse_existing, save


def import_run(path: str | Path, out: str | Path, *, network: str = "G_ema", licence: str | None = None) -> Run:
    """Write the generator of a StyleGAN2-ADA or StyleGAN3 network file (.pkl) as a run; nothing in it is executed.

    Args:
        path: the file; see `oneprior.models.stylegan_format` for what it may hold.
        out: a folder that holds no run yet.
        network: which one: "G_ema", the averaged weights that are meant to be used, or "G".
        licence: of the file, for the card.

    Returns:
        A run of family "gan" in grey levels 0 .. 255, whose critic is fresh: a function of nothing but its size.

    Raises:
        BadFileError: the file is damaged, or asks for what no network needs.
        InputError: it holds something else, or `out` holds a run.
    """
    file, folder = Path(path).expanduser(), Path(out).expanduser()
    refuse_existing(folder)
    with seeded(0, "init"):
        model = import_stylegan(file, network=network)
    with file.open("rb") as opened:
        checksum = hashlib.file_digest(opened, "sha256").hexdigest()
    about = {"imported_from": file.name, "sha256": checksum, "network": network, "licence": licence}
    units, geometry = AffineMap.from_range(0, 255, "grey level"), Geometry(dtype="uint8", format="png")
    return save(model, folder, units=units, geometry=geometry, data=about)
