"""Measures of molecules, on molecules that a chemist knows."""

import pytest
import torch

from oneprior.core import InputError
from oneprior.data import open_dataset
from oneprior.evaluation.specifications import Outputs, molecules, suite_from

pytest.importorskip("selfies")
KNOWN = {  # SMILES -> largest ring, smallest ring, atoms, charge, charged atoms
    "CCO": (0, 99, 3, 0, 0),
    "c1ccccc1C2CC2": (6, 3, 9, 0, 0),
    "C1CCCCCCCC1": (9, 9, 9, 0, 0),
    "C[N+](=O)[O-]": (0, 99, 4, 0, 2),
    "C[NH3+]": (0, 99, 2, 1, 1),
}
MEASURES = ("largest_ring", "smallest_ring", "atoms", "charge", "charged_atoms")


@pytest.fixture
def known(tmp_path) -> Outputs:
    pytest.importorskip("rdkit")
    place = tmp_path / "known.smi"
    place.write_text("\n".join(KNOWN))
    data = open_dataset(place)
    return Outputs(data.batch(torch.arange(len(KNOWN))).x, tokens=data.geometry.tokens)


def test_known_molecules(known):
    for k, name in enumerate(MEASURES):
        assert getattr(molecules, name)(known).tolist() == [values[k] for values in KNOWN.values()]


def test_as_a_rule(known):
    suite = suite_from({"checks": [{"name": "small rings", "check": "largest_ring", "at_most": 6}]})
    assert (suite.margins(known)[0] >= 0).tolist() == [True, True, False, True, True]


def test_what_is_no_molecule_is_told():
    with pytest.raises(InputError, match="need molecules"):
        molecules.largest_ring(Outputs(torch.zeros(2, 3, 4)))
