"""Radial and other trajectories against the sum written out, and their norm."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.operators.fourier import centred_fft, coordinates
from oneprior.operators.nufft import NonCartesian, spokes
from oneprior.operators.spectral_norm import largest_singular_value


def _sum(space, points):
    """exp(-2 pi i w r) / sqrt(N), (samples, pixels)."""
    place = torch.meshgrid(*[coordinates(n, dtype=torch.float64) for n in space], indexing="ij")
    angle = -2 * math.pi * (points @ torch.stack([p.flatten() for p in place]))
    return torch.polar(torch.full_like(angle, math.prod(space) ** -0.5), angle)


@pytest.mark.parametrize("space", [(16, 16), (9, 20), (33, 15)])
def test_samples_are_the_sum_and_the_adjoint_is_exact(space):
    points = Rows(150).uniform(2, dtype=torch.float64) - 0.5
    sampling = NonCartesian(space, points)
    z = torch.view_as_complex(Rows(2).normal(*space, 2, dtype=torch.float64))
    expected = sampling.scale * z.flatten(1) @ _sum(space, points).T
    assert (sampling.samples(z) - expected).abs().max() < 1e-6 * expected.abs().max()
    y = torch.view_as_complex(Rows(2, seed=1).normal(150, 2, dtype=torch.float64))
    left, right = (y.conj() * sampling.samples(z)).sum(), (sampling.adjoint(y).conj() * z).sum()
    assert abs(left - right) < 1e-12 * abs(left)


def test_points_of_the_grid_are_those_of_the_fft():
    space = (8, 7)
    grid = torch.stack(
        torch.meshgrid(*[coordinates(n, dtype=torch.float64) / n for n in space], indexing="ij"), -1
    ).reshape(-1, 2)
    sampling = NonCartesian(space, grid)
    assert sampling.scale == pytest.approx(1, abs=1e-6)  # the orthonormal transform has norm 1 already
    z = torch.view_as_complex(Rows(1).normal(*space, 2, dtype=torch.float64))
    assert torch.allclose(sampling.samples(z), centred_fft(z, (1, 2)).flatten(1), atol=1e-6)


def test_the_norm_of_a_radial_scan_is_one():
    space = (10, 12)
    points = spokes(space, 14)
    sampling = NonCartesian(space, points)
    dense = sampling.scale * _sum(space, points)
    assert float(torch.linalg.matrix_norm(dense, 2)) == pytest.approx(1, abs=1e-5)


def test_a_stack_of_stars_encodes_the_first_axis_in_full():
    points = spokes((5, 8, 8), 3)
    stack, plane = NonCartesian((5, 8, 8), points), NonCartesian((8, 8), points)
    z = torch.view_as_complex(Rows(1).normal(5, 8, 8, 2, dtype=torch.float64))
    expected = plane.samples(centred_fft(z, (1,))[0]).flatten()
    assert torch.allclose(stack.samples(z)[0], expected, atol=1e-12)


def test_spokes_run_through_the_centre_at_their_angles():
    points = spokes((8, 8), 4, "uniform").reshape(4, 8, 2)
    assert torch.equal(points[:, 4], torch.zeros(4, 2, dtype=torch.float64))
    angles = torch.rad2deg(torch.atan2(points[:, 5, 0], points[:, 5, 1]))
    assert torch.allclose(angles, torch.tensor([0.0, 45, 90, 135], dtype=torch.float64))
    golden = spokes((8, 8), 2)[[5, 13]]
    assert float(torch.rad2deg(torch.atan2(golden[1, 0], golden[1, 1]))) == pytest.approx(111.246, abs=1e-3)


def test_mistakes_are_told():
    with pytest.raises(InputError, match="cycles a pixel"):
        NonCartesian((8, 8), torch.ones(3, 2))
    with pytest.raises(ShapeError, match="trajectory"):
        NonCartesian((8, 8), torch.zeros(3, 3))
    with pytest.raises(InputError, match="2 or 3 spatial axes"):
        NonCartesian((8,), torch.zeros(3, 2))


def test_largest_singular_value():
    a = Rows(1).normal(40, 30, dtype=torch.float64)[0]
    found = largest_singular_value(lambda v: v @ a.T @ a, torch.ones(1, 30, dtype=torch.float64))
    assert found == pytest.approx(float(torch.linalg.matrix_norm(a, 2)), rel=1e-8)
