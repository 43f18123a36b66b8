"""Units, geometry, conditions and errors."""

import json

import pytest
import torch

from oneprior.core import AffineMap, ConditionSpec, Geometry, InputError, ShapeError


def test_units_round_trip_and_range():
    units = AffineMap.from_range(-1024, 3071, "Hounsfield unit")
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    assert torch.allclose(units.to_model(units.to_units(x)), x)
    assert units.to_units(torch.tensor([-1.0, 1.0])).tolist() == [-1024, 3071]
    assert units.range == (-1024, 3071)
    assert AffineMap.from_dict(json.loads(json.dumps(units.to_dict()))) == units


@pytest.mark.parametrize("low_high", [(1, 1), (2, 1)])
def test_an_empty_range_is_refused(low_high):
    with pytest.raises(InputError, match="low < high"):
        AffineMap.from_range(*low_high)


def test_geometry_and_conditions_survive_json():
    geometry = Geometry("int16", (1.0, 1.0, 2.5), ((1.0, 0.0, 0.0, 5.0),) * 4, "nifti", axis=2)
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry
    spec = ConditionSpec("label", "class", classes=3, names=("a", "b", "c"))
    assert ConditionSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_conditions_that_cannot_be_are_refused_by_name():
    with pytest.raises(InputError, match="'label'"):
        ConditionSpec("label", "class")
    with pytest.raises(InputError, match="'mask'.*concat"):
        ConditionSpec("mask", "image", (1, 8, 8))


def test_a_shape_error_says_given_needed_and_remedy():
    error = ShapeError("y.npz", (3, 4), (1, 8, 8), "Resize it.")
    assert str(error) == "y.npz: got shape (3, 4), needed (1, 8, 8). Resize it."
    assert isinstance(error, InputError)
    assert isinstance(error, ValueError)
