"""Convolutions of weights that stand still: the same values, the same products with the Jacobian, nothing else made."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from oneprior.core import in_bf16, still_weights
from oneprior.core.still import fixed_conv2d, fixed_conv_transpose2d

CASES = {
    "1-D": (nn.Conv1d(3, 4, 3, padding=1), (2, 3, 9)),
    "strided": (nn.Conv2d(2, 4, 4, stride=2, padding=1), (2, 2, 8, 10)),
    "groups, dilated, no bias": (nn.Conv2d(4, 4, 3, dilation=2, groups=2, bias=False), (2, 4, 9, 8)),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 6, 7)),
    "same": (nn.Conv2d(2, 3, 3, padding="same"), (2, 2, 6, 7)),
    "3-D": (nn.Conv3d(2, 3, (3, 1, 3), padding=(1, 0, 1)), (2, 2, 4, 5, 6)),
    "transposed 3-D": (nn.ConvTranspose3d(3, 2, 4, stride=2, padding=1), (2, 3, 3, 2, 4)),
    "transposed, output padding": (nn.ConvTranspose2d(3, 2, 3, stride=2, output_padding=1), (2, 3, 4, 5)),
}


def products(f, x, v, r):
    """f(x), J' r and J v."""
    point = x.clone().requires_grad_()
    y = f(point)
    probe = torch.zeros_like(y, requires_grad=True)
    (pulled,) = torch.autograd.grad(y, point, probe, create_graph=True)
    back = torch.autograd.grad(y, point, r.to(y), retain_graph=True)[0]
    return y.detach(), back, torch.autograd.grad(pulled, probe, v, retain_graph=True)[0]


@pytest.mark.parametrize("case", CASES)
def test_products_are_those_of_the_plain_convolution(case):
    conv, shape = CASES[case]
    conv = deepcopy(conv).double()
    torch.manual_seed(0)  # of this test's own numbers
    x, v = torch.randn(shape).double(), torch.randn(shape).double()

    def net(z):
        return F.silu(conv(F.silu(z)))

    r = torch.randn(net(x).shape).double()
    plain = products(net, x, v, r)
    with still_weights():
        still = products(net, x, v, r)
    for a, b in zip(plain, still, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_half_of_the_precision_is_autocast_s_own():
    conv, shape = CASES["strided"]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    rough = in_bf16(lambda z: F.silu(conv(z)))
    r = torch.ones_like(rough(x))
    plain = products(rough, x, x, r)
    with still_weights():
        still = products(rough, x, x, r)
    for a, b in zip(plain, still, strict=True):
        assert (a - b).norm() < 0.01 * a.norm()


class Convolutions(TorchDispatchMode):
    """Counts convolutions."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("parameters", [False, True])
def test_a_product_is_one_convolution(parameters):
    conv = nn.Conv2d(2, 2, 3, padding=1).requires_grad_(parameters)
    x = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(2)).requires_grad_()

    def ahead():
        y = F.silu(conv(x))
        probe = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, x, probe, create_graph=True)
        with Convolutions() as counted:
            torch.autograd.grad(pulled, probe, torch.ones_like(x), retain_graph=True)
        return counted.count

    with still_weights():
        assert ahead() == 1
    assert ahead() > 1  # what this file is for; once PyTorch makes one, it has no purpose any more


def test_weights_that_are_computed_keep_their_gradient():
    s = torch.ones(1, requires_grad=True)
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    with still_weights():
        (slope,) = torch.autograd.grad(F.conv2d(x, s.reshape(1, 1, 1, 1) * torch.ones(1, 1, 1, 1)).sum(), s)
    assert slope == 36


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 2)])
def test_a_fixed_filter_is_a_convolution_of_each_channel(stride, padding):
    torch.manual_seed(0)
    x, kernel = torch.randn(2, 3, 7, 8).double(), torch.randn(4, 4).double()
    each = kernel.expand(3, 1, -1, -1)
    y = fixed_conv2d(x, kernel, stride=stride, padding=padding)
    torch.testing.assert_close(y, F.conv2d(x, each, stride=stride, padding=padding, groups=3))
    z = fixed_conv_transpose2d(x, kernel, stride=stride, padding=padding)
    torch.testing.assert_close(z, F.conv_transpose2d(x, each, stride=stride, padding=padding, groups=3))


@pytest.mark.parametrize("function", [fixed_conv2d, fixed_conv_transpose2d])
def test_a_fixed_filter_has_second_derivatives_and_none_for_itself(function):
    torch.manual_seed(0)
    kernel = torch.randn(4, 4).double()
    x = torch.randn(1, 2, 5, 6).double().requires_grad_()

    def f(x):
        return function(x.square(), kernel, stride=2, padding=1)

    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x)
    calls = Counter()
    with calls:
        (gradient,) = torch.autograd.grad(f(x).square().sum(), x, create_graph=True)
        gradient.square().sum().backward()
    assert calls.weights == 0


class Counter(TorchDispatchMode):
    """Counts gradients for weights of convolutions."""

    def __init__(self):
        super().__init__()
        self.weights = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.weights += bool(args[-1][1])
        return func(*args, **(kwargs or {}))
