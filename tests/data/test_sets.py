"""Sets in memory, the digits, the phantoms, conditions, and tables of the hub."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.core import AffineMap, ConditionSpec, InputError, Rows
from oneprior.data import array_dataset, digits, open_dataset, phantoms
from oneprior.data.labels import from_values


def test_the_digits():
    dataset = digits()
    assert len(dataset) == 1797
    assert dataset.event_shape == (1, 8, 8)
    assert dataset.units.range == (0, 16)
    batch = dataset.batch(torch.arange(1797))
    assert (float(batch.x.min()), float(batch.x.max())) == (-1, 1)
    assert batch.condition["label"].bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_an_array_in_model_units_is_left_alone():
    x = torch.rand(6, 2, 5) * 2 - 1
    assert torch.equal(array_dataset(x, units=AffineMap()).batch(torch.arange(6)).x, x)
    ranged = array_dataset(x * 100)
    assert ranged.units.range == pytest.approx((float(x.min()) * 100, float(x.max()) * 100))
    assert array_dataset(x, value_range=(-2, 2)).units.range == (-2, 2)
    assert open_dataset(x.double(), size=10).event_shape == (2, 10)


def test_conditions_of_every_kind():
    mask = ConditionSpec("mask", "image", (1, 4, 4), via="concat")
    masks = torch.rand(6, 1, 4, 4)
    dataset = array_dataset(
        np.random.default_rng(0).normal(size=(6, 1, 8, 8)), ["b", "a", "b", "a", "c", "c"], conditions={mask: masks}
    )
    assert {c.name: c for c in dataset.conditions}["label"].names == ("a", "b", "c")
    batch = dataset.batch(torch.tensor([4, 0]))
    assert batch.condition["label"].tolist() == [2, 1]
    assert torch.equal(batch.condition["mask"], masks[[4, 0]])
    with pytest.raises(InputError, match="'mask' has 5 values for 6 rows"):
        array_dataset(np.random.default_rng(0).normal(size=(6, 1, 8, 8)), conditions={mask: masks[:5]})


def test_labels_are_told_apart():
    spec, values = from_values(np.array([5, 7, 5, 7]), "x")
    assert (spec.classes, spec.names, values.tolist()) == (2, ("5", "7"), [0, 1, 0, 1])
    spec, values = from_values(np.array([[1.5, 2], [3, 4]]), "x")
    assert (spec.kind, spec.shape, values.dtype) == ("vector", (2,), np.float32)
    with pytest.raises(InputError, match="NaN"):
        from_values(np.array([1.0, np.nan]), "x")


@pytest.mark.parametrize("shape", [(32,), (16, 20), (8, 10, 12)])
def test_phantoms_are_rows(shape):
    x = phantoms(6, shape)
    assert x.shape == (6, 1, *shape)
    assert float(x.min()) == -1
    assert float(x.max()) > -0.5
    assert float(x.flatten(1).std(1).min()) > 0.1
    alone = phantoms(2, shape, Rows([3, 5]))
    torch.testing.assert_close(alone, x[[3, 5]], atol=1e-5, rtol=0)
    assert not torch.equal(phantoms(6, shape, Rows(6, seed=1)), x)
    with pytest.raises(InputError):
        phantoms(3, shape, Rows(2))


class _Feature:
    def __init__(self, names=None):
        self.names = names


_Image = type("Image", (_Feature,), {})
_ClassLabel = type("ClassLabel", (_Feature,), {})


class _Table:
    """The few methods of `datasets.Dataset` that are used."""

    def __init__(self, columns, features):
        self._columns, self.features = columns, features
        self.column_names = list(columns)

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __getitem__(self, key):
        return self._columns[key] if isinstance(key, str) else {k: v[key] for k, v in self._columns.items()}

    def select_columns(self, names):
        return _Table({n: self._columns[n] for n in names}, {n: self.features[n] for n in names})


_Table.__module__ = "datasets.arrow_dataset"


def table():
    values = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    columns = {"picture": [Image.fromarray(v) for v in values], "kind": [0, 1, 2, 2, 1, 0]}
    return values, _Table(columns, {"picture": _Image(), "kind": _ClassLabel(["x", "y", "z"])})


def test_a_table_of_the_hub(tmp_path, monkeypatch):
    values, rows = table()
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "dataset_info.json").write_text("{}")
    fake = types.ModuleType("datasets")
    fake.load_from_disk = lambda path: {"train": rows, "test": rows}
    monkeypatch.setitem(sys.modules, "datasets", fake)
    for place in (rows, tmp_path):
        dataset = open_dataset(place)
        batch = dataset.batch(torch.arange(6))
        np.testing.assert_array_equal(np.rint(dataset.units.to_units(batch.x))[:, 0], values)
        assert dataset.conditions[0].names == ("x", "y", "z")
        assert batch.condition["label"].tolist() == [0, 1, 2, 2, 1, 0]
    with pytest.raises(InputError, match="no column 'z'"):
        open_dataset(rows, key="z")


def test_a_saved_table_without_the_package_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "dataset_dict.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="pip install datasets"):
        open_dataset(tmp_path)
