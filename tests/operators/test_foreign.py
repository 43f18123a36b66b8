"""Instruments of other libraries and functions of one's own: right ones obey the laws, wrong adjoints are caught."""

import pytest
import torch
import torch.nn.functional as F

from oneprior.core import InputError, ShapeError
from oneprior.laws import LawBroken, check_operator
from oneprior.operators import Downsample, Foreign, Function, LinearFunction, parse_operator

SHAPE = (1, 6, 9)


class Shrink(torch.nn.Module):
    """deepinv's shape: A, A_adjoint, and a forward that adds noise."""

    def __init__(self, wrong=False):
        super().__init__()
        self.wrong = wrong
        self.register_buffer("scale", torch.tensor(2.0))

    def A(self, x, **kwargs):
        return F.avg_pool2d(x, 3) * self.scale

    def A_adjoint(self, y, **kwargs):
        up = F.interpolate(y, scale_factor=3, mode="nearest")  # as DPS does, which forgets the box's 1/9
        return up * self.scale / (1 if self.wrong else 9)

    def forward(self, x):
        return self.A(x) + torch.randn_like(self.A(x))


def test_a_physics_of_another_library():
    operator = Foreign(Shrink(), SHAPE)
    assert operator.out_shape == (1, 2, 3)
    assert operator.differentiable
    check_operator(operator)
    assert torch.allclose(operator.dense(), 2 * Downsample(SHAPE, 3).dense())
    assert "scale" in dict(operator.to(torch.float64).named_buffers()).popitem()[0]  # it moves along


def test_a_wrong_adjoint_is_caught():
    with pytest.raises(InputError, match="adjoint of this instrument is wrong: .* differ by 8"):
        Foreign(Shrink(wrong=True), SHAPE)
    unasked = Foreign(Shrink(wrong=True), SHAPE, tolerance=float("inf"))
    with pytest.raises(LawBroken, match="<A x, y> = <x, A' y>"):
        check_operator(unasked)
    with pytest.raises(InputError, match="leave adjoint= away"):
        LinearFunction(lambda x: x.roll(1, -1), SHAPE, adjoint=lambda y: y)  # the image of A itself


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: F.conv2d(x, torch.arange(6.0).reshape(1, 1, 2, 3).to(x)),
        lambda x: torch.fft.rfft2(x),
        lambda x: torch.fft.fft(x) * (1 + 2j),
        lambda x: x.flatten(1)[:, ::2],
    ],
)
def test_autograd_makes_the_adjoint(fn):
    operator = LinearFunction(fn, SHAPE)
    check_operator(operator)
    dense = operator.dense()
    unit = torch.eye(len(dense), dtype=dense.dtype).reshape(-1, *operator.out_shape)
    assert (operator.adjoint(unit).flatten(1) - dense.real).abs().max() < 1e-12
    if dense.is_complex():
        assert (operator.adjoint(1j * unit).flatten(1) - dense.imag).abs().max() < 1e-12


def test_an_adjoint_from_autograd_can_be_differentiated():
    operator = LinearFunction(lambda x: x.cumsum(-1), SHAPE)
    y = torch.ones(2, *SHAPE, requires_grad=True)
    (slope,) = torch.autograd.grad((operator.adjoint(y) * 3).sum(), y)
    assert torch.allclose(slope, operator(torch.full((2, *SHAPE), 3.0)))


def test_a_function_in_numpy_with_a_given_adjoint():
    def roll(x):
        return torch.from_numpy(x.numpy()).roll(1, -1)

    with pytest.raises(InputError, match="no gradient to take its adjoint from"):
        LinearFunction(roll, SHAPE)
    operator = LinearFunction(roll, SHAPE, adjoint=lambda y: y.roll(-1, -1))
    check_operator(operator)
    assert not operator.differentiable
    with pytest.raises(InputError, match="differentiable=False"):
        Function(roll, SHAPE)
    check_operator(Function(roll, SHAPE, differentiable=False))


def test_a_function_that_is_not_linear():
    operator = Function(torch.tanh, SHAPE)
    check_operator(operator)
    assert not operator.linear
    with pytest.raises(InputError, match="is not linear"):
        LinearFunction(torch.tanh, SHAPE)
    with pytest.raises(InputError, match="is not linear"):
        LinearFunction(lambda x: x.clamp(-50, 50), SHAPE)  # linear where it is usually tried
    with pytest.raises(InputError, match="is not linear"):
        LinearFunction(lambda x: x + 1, SHAPE)


def test_what_cannot_be_used_is_told():
    with pytest.raises(InputError, match="fails on a batch of shape .*: RuntimeError"):
        Function(lambda x: x @ torch.ones(3, 3), SHAPE)
    with pytest.raises(InputError, match="gives a tuple"):
        Function(lambda x: (x, x), SHAPE)
    with pytest.raises(ShapeError, match="row by row"):
        Function(lambda x: x.sum(0), SHAPE)
    with pytest.raises(InputError, match="not both A"):
        Foreign(torch.nn.Identity(), SHAPE)


def test_words_load_the_users_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_scanner.py").write_text(
        "import torch\n"
        "from oneprior.operators import Downsample\n"
        "def halves(x):\n    return x[..., ::2]\n"
        "shrink = Downsample((1, 6, 9), 3)\n"
    )
    operator = parse_operator("function:my_scanner:halves:linear=yes", SHAPE)
    check_operator(operator)
    assert operator.linear
    assert operator.spec == "function:my_scanner:halves:linear=yes"
    assert not parse_operator("function:my_scanner:halves", SHAPE).linear
    assert isinstance(parse_operator("function:my_scanner:shrink", SHAPE), Downsample)
    with pytest.raises(InputError, match="did you mean|halves"):
        parse_operator("function:my_scanner:halfs", SHAPE)
    with pytest.raises(InputError, match="needs a module and a name"):
        parse_operator("function:my_scanner", SHAPE)
    with pytest.raises(InputError, match="linear is yes or no"):
        parse_operator("function:torch:neg:linear=maybe", SHAPE)
