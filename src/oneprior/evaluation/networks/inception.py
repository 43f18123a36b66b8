"""Inception-v3 as the FID uses it: the graph of 2015 that TensorFlow published, with 2048 features before its logits.

The architecture is that of Szegedy et al. 2015 ("Rethinking the Inception architecture"), with what sets the graph of
the FID (Heusel et al. 2017) apart from later versions: averages over 3 x 3 leave out the padding; the last of the two
widest blocks pools by maximum where its twin averages; batch normalisation has eps = 10^-3; there are 1008 logits. The
features are the mean over space of the last block ("pool3").

A block is branches side by side, joined along channels in the order of the table; a branch is a chain of steps. Steps
of stride 1 keep the size, steps of stride 2 use no padding. Names are those of the published state dicts (pytorch-fid
and torch-fidelity, the same file).

Pictures come as whole levels; see `pictures`. TensorFlow's way maps them by (u - 128) / 128, pytorch-fid's by
2 u / 255 - 1: each belongs to its way of resizing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import InputError
from oneprior.evaluation.networks.pictures import bilinear, levels

SIZE = 299
WAYS = ("tensorflow", "torch")


@dataclass(frozen=True)
class _Step:
    """A convolution, or, without channels, a pool (average, maximum, shrink)."""

    name: str
    channels: int = 0
    kernel: int | tuple[int, int] = 1
    stride: int = 1


_Fork = tuple[_Step, ...]  # convolutions of one input, joined
_Branches = tuple[tuple[_Step | _Fork, ...], ...]

_AVERAGE, _MAXIMUM, _SHRINK = _Step("average"), _Step("maximum"), _Step("shrink")
_FLAT, _TALL = (1, 7), (7, 1)


def _squares(pool: int) -> _Branches:
    return (
        (_Step("branch1x1", 64),),
        (_Step("branch5x5_1", 48), _Step("branch5x5_2", 64, 5)),
        (_Step("branch3x3dbl_1", 64), _Step("branch3x3dbl_2", 96, 3), _Step("branch3x3dbl_3", 96, 3)),
        (_AVERAGE, _Step("branch_pool", pool)),
    )


def _lines(width: int) -> _Branches:
    far = [_Step(f"branch7x7dbl_{i}", width, _TALL if i % 2 == 0 else _FLAT) for i in (2, 3, 4)]
    return (
        (_Step("branch1x1", 192),),
        (_Step("branch7x7_1", width), _Step("branch7x7_2", width, _FLAT), _Step("branch7x7_3", 192, _TALL)),
        (_Step("branch7x7dbl_1", width), *far, _Step("branch7x7dbl_5", 192, _FLAT)),
        (_AVERAGE, _Step("branch_pool", 192)),
    )


def _wide(pool: _Step) -> _Branches:
    def fork(name: str) -> _Fork:
        return _Step(f"{name}a", 384, (1, 3)), _Step(f"{name}b", 384, (3, 1))

    return (
        (_Step("branch1x1", 320),),
        (_Step("branch3x3_1", 384), fork("branch3x3_2")),
        (_Step("branch3x3dbl_1", 448), _Step("branch3x3dbl_2", 384, 3), fork("branch3x3dbl_3")),
        (pool, _Step("branch_pool", 192)),
    )


_BLOCKS: dict[str, tuple[int, _Branches]] = {  # channels that come in, branches
    "Mixed_5b": (192, _squares(32)),
    "Mixed_5c": (256, _squares(64)),
    "Mixed_5d": (288, _squares(64)),
    "Mixed_6a": (
        288,
        (
            (_Step("branch3x3", 384, 3, 2),),
            (_Step("branch3x3dbl_1", 64), _Step("branch3x3dbl_2", 96, 3), _Step("branch3x3dbl_3", 96, 3, 2)),
            (_SHRINK,),
        ),
    ),
    "Mixed_6b": (768, _lines(128)),
    "Mixed_6c": (768, _lines(160)),
    "Mixed_6d": (768, _lines(160)),
    "Mixed_6e": (768, _lines(192)),
    "Mixed_7a": (
        768,
        (
            (_Step("branch3x3_1", 192), _Step("branch3x3_2", 320, 3, 2)),
            (
                _Step("branch7x7x3_1", 192),
                _Step("branch7x7x3_2", 192, _FLAT),
                _Step("branch7x7x3_3", 192, _TALL),
                _Step("branch7x7x3_4", 192, 3, 2),
            ),
            (_SHRINK,),
        ),
    ),
    "Mixed_7b": (1280, _wide(_AVERAGE)),
    "Mixed_7c": (2048, _wide(_MAXIMUM)),
}


class _Convolution(nn.Module):
    """Convolution, batch normalisation, rectifier."""

    def __init__(self, before: int, after: int, kernel: int | tuple[int, int], stride: int, same: bool) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if same else 0
        self.conv = nn.Conv2d(before, after, sides, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Branches side by side."""

    def __init__(self, before: int, branches: _Branches) -> None:
        super().__init__()
        self.branches = branches
        for branch in branches:
            width = before
            for step in branch:
                parts = step if isinstance(step, tuple) else (step,)
                for part in parts:
                    if part.channels:
                        layer = _Convolution(width, part.channels, part.kernel, part.stride, part.stride == 1)
                        self.add_module(part.name, layer)
                width = sum(part.channels for part in parts) or width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._along(branch, x) for branch in self.branches], 1)

    def _along(self, branch: tuple[_Step | _Fork, ...], x: Tensor) -> Tensor:
        for step in branch:
            if isinstance(step, tuple):
                x = torch.cat([self._step(part, x) for part in step], 1)
            else:
                x = self._step(step, x)
        return x

    def _step(self, step: _Step, x: Tensor) -> Tensor:
        if step.channels:
            return self.get_submodule(step.name)(x)
        if step.name == "average":
            return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return F.max_pool2d(x, 3, 2) if step.name == "shrink" else F.max_pool2d(x, 3, 1, 1)


class Inception(nn.Module):
    """Features, stages and logits of pictures in [-1, 1], (n, 1 or 3, height, width).

    Args:
        resize: "tensorflow" (the FID, torch-fidelity, StyleGAN) or "torch" (pytorch-fid).
    """

    dimension = 2048

    def __init__(self, resize: Literal["tensorflow", "torch"] = "tensorflow") -> None:
        super().__init__()
        if resize not in WAYS:
            raise InputError(f"resize={resize}: Inception resizes pictures by {' or '.join(WAYS)}")
        self.resize = resize
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, 2, False)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, 1, False)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, 1, True)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1, 1, True)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, 1, False)
        for name, (before, branches) in _BLOCKS.items():
            self.add_module(name, _Block(before, branches))
        self.fc = nn.Linear(2048, 1008)
        self.eval().requires_grad_(False)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Activations of 64, 192, 768 and 2048 channels, at 73, 35, 17 and 8 pixels a side."""
        pictures = bilinear(levels(x, "Inception"), SIZE, self.resize)
        pictures = (pictures - 128) / 128 if self.resize == "tensorflow" else pictures / 127.5 - 1
        first = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(pictures.to(self.fc.weight.dtype))))
        found = [F.max_pool2d(first, 3, 2)]
        found.append(F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(found[0])), 3, 2))
        x = found[-1]
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
            if name in ("Mixed_6e", "Mixed_7c"):
                found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """The mean over space of the last stage, (n, 2048)."""
        return self.stages(x)[-1].mean((2, 3))

    def logits(self, x: Tensor) -> Tensor:
        """Class logits, (n, 1008)."""
        return self.fc(self(x))
