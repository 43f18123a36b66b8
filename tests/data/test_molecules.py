"""Molecules read from lines and tables, one-hot, and written again; what cannot be read is told by its line."""

import gzip

import numpy as np
import pytest
import torch

from oneprior.core import Geometry, InputError
from oneprior.data import molecules, open_dataset, write_events
from oneprior.data.decoded import BadFileError
from oneprior.data.molecules import END, as_smiles

try:
    from rdkit import Chem
except ImportError:
    Chem = None

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "C1CC1N", "O"]


def written(tmp_path, name="set.smi", text="\n".join(SMILES)):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def canonical(smiles: str) -> str:
    """One spelling for each molecule; without RDKit, which is optional, the number of its atoms in any order."""
    if Chem is None:
        return "".join(sorted(letter for letter in smiles.upper() if letter.isalpha()))
    return Chem.MolToSmiles(Chem.MolFromSmiles(smiles))


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("a.smi", "\n".join(SMILES), None),
        ("a.smiles", "SMILES name\n" + "\n".join(f"{s} molecule {k}" for k, s in enumerate(SMILES)), None),
        ("a.smi.gz", "\n".join(SMILES) + "\n\n", None),
        ("a.csv", "id,smiles\n" + "\n".join(f"{k},{s}" for k, s in enumerate(SMILES)), None),
        ("a.csv.gz", "Drug,y\n" + "\n".join(f"{s},{k}" for k, s in enumerate(SMILES)), "drug"),
        ("a.tsv", "y\tsmiles\n" + "\n".join(f"{k}\t{s}" for k, s in enumerate(SMILES)), None),
        ("a.selfies", "[C][C][O]\n[C][=C]\n[O]", None),
    ],
)
def test_every_kind_of_file_is_read(tmp_path, name, text, key):
    data = open_dataset(written(tmp_path, name, text), key=key)
    x = data.batch(torch.arange(len(data))).x
    assert x.shape == (len(data), *data.event_shape)
    assert x.unique().tolist() == [-1, 1]
    assert (x.sum(1) == 2 - x.shape[1]).all()  # one token at each place
    assert data.geometry.tokens[0] == END
    again = as_smiles(x, data.geometry.tokens)
    assert len(again) == len(data)
    assert again[0] == "CCO"
    if len(again) == len(SMILES):
        assert [canonical(one) for one in again] == [canonical(one) for one in SMILES]


def test_what_is_written_is_read_again(tmp_path):
    data = open_dataset(written(tmp_path))
    x = data.batch(torch.arange(len(data))).x
    (path,) = write_events(x, tmp_path / "out.smi", data.units, data.geometry)
    again = open_dataset(path, tokens=data.geometry.tokens, size=data.event_shape[-1])
    assert torch.equal(again.batch(torch.arange(len(again))).x, x)
    files = write_events(x[:2], tmp_path / "folder", data.units, data.geometry, names=["a", "b"])
    assert [file.name for file in files] == ["a.smi", "b.smi"]
    assert files[0].read_text() == "CCO\n"
    with pytest.raises(InputError, match="are no molecules"):
        write_events(x, tmp_path / "no.smi", data.units, Geometry())


def test_any_sequence_is_a_molecule():
    tokens = (END, "[C]", "[=C]", "[Ring1]", "[Branch1]", "[O]", "[#N]")
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(200, len(tokens), 12)))
    found = as_smiles(x, tokens)
    assert len(set(found)) > 50
    assert Chem is None or all(Chem.MolFromSmiles(one) is not None for one in found)


def test_another_set_is_read_in_the_words_of_the_first(tmp_path):
    data = open_dataset(written(tmp_path))
    told = {"tokens": data.geometry.tokens, "size": data.event_shape[-1]}
    other = open_dataset(written(tmp_path, "other.smi", "CO\nCC"), **told)
    assert other.event_shape == data.event_shape
    with pytest.raises(BadFileError, match="line 2: it needs the token .Cl., which the model has never seen"):
        open_dataset(written(tmp_path, "strange.smi", "CO\nCCl"), **told)
    with pytest.raises(BadFileError, match="line 1: it has 30 tokens, and there is room for"):
        open_dataset(written(tmp_path, "long.smi", "C" * 30), **told)
    kept = open_dataset(written(tmp_path, "both.smi", "CO\nCCl\nCC"), skip_bad=True, **told)
    assert len(kept) == 2
    assert list(kept.names) == ["line-1", "line-3"]
    assert kept.skipped == (("line 2", "it needs the token [Cl], which the model has never seen"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [("CO\nC1CC", "line 2: 'C1CC' cannot be written"), ("CN(=O)=O", "nitro group"), ("\n", "holds no molecule")],
    ids=["open ring", "nitro", "empty"],
)
def test_what_is_no_molecule_is_told_by_its_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        open_dataset(written(tmp_path, text=text))


def test_a_table_without_molecules_is_no_set_of_them(tmp_path):
    with pytest.raises(InputError, match="has a column 'smiles'"):
        open_dataset(written(tmp_path, "a.csv", "name,score\n1,2\n"))
    with pytest.raises(InputError, match="--size is their length"):
        open_dataset(written(tmp_path), size="8x8")


def test_a_table_without_smiles_names_its_columns_and_an_empty_cell_its_line(tmp_path):
    table = tmp_path / "set.csv"
    table.write_text("molecule;logp\nCCO;1\n;2\n")
    with pytest.raises(InputError, match=r"has a column 'smiles' \(--key\); it has molecule, logp"):
        open_dataset(table)
    with pytest.raises(InputError, match="line 3: is empty"):
        open_dataset(table, key="molecule")
    assert len(open_dataset(table, key="molecule", skip_bad=True)) == 1


@pytest.mark.skipif(Chem is None, reason="RDKit is not installed")
def test_a_molecule_has_one_canonical_name():
    assert molecules.canonical(["OCC", "CCO", "C\\CO", ""]) == ["CCO", "CCO", "CCO", ""]
    assert molecules.canonical(["no molecule"]) == ["no molecule"]
