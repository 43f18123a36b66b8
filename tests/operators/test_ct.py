"""Rays against chords of a disc and another package's; the adjoint, the norm, and filtered back-projection."""

import numpy as np
import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.laws import check_operator
from oneprior.operators import CT, parse_operator


def _disc(size, radius, x, y, finer=8):
    """A disc of value 1 about (x, y), with the pixels on its edge covered in part."""
    place = (np.arange(size * finer) + 0.5) / finer - size / 2
    fine = (place[None] - x) ** 2 + (-place[:, None] - y) ** 2 < radius**2
    return torch.from_numpy(fine.reshape(size, finer, size, finer).mean((1, 3)))[None, None]


SCANNERS = [{"views": 5}, {"views": 6, "distance": 2.0}, {"views": 7, "angles": (0, 120)}, {"views": 4, "detectors": 5}]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 7, 9), (2, 9, 6), (1, 3, 6, 5)])
@pytest.mark.parametrize("scanner", SCANNERS, ids=str)
def test_the_adjoint_is_the_transpose_and_the_norm_one(shape, scanner):
    operator = CT(shape, **scanner)
    check_operator(operator)
    dense = operator.dense()
    unit = torch.eye(len(dense), dtype=torch.float64).reshape(-1, *operator.out_shape)
    assert (operator.adjoint(unit).flatten(1) - dense).abs().max() < 1e-10
    assert float(torch.linalg.matrix_norm(dense, 2)) == pytest.approx(1, abs=1e-5)
    assert torch.equal(parse_operator(operator.spec, shape).dense(), dense)


@pytest.mark.parametrize("scanner", [{"views": 30}, {"views": 31, "distance": 2.5}], ids=str)
def test_a_disc_has_its_chords(scanner):
    size, radius, x, y = 65, 20, 6, -4
    operator = CT((1, size, size), **scanner)
    found = operator(_disc(size, radius, x, y))[0, 0] / operator.scale
    theta, s = operator.geometry.rays()
    chord = 2 * (radius**2 - (s - x * theta.cos() - y * theta.sin()).square()).clamp_min(0).sqrt()
    error = (found - chord) / (2 * radius)
    assert float(error.square().mean().sqrt()) < 0.01
    inside = chord > radius
    assert float(error[inside].abs().max()) < 0.02


def test_another_package_agrees():
    transform = pytest.importorskip("skimage.transform")
    size = 65
    x = _disc(size, 18, 5, -6) + 0.5 * _disc(size, 8, -9, 7)
    operator = CT((1, size, size), 24)
    ours = (operator(x) / operator.scale)[0, 0].numpy()
    theirs = transform.radon(x[0, 0].numpy(), np.arange(24) * 7.5, circle=False).T
    wide = np.arange(theirs.shape[1]) - theirs.shape[1] // 2
    places = operator.geometry.places.numpy()
    theirs = np.stack([np.interp(places, wide, view) for view in theirs])
    assert np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(ours**2)) < 0.03


@pytest.mark.parametrize(
    "scanner", [{"views": 120}, {"views": 150, "distance": 2.0}, {"views": 200, "angles": (0, 360)}], ids=str
)
def test_filtered_back_projection_finds_a_disc_again(scanner):
    operator = CT((1, 49, 49), **scanner)
    x = _disc(49, 14, 4, -3)
    found = operator.fbp(operator(x))
    assert float(found[_disc(49, 11, 4, -3) == 1].mean()) == pytest.approx(1, abs=0.01)
    assert float(found[_disc(49, 17, 4, -3) == 0].abs().mean()) < 0.01
    volume = CT((2, 3, 49, 49), **scanner)
    stack = x.expand(1, 2, 3, -1, -1).contiguous()
    assert torch.allclose(volume.fbp(volume(stack))[0, 1, 2], found[0, 0], atol=1e-10)


def test_the_stopped_inverse_explains_the_data_to_their_noise_row_by_row():
    operator = CT((1, 25, 25), 20)
    x = torch.cat([_disc(25, 7, 2, 1), 0.3 * _disc(25, 4, -3, 2)])
    noise = Rows(2).normal(*operator.out_shape, dtype=torch.float64)
    level = torch.tensor([0.02, 0.005], dtype=torch.float64)
    y = operator(x) + level[:, None, None, None] * noise
    found = operator.stopped(y, level)
    spread = (y - operator(found)).square().flatten(1).mean(1).sqrt() / level
    assert bool((spread <= 1).all())
    assert bool((spread > 0.7).all())
    error, exact = ((z - x).square().mean((1, 2, 3)).sqrt() for z in (found, operator.pinv(y)))
    assert bool((error < exact).all())
    alone = operator.stopped(y[1:], level[1:])
    assert torch.allclose(alone[0], found[1], atol=1e-12)  # the other row's steps do not touch it
    nothing = operator.stopped(0 * y, 0.1)
    assert not nothing.any()


def test_a_limited_range_leaves_the_rest_unseen():
    operator = parse_operator("ct:limited:90:views=9", (1, 9, 9))
    assert torch.rad2deg(operator.geometry.angles).tolist() == pytest.approx(list(range(0, 90, 10)))
    assert operator.spec == "ct:parallel:9:angles=0..90:detectors=13"


def test_moving_one_scanner_leaves_its_twin_where_it_is():
    first, second = CT((1, 8, 8), 4), CT((1, 8, 8), 4)
    first.to("meta")
    assert second(torch.ones(1, 1, 8, 8)).device.type == "cpu"


def test_the_gradient_is_the_adjoint():
    operator = CT((1, 8, 7), 5, distance=3.0)
    x = Rows(2).normal(1, 8, 7, dtype=torch.float64).requires_grad_()
    y = operator(x)
    (gradient,) = torch.autograd.grad(0.5 * y.square().sum(), x, create_graph=True)
    assert torch.allclose(gradient, operator.adjoint(y), atol=1e-12)
    (twice,) = torch.autograd.grad(gradient.square().sum(), x)
    again = operator.adjoint(operator(gradient.detach()))
    assert torch.allclose(twice, 2 * again, atol=1e-12)


@pytest.mark.parametrize(
    ("words", "shape", "message"),
    [
        ("ct:paralel:30", (1, 8, 8), "did you mean 'parallel'"),
        ("ct:parallel:many", (1, 8, 8), "views is a whole number"),
        ("ct:parallel:0", (1, 8, 8), "at least one view"),
        ("ct:parallel:30:views=20", (1, 8, 8), "views twice"),
        ("ct:parallel:30:angles=90", (1, 8, 8), "range in degrees"),
        ("ct:parallel:30:angles=90..10", (1, 8, 8), "range of angles"),
        ("ct:parallel:30:distance=2", (1, 8, 8), "no distance"),
        ("ct:fan:30:distance=0.5", (1, 8, 8), "outside of the picture"),
        ("ct:limited", (1, 8, 8), "ct:limited:120"),
        ("ct:parallel:30", (1, 8), "2 or 3 spatial axes"),
    ],
)
def test_a_mistake_is_told(words, shape, message):
    with pytest.raises(InputError, match=message):
        parse_operator(words, shape)
