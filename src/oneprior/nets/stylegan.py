"""The layers of StyleGAN2: equalised learning rates, exact FIR resampling, modulated convolution.

Karras, Laine, Aittala, Hellsten, Lehtinen and Aila 2020, "Analyzing and improving the image quality of StyleGAN". The
weights of every layer are stored as N(0, 1) and multiplied by 1 / sqrt(inputs) when they are used (He's start moved
from the start into the forward pass), so that Adam gives all layers the same relative step.

A style scales the input channels of a convolution, and demodulation divides each output channel by the norm of its
scaled weights, which keeps unit variance without looking at the features (section 2.2, equations 1 to 3). Here the
scales are put on the features instead of on the weights: s_i scales input channel i before, and d_j = (sum_{i,k} (s_i
w_{jik})^2 + 1e-8)^(-1/2) scales output channel j after one convolution that all rows share, the same function without
a weight tensor per row.

Resampling by two uses the binomial filter [1, 3, 3, 1] / 8 in each axis, whose gain is one at every output sample of
both maps (the polyphase parts of the doubled filter, [3, 1] / 4 and [1, 3] / 4, sum to one).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core.still import fixed_conv2d, fixed_conv_transpose2d

LEAK = 0.2
_BINOMIAL = (1.0, 3.0, 3.0, 1.0)


def resample_filter() -> Tensor:
    """The outer product of [1, 3, 3, 1] / 8 with itself, (4, 4), which sums to one."""
    line = torch.tensor(_BINOMIAL)
    line = line / line.sum()
    return line[:, None] * line[None, :]


def fir(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """Each channel filtered by a symmetric kernel (4, 4); (n, c, h, w) -> (n, c, h + 2 padding - 3, ...)."""
    return fixed_conv2d(x, kernel, padding=padding)


def upsample2(x: Tensor, kernel: Tensor) -> Tensor:
    """Zeros between the samples, then the filter with gain 4; (n, c, h, w) -> (n, c, 2h, 2w)."""
    return fixed_conv_transpose2d(x, 4.0 * kernel, stride=2, padding=1)


def downsample2(x: Tensor, kernel: Tensor) -> Tensor:
    """The filter, then every second sample; the adjoint of `upsample2` over 4; (n, c, 2h, 2w) -> (n, c, h, w)."""
    return fixed_conv2d(x, kernel, stride=2, padding=1)


def activate(x: Tensor) -> Tensor:
    """Leaky rectifier of slope 0.2 times sqrt(2), which keeps the second moment of a standard normal near one."""
    return F.leaky_relu(x, LEAK) * math.sqrt(2.0)


def clamped(x: Tensor, limit: float) -> Tensor:
    """x within +- limit, or as it is where limit is 0; half precision needed that in official trainings."""
    return x.clamp(-limit, limit) if limit else x


def unit_second_moment(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-8) along the last axis."""
    return x * (x.square().mean(-1, keepdim=True) + 1e-8).rsqrt()


class EqualLinear(nn.Module):
    """x W' / sqrt(inputs) + b, with W and b stored at 1 / rate of their size; (..., inputs) -> (..., outputs).

    Args:
        inputs: length of the input.
        outputs: length of the output.
        rate: learning rate relative to that of other layers (0.01 in the mapping network).
        bias: the start of the bias.
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * (self.rate / math.sqrt(self.weight.shape[1])), self.bias * self.rate)


class EqualConv(nn.Module):
    """Convolution kxk with equalised weights, at the same size or filtered and halved; (n, c, h, w).

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: 1 or 3.
        bias: whether there is one; it starts at zero.
        down: whether the size is halved.
    """

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True, down: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.down = down
        self.register_buffer("resample_filter", resample_filter(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (1.0 / math.sqrt(self.weight[0].numel()))
        padding = self.weight.shape[-1] // 2
        if not self.down:
            return F.conv2d(x, weight, self.bias, padding=padding)
        if padding == 0:
            return F.conv2d(downsample2(x, self.resample_filter), weight, self.bias)
        return F.conv2d(fir(x, self.resample_filter, 2), weight, self.bias, stride=2)


def modulated_conv(
    x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True, up_filter: Tensor | None = None
) -> Tensor:
    """Convolution whose input channels are scaled by a style, row by row, and its outputs brought back to unit gain.

    Args:
        x: features, (n, inputs, h, w).
        weight: (outputs, inputs, k, k), k odd.
        style: (n, inputs).
        demodulate: divide each output channel by the norm of its scaled weights.
        up_filter: (4, 4) to double the size (transposed convolution, then the filter), None to keep it.

    Returns:
        (n, outputs, h, w), or doubled.

    Source: Karras et al. 2020, equations 1 and 3.
    """
    out_scale = None
    if demodulate:
        energy = style.square() @ weight.square().sum((2, 3)).T
        out_scale = (energy + 1e-8).rsqrt()[:, :, None, None]
    h = x * style[:, :, None, None]
    if up_filter is None:
        h = F.conv2d(h, weight, padding=weight.shape[-1] // 2)
    else:
        h = fir(F.conv_transpose2d(h, weight.transpose(0, 1), stride=2), 4.0 * up_filter, 1)
    return h if out_scale is None else h * out_scale


def style_grids(size: torch.Size | tuple[int, ...]) -> list[tuple[int, int]]:
    """Grids from the coarsest to the finest, each twice the one before; the finest holds the event.

    The coarsest is ceil(size / 2^k) with the largest k that leaves 4 on each side: 28 -> 4, 8, 16, 32 and
    80 x 96 -> 5 x 6, ..., 80 x 96. What stands over is cut off by the generator and padded by the critic.
    """
    height, width = size
    k = 0
    while min(-(-height // 2 ** (k + 1)), -(-width // 2 ** (k + 1))) >= 4:
        k += 1
    return [(-(-height // 2**k) * 2**j, -(-width // 2**k) * 2**j) for j in range(k + 1)]


def style_widths(width: int, max_width: int, levels: int) -> list[int]:
    """Channels from the coarsest level to the finest: `width` at the finest, doubled at each coarser one."""
    return [min(width * 2**k, max_width) for k in range(levels)][::-1]
