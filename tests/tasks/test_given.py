"""What a mask leaves of a sequence stays as it was."""

import pytest
import torch

from oneprior.core import AffineMap, Geometry, Rows
from oneprior.data.one_hot import likeliest, one_hot
from oneprior.tasks import simulate
from oneprior.tasks.given import as_given

WORDS = tuple(f"{voice}:{word}" for voice in range(2) for word in ("rest", "hold", "C4"))
GEOMETRY, UNITS = Geometry(tokens=WORDS), AffineMap.from_range(0, 1)
CODES = torch.tensor([[[0, 2, 1, 2], [1, 1, 2, 0]]])


def test_one_hot_and_back():
    x = one_hot(CODES, 3)
    assert x.shape == (1, 6, 4)
    assert (x == 1).sum() == 8
    assert torch.equal(likeliest(x, 2), CODES)


@pytest.mark.parametrize(("noise", "kept"), [(0.05, True), (0.4, False)])
def test_the_voice_that_was_given_is_put_in_place(noise, kept):
    x = UNITS.to_units(one_hot(CODES, 3))
    given = simulate(x, "mask:voice:1:of=2", noise, Rows(1, seed=2), units=UNITS, geometry=GEOMETRY)
    draws, mean, std = torch.rand(5, 1, 6, 4), torch.rand(1, 6, 4), torch.rand(1, 6, 4)
    after = as_given(given, draws, mean, std)
    assert all(torch.equal(a[..., :3, :], b[..., :3, :]) for a, b in zip(after, (draws, mean, std), strict=True))
    same = [torch.equal(part[..., 3:, :], x[:, 3:].expand_as(part[..., 3:, :])) for part in after[:2]]
    assert same == [kept, kept]
    assert bool((after[2][:, 3:] == 0).all()) == kept


def test_other_events_and_instruments_are_left_alone():
    x = UNITS.to_units(one_hot(CODES, 3))
    draws, mean, std = torch.rand(5, 1, 6, 4), torch.rand(1, 6, 4), torch.rand(1, 6, 4)
    for operator, geometry in (("identity", GEOMETRY), ("mask:voice:1:of=2", Geometry())):
        given = simulate(x, operator, 0.05, Rows(1, seed=2), units=UNITS, geometry=geometry)
        assert as_given(given, draws, mean, std)[0] is draws
