"""Molecules to look at: their formulas, where RDKit is installed, and else their SMILES in letters."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from oneprior.apps.pictures import Picture, encode, laid_out, lettering
from oneprior.data.molecules import chemistry

_SIDE = 150


def drawn(smiles: Sequence[str], columns: int = 8) -> Picture:
    """Molecules on a grid, row by row.

    Args:
        smiles: of each.
        columns: in a row.
    """
    return encode(laid_out([np.asarray(_formula(one)) for one in smiles], columns, ground=255), words=True)


def _formula(smiles: str) -> Any:
    from PIL import Image, ImageDraw

    chem = chemistry()
    if chem is None:
        tile = Image.new("RGBA", (_SIDE, _SIDE), (255, 255, 255, 255))
        lines = "\n".join(textwrap.wrap(smiles or "no atom", 20))
        ImageDraw.Draw(tile).text((6, 6), lines, fill=(40, 40, 40, 255), font=lettering(11))
        return tile
    from rdkit.Chem.Draw import rdMolDraw2D  # pyright: ignore[reportMissingImports]

    pen = rdMolDraw2D.MolDraw2DCairo(_SIDE, _SIDE)
    pen.DrawMolecule(chem.MolFromSmiles(smiles) or chem.MolFromSmiles(""))
    pen.FinishDrawing()
    return Image.open(io.BytesIO(pen.GetDrawingText())).convert("RGBA")
