"""Phase retrieval, saturation, JPEG: facts, gradients by finite differences, words and mistakes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.autograd import gradcheck

from oneprior.core import InputError, Rows
from oneprior.laws import check_operator
from oneprior.operators import JPEG, PhaseRetrieval, Saturation, parse_operator
from oneprior.operators.ranges import ValueRange

SHAPES = [(1, 11), (2, 7, 5), (1, 3, 4, 5)]


def events(shape, n=2, seed=0):
    return Rows(n, seed=seed).normal(*shape, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("oversampling", [1, 1.7, 2])
def test_phase_retrieval_keeps_norms_and_forgets_place_and_sign(shape, oversampling):
    operator = PhaseRetrieval(shape, oversampling)
    check_operator(operator)
    x = events(shape)
    y = operator(x)
    assert torch.allclose(y.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))  # an isometry before the modulus
    assert torch.allclose(operator(-x), y)
    assert torch.allclose(operator(x.flip(tuple(range(2, x.dim())))), y)
    small = torch.zeros_like(x)
    small[..., :3] = x[..., :3]
    assert torch.allclose(operator(small.roll(1, -1)), operator(small))
    assert gradcheck(operator, x[:1].requires_grad_(), atol=1e-6)


def test_phase_retrieval_of_a_point_is_flat():
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    x[0, 0, 1, 2] = 8.0
    assert torch.allclose(PhaseRetrieval((1, 4, 4), 2)(x), torch.ones(1, 1, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_saturation_clips_and_its_gradient_says_so(shape):
    sharp, soft = Saturation(shape, -0.5, 0.8), Saturation(shape, -0.5, 0.8, 0.05)
    for operator in (sharp, soft):
        check_operator(operator)
        assert gradcheck(operator, events(shape).requires_grad_(), atol=1e-6)
    x = 10 * events(shape)
    assert torch.equal(sharp(x), x.clamp(-0.5, 0.8))
    assert (soft(x) - sharp(x)).abs().max() <= 0.05 * 1.3 * np.log(2) + 1e-9  # the corner itself is s log 2 away
    leaf = torch.full((1, *shape), 5.0, requires_grad=True)
    assert not torch.autograd.grad(sharp(leaf).sum(), leaf)[0].any()


def test_levels_in_units_and_shares():
    operator = parse_operator("saturation:10%..200:range=50..250:soft=0.1", (1, 4, 4))
    assert (operator.low, operator.high, operator.soft) == (70.0, 200.0, 0.1)
    again = parse_operator(operator.spec, (1, 4, 4))
    assert (again.low, again.high, again.soft) == (70.0, 200.0, 0.1)


@pytest.mark.parametrize("quality", [10, 50, 90])
@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_agrees_with_a_jpeg_file(quality, colour):
    """Odd sizes; 4:4:4. The residue is the file library's integer arithmetic."""
    picture = (data.astronaut() if colour else data.camera())[100:201, 150:237]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=0)
    decoded = torch.from_numpy(np.array(Image.open(file)).astype("float64"))
    x = torch.from_numpy(picture.astype("float64"))
    x, decoded = (v.movedim(-1, 0)[None] if colour else v[None, None] for v in (x, decoded))
    y = JPEG(x.shape[1:], quality)(x)
    assert (y - decoded).square().mean().sqrt() < 1
    assert (y - x).square().mean().sqrt() > 1  # it did something
    unit = JPEG(x.shape[1:], quality, ValueRange(-1, 1))(x / 127.5 - 1)
    assert torch.allclose((unit + 1) * 127.5, y, atol=1e-9)


def test_jpeg_laws_and_its_gradient_is_that_of_large_steps():
    operator = JPEG((1, 13, 11), 80, ValueRange(-1, 1))
    check_operator(operator)
    base = 0.3 * Rows(1, seed=1).uniform(1, 13, 11, dtype=torch.float64) - 0.15
    smooth = torch.linspace(-1, 1, 11, dtype=torch.float64).expand(1, 1, 13, 11)
    weight = Rows(1, seed=2).normal(1, 13, 11, dtype=torch.float64) + 3 * smooth
    leaf = base.clone().requires_grad_()
    (slope,) = torch.autograd.grad((operator(leaf) * weight).sum(), leaf)
    step = 0.5 * smooth  # far more than a quantisation step
    numeric = ((operator(base + step) - operator(base - step)) * weight).sum() / 2
    assert abs(float((slope * step).sum() / numeric) - 1) < 0.02


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("phase:0.5", "between 1 and 16"),
        ("phase:two", "is a number"),
        ("saturation:200", "LOW..HIGH"),
        ("saturation:9..2", "LOW < HIGH"),
        ("saturation:a..2", "a level is a number"),
        ("saturation:1..2:range=5", "LOW..HIGH, as in 0..255"),
        ("saturation:1..2:range=5..1", "LOW < HIGH"),
        ("jpeg:0", "between 1 and 100"),
        ("jpeg:high", "whole number"),
        ("jpeg:20:quality=3:grey=1", "no option 'grey'"),
    ],
)
def test_a_mistake_is_told(words, message):
    with pytest.raises(InputError, match=message):
        parse_operator(words, (1, 8, 8))


def test_jpeg_is_for_grey_and_colour_pictures():
    for shape in ((2, 8, 8), (1, 8), (1, 8, 8, 8)):
        with pytest.raises(InputError, match="grey or colour"):
            JPEG(shape, 50)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 13, 11), (3, 9, 16)])
def test_the_surrogate_of_jpeg_is_linear_and_its_noise_is_about_one(shape):
    operator = JPEG(shape, 30, ValueRange(0, 255))
    smooth = operator.surrogate(0.0)
    check_operator(smooth)
    dense = smooth.dense()
    unit = torch.eye(smooth.out_shape.numel(), dtype=torch.float64).reshape(-1, *smooth.out_shape)
    assert (smooth.adjoint(unit).flatten(1) - dense).abs().max() < 1e-10
    x = 128 + 60 * Rows(200, seed=3).normal(*shape, dtype=torch.float64).cumsum(-1) / 3
    x = x.clamp(0, 255).round()
    gap = smooth(operator(x)) - smooth(x)
    assert 0.3 < float(gap.square().mean().sqrt()) < 1.1
