"""Simulated maps are smooth and of unit norm; ESPIRiT finds them again on a phantom."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.data.phantoms import phantoms
from oneprior.operators.coils import birdcage, combined, estimate_maps, low_resolution
from oneprior.operators.fourier import centred_fft, middle


def _scan(space, coils, noise=1e-3):
    picture = (phantoms(1, space)[0, 0].double() + 1) / 2
    turn = torch.polar(torch.ones(space).double(), torch.linspace(-0.8, 0.8, space[-1]).double().expand(space))
    maps = birdcage(space, coils)
    k = centred_fft(maps * picture * turn, tuple(range(1, 1 + len(space))))
    white = torch.view_as_complex(Rows(1, seed=5).normal(*k.shape, 2, dtype=torch.float64))[0]
    return picture, turn, maps, k + noise * white


@pytest.mark.parametrize("space", [(32, 32), (17, 24), (9, 10, 11)])
def test_simulated_maps_have_unit_norm_and_are_smooth(space):
    maps = birdcage(space, 6)
    assert maps.shape == (6, *space)
    assert torch.allclose(maps.abs().square().sum(0), torch.ones(space, dtype=torch.float64))
    assert len({round(float(m.abs().mean()), 6) for m in maps}) > 1 or len(space) == 2
    for axis in range(1, 1 + len(space)):
        assert float(maps.diff(dim=axis).abs().max()) < 8 / min(space)


@pytest.mark.parametrize(("space", "coils", "size"), [((48, 40), 6, 20), ((24, 24, 20), 4, 12)])
def test_estimated_maps_agree_within_a_few_per_cent_up_to_phase(space, coils, size):
    picture, turn, maps, k = _scan(space, coils)
    calibration = k[(slice(None), *(middle(n, size) for n in space))]
    found = estimate_maps(calibration, space, kernel=6 if len(space) == 2 else 4)
    assert torch.allclose(found.abs().square().sum(0), torch.ones(space, dtype=torch.float64), atol=1e-5)
    overlap = (found.conj() * maps).sum(0)
    apart = (found * (overlap / overlap.abs()) - maps).abs().square().sum(0).sqrt()[picture > 0.1]
    assert float(apart.square().mean().sqrt()) < 0.03
    assert float(apart.quantile(0.95)) < 0.06

    phase = combined(low_resolution(calibration, space), found).angle()  # makes found * exp(i phase) the maps' own
    gap = torch.polar(torch.ones(space).double(), phase) / (overlap * turn / overlap.abs())
    assert float(gap.angle()[picture > 0.1].abs().quantile(0.9)) < (0.05 if len(space) == 2 else 0.12)


def test_the_field_of_the_maps_may_be_a_part_of_the_scan():
    *_, k = _scan((40, 40), 5, noise=0.0)
    calibration = k[:, middle(40, 16), middle(40, 16)]
    whole = estimate_maps(calibration, (40, 40))
    part = estimate_maps(calibration, (40, 20), field=(1.0, 0.5))
    assert torch.allclose(part, whole[:, :, middle(40, 20)], atol=1e-5)
    low = low_resolution(calibration, (40, 40))
    assert torch.allclose(
        low_resolution(calibration, (40, 20), field=(1.0, 0.5)), low[:, :, middle(40, 20)], atol=1e-12
    )


def test_the_low_resolution_picture_keeps_the_values_of_a_flat_one():
    k = centred_fft(torch.full((1, 16, 16), 3.0, dtype=torch.complex128), (1, 2))
    assert torch.allclose(low_resolution(k[:, 4:12, 4:12], (16, 16)).real, torch.tensor(3.0).double())


def test_mistakes_are_told():
    with pytest.raises(InputError, match="fully sampled centre"):
        estimate_maps(torch.ones(4, 8, 1, dtype=torch.complex64), (8, 8))
    with pytest.raises(InputError, match="all zero"):
        estimate_maps(torch.zeros(4, 8, 8, dtype=torch.complex64), (8, 8))
    with pytest.raises(InputError, match="at least 1 coil"):
        birdcage((8, 8), 0)
    assert math.isclose(float(birdcage((8, 8), 1).abs().mean()), 1.0)
