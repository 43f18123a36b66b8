"""Measures of molecules: rings, size, charge; of events of `data.molecules`, and by RDKit.

What every chemist would throw out is said here rather than learned from scores: a ring of eleven atoms may have the
highest prediction of all, as no ring of the data was ever so large.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.data.molecules import END, as_smiles, chemistry
from oneprior.evaluation.specifications.outputs import Outputs


def largest_ring(outputs: Outputs) -> Tensor:
    """Atoms of the largest ring; 0 for none."""
    return _each(outputs, lambda molecule: max(_rings(molecule), default=0))


def smallest_ring(outputs: Outputs) -> Tensor:
    """Atoms of the smallest ring; 99 for none."""
    return _each(outputs, lambda molecule: min(_rings(molecule), default=99))


def atoms(outputs: Outputs) -> Tensor:
    """How many atoms there are but hydrogen."""
    return _each(outputs, lambda molecule: molecule.GetNumHeavyAtoms())


def charge(outputs: Outputs) -> Tensor:
    """The sum of the formal charges."""
    return _each(outputs, lambda molecule: sum(_charges(molecule)))


def charged_atoms(outputs: Outputs) -> Tensor:
    """How many atoms have a formal charge; the two of a nitro group as well."""
    return _each(outputs, lambda molecule: sum(charge != 0 for charge in _charges(molecule)))


def _rings(molecule: Any) -> list[int]:
    return [len(ring) for ring in molecule.GetRingInfo().AtomRings()]


def _charges(molecule: Any) -> list[int]:
    return [atom.GetFormalCharge() for atom in molecule.GetAtoms()]


def _each(outputs: Outputs, number: Callable[[Any], float]) -> Tensor:
    """A number of each molecule, (n,); NaN for what is none."""
    if not outputs.tokens or outputs.tokens[0] != END:
        raise InputError("measures of molecules need molecules: events read from SMILES or SELFIES")
    chem = chemistry()
    if chem is None:
        raise InputError("measures of molecules need RDKit: `pip install rdkit`")
    found = [chem.MolFromSmiles(smiles) for smiles in as_smiles(outputs.x, outputs.tokens)]
    return torch.tensor([float("nan") if one is None else float(number(one)) for one in found], dtype=torch.float64)
