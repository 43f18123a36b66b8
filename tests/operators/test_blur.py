"""Blurs against SciPy's convolution, their adjoint and inverse at every boundary, and the words that carry a kernel."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from oneprior.core import InputError
from oneprior.laws import check_operator
from oneprior.operators import Blur, gaussian_blur, motion_blur, parse_operator
from oneprior.operators.kernels import gaussian, motion

MODES = {"reflect": "mirror", "symmetric": "reflect", "nearest": "nearest", "zero": "constant", "circular": "wrap"}


def _random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize(
    ("space", "sides"),
    [((11,), (4,)), ((7, 6), (3, 4)), ((7, 6), (1, 5)), ((4, 5), (11, 12)), ((5, 4, 6), (3, 2, 5)), ((1, 5), (3, 3))],
)
def test_a_blur_is_a_true_convolution_with_an_exact_adjoint(space, sides, boundary):
    kernel, x = _random(*sides), _random(2, 2, *space, seed=1)
    operator = Blur((2, *space), kernel, boundary)
    wanted = [[ndimage.convolve(e.numpy(), kernel.numpy(), mode=MODES[boundary]) for e in row] for row in x]
    assert (operator(x) - torch.tensor(np.array(wanted))).abs().max() < 1e-12
    dense = operator.dense()
    unit = torch.eye(len(dense), dtype=torch.float64).reshape(-1, 2, *space)
    assert (operator.adjoint(unit).flatten(1) - dense).abs().max() < 1e-12 * dense.abs().max()
    again = parse_operator(operator.spec, (2, *space))  # the words carry the kernel to the last bit
    assert torch.equal(again(x), operator(x))


def test_light_of_one_point_makes_the_picture_of_the_kernel():
    kernel, x = torch.arange(9.0).reshape(3, 3), torch.zeros(1, 1, 7, 7)
    x[0, 0, 3, 3] = 1
    assert torch.allclose(Blur((1, 7, 7), kernel)(x)[0, 0, 2:5, 2:5], kernel)
    assert torch.allclose(Blur((1, 7, 7), kernel, "circular")(x)[0, 0, 2:5, 2:5], kernel, atol=1e-5)


def test_every_channel_may_have_a_kernel_of_its_own():
    kernels, x = _random(3, 3, 2), _random(2, 3, 6, 5, seed=1)
    for boundary in MODES:
        together = Blur((3, 6, 5), kernels, boundary)
        check_operator(together)
        apart = [Blur((1, 6, 5), k, boundary)(x[:, c : c + 1]) for c, k in enumerate(kernels)]
        assert torch.allclose(together(x), torch.cat(apart, 1))


def test_a_gaussian_axis_by_axis_is_the_gaussian_of_all_axes():
    one = gaussian(1.2)
    for boundary in MODES:
        x = _random(1, 1, 9, 8, 7)
        whole = Blur((1, 9, 8, 7), one[:, None, None] * one[:, None] * one, boundary)
        assert torch.allclose(gaussian_blur((1, 9, 8, 7), 1.2, boundary)(x), whole(x))
    assert gaussian_blur((1, 9, 8), (1.0, 2.0)).spec == "blur:gaussian:1x2"
    place = torch.arange(-len(one) // 2 + 1, len(one) // 2 + 1)
    assert abs(float((place**2 * one).sum()) - 1.2**2) < 2e-3  # 4 deviations hold all but a thousandth of the variance


@pytest.mark.parametrize("words", ["gaussian:1", "gaussian:0.7x1.3", "bits"])
@pytest.mark.parametrize("boundary", MODES)
def test_pinv_is_that_of_the_matrix(words, boundary):
    if words == "bits":
        operator = Blur((1, 6, 5), torch.eye(3) + 0.1, boundary)
    else:
        operator = parse_operator(f"blur:{words}:boundary={boundary}", (1, 6, 5))
    check_operator(operator)
    dense, y = operator.dense(), _random(2, 1, 6, 5)
    exact = y.flatten(1) @ torch.linalg.pinv(dense, rtol=1e-12).T
    assert torch.allclose(operator.pinv(y).flatten(1), exact, rtol=1e-5, atol=1e-6 * float(exact.abs().max()))


def test_motion_is_the_time_spent_in_each_pixel():
    assert torch.allclose(motion(3), torch.full((1, 3), 1 / 3, dtype=torch.float64))
    assert torch.allclose(motion(4, 90), torch.tensor([0.5, 1, 1, 1, 0.5], dtype=torch.float64)[:, None] / 4)
    assert torch.equal(motion(1), torch.ones(1, 1, dtype=torch.float64))
    diagonal = motion(2 * 2**0.5, 45)  # from corner to corner of two pixels: up to the right
    assert torch.allclose(diagonal, torch.tensor([[0, 0, 1], [0, 2, 0], [1, 0, 0]], dtype=torch.float64) / 4)
    for angle in (17, 63, 120, 200):
        kernel = motion(9.3, angle)
        rows, columns = (torch.arange(s) - s // 2 for s in kernel.shape)
        spread = [(kernel.sum(1) * rows**2).sum(), (kernel.sum(0) * columns**2).sum()]
        assert abs(float(sum(spread)) - 9.3**2 / 12) < 0.5  # of a segment, and of the pixels it is rounded to
        assert torch.equal(kernel, motion(9.3, angle + 180))


def test_motion_in_a_volume_and_along_a_line():
    x = _random(1, 1, 5, 6, 7)
    across = motion_blur((1, 5, 6, 7), 3, 90, axes=(0, 2))  # up the first axis
    assert torch.allclose(across(x), Blur((1, 5, 6, 7), torch.full((3, 1, 1), 1 / 3))(x))
    turned = motion_blur((1, 5, 6, 7), 5, 30, axes=(2, 0))
    assert torch.equal(parse_operator(turned.spec, (1, 5, 6, 7))(x), turned(x))
    assert parse_operator("blur:motion:3", (1, 8)).dense().sum(1).allclose(torch.ones(8, dtype=torch.float64))


def test_a_kernel_from_a_file_travels_in_the_words(tmp_path):
    array = torch.rand(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.save(tmp_path / "k.npy", array.numpy())
    Image.fromarray((255 * array).numpy().astype("uint8")).save(tmp_path / "k.png")
    x = _random(1, 1, 8, 8)
    for name, boundary in (("k.npy", "reflect"), ("k.png", "zero")):
        operator = parse_operator([f"blur:{tmp_path / name}:boundary={boundary}"], (1, 8, 8))
        assert torch.equal(parse_operator(operator.spec, (1, 8, 8))(x), operator(x))
        assert str(tmp_path) not in operator.spec
    assert torch.allclose(operator.kernel.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert torch.equal(parse_operator([f"blur:{tmp_path / 'k.npy'}"], (1, 8, 8)).kernel[0], array)


@pytest.mark.parametrize(
    ("words", "shape", "message"),
    [
        ("blur:gausian:2", (1, 8, 8), "did you mean 'gaussian'"),
        ("blur:gaussian:wide", (1, 8, 8), "sigma is a number"),
        ("blur:gaussian:-1", (1, 8, 8), ">= 0"),
        ("blur:gaussian:1x1x1", (1, 8, 8), "one deviation or 2"),
        ("blur:gaussian:1:boundary=mirror", (1, 8, 8), "no boundary 'mirror'"),
        ("blur:motion:0", (1, 8, 8), "length > 0"),
        ("blur:motion:3:angle=45", (1, 8), "angle=0"),
        ("blur:motion:3:axes=1x1", (1, 8, 8, 8), "two different"),
        ("blur:gone.npy", (1, 8, 8), "does not exist"),
        ("blur:bits=AAAA:shape=2x2", (1, 8, 8), "damaged"),
        ("blur", (1, 8, 8), "no form"),
    ],
)
def test_a_mistake_is_told(words, shape, message):
    with pytest.raises(InputError, match=message):
        parse_operator(words, shape)


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="need one of 2 axes"):
        Blur((2, 8, 8), torch.ones(3))
