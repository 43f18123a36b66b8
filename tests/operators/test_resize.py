"""Bicubic shrinking against Pillow and torch; the adjoint by any factor."""

import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.core import InputError
from oneprior.laws import check_operator
from oneprior.operators import Downsample, bicubic, parse_operator, separable
from oneprior.operators.resize import shrinking


def _picture(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("factor", [2, 3, 4, 2.5, (1, 3), (5, 1.5)])
def test_a_picture_is_shrunk_as_pillow_and_torch_do_it(factor):
    x = _picture(1, 1, 45, 38)
    operator = bicubic((1, 45, 38), factor)
    y = operator(x)[0, 0]
    pillow = Image.fromarray(x[0, 0].numpy(), mode="F").resize(
        tuple(operator.out_shape[:0:-1]), Image.Resampling.BICUBIC
    )
    assert np.abs(y.numpy() - np.asarray(pillow)).max() < 2e-6
    torchs = torch.nn.functional.interpolate(x, size=operator.out_shape[1:], mode="bicubic", antialias=True)
    assert (y - torchs[0, 0]).abs().max() < 2e-6


@pytest.mark.parametrize(
    ("shape", "factor", "out"),
    [((2, 7, 5), 2, (4, 3)), ((1, 11), 2.5, (4,)), ((1, 5, 6, 7), (1, 1, 4), (5, 6, 2)), ((1, 3, 9), 8, (1, 1))],
)
def test_adjoint_constants_and_words(shape, factor, out):
    operator = bicubic(shape, factor)
    assert tuple(operator.out_shape) == (shape[0], *out)
    dense = operator.dense()
    unit = torch.eye(len(dense), dtype=torch.float64).reshape(-1, *operator.out_shape)
    assert (operator.adjoint(unit).flatten(1) - dense).abs().max() < 1e-14
    assert (dense.sum(1) - 1).abs().max() < 1e-14
    assert torch.equal(parse_operator(operator.spec, shape).dense(), dense)


def test_no_factor_is_no_change():
    x = _picture(2, 3, 8, 9)
    assert torch.allclose(bicubic((3, 8, 9), 1)(x), x)


def test_a_long_axis_keeps_its_band_only(monkeypatch):
    dense, x = shrinking(50, 20), _picture(2, 1, 50).double().requires_grad_()
    monkeypatch.setattr(separable, "_DENSE", 10)
    operator = bicubic((1, 50), 2.5)
    assert operator.get_buffer("matrix_0").is_sparse
    y = operator(x)
    assert torch.allclose(y[:, 0], x[:, 0] @ dense.T)
    (slope,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.allclose(slope, 2 * operator.adjoint(y))
    check_operator(operator)


def test_thick_slices_are_box_means_of_one_axis():
    x = _picture(1, 1, 4, 5, 8)
    y = parse_operator("downsample:1x1x4", (1, 4, 5, 8))(x)
    assert torch.allclose(y, x.unflatten(-1, (2, 4)).mean(-1))
    assert isinstance(parse_operator("downsample:1x1x4", (1, 4, 5, 8)), Downsample)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bicubic:0.5", "factor >= 1"),
        ("bicubic:two", "needs a factor"),
        ("bicubic:2x2x2", "1 to 3"),
        ("bicubic", "needs"),
    ],
)
def test_a_mistake_is_told(words, message):
    with pytest.raises(InputError, match=message):
        parse_operator(words, (1, 8, 8))
