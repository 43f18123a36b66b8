"""Some entries are measured, the others are missing.

The measurement holds the kept entries only, as a list: missing entries carry no noise, no residual and no weight in the
evidence, and a noise level of 0 keeps the known entries exactly. `adjoint` puts the list back into a picture with
zeros. `Erase` is the mask that keeps the picture's shape, for an instrument that other instruments follow.
"""

from __future__ import annotations

import base64
import math
import re
import zlib
from urllib.parse import quote, unquote

import torch
from torch import Tensor

from oneprior.core import InputError, Rows, ShapeError
from oneprior.operators.base import LinearOperator

_BITS = re.compile(r"mask:bits=[^:\s]*:shape=([^:\s]*)(?::file=([^:\s]*))?")
_SIDES = {"left": (-1, 0), "right": (-1, 1), "top": (-2, 0), "bottom": (-2, 1), "front": (-3, 0), "back": (-3, 1)}


class Mask(LinearOperator):
    """y = the entries of x where `keep` holds, in C order, (kept,).

    Args:
        keep: bool, of the shape of the space (shared by the channels) or of `in_shape`.
        in_shape: (channels, *space).
        spec: the words that make it; a self-contained spelling of the mask by default.

    Raises:
        ShapeError: where the mask fits neither the space nor the event.
        InputError: for a mask that keeps nothing.
    """

    disjoint = True
    keeps_pixels = True
    index: Tensor

    def __init__(self, keep: Tensor, in_shape: torch.Size | tuple[int, ...], spec: str = "") -> None:
        super().__init__()
        self.in_shape = torch.Size(in_shape)
        if tuple(keep.shape) not in (tuple(self.in_shape[1:]), tuple(self.in_shape)):
            raise ShapeError("mask", tuple(keep.shape), f"{tuple(self.in_shape[1:])} or {tuple(self.in_shape)}")
        index = keep.bool().expand(self.in_shape).flatten().nonzero().squeeze(1)
        if not index.numel():
            raise InputError("the mask keeps no entry at all: nothing would be measured")
        self.register_buffer("index", index)
        self.out_shape = torch.Size([index.numel()])
        self.spec = spec or spell(keep)

    @property
    def keep(self) -> Tensor:
        """bool, of shape `in_shape`: which entries are measured."""
        keep = torch.zeros(self.in_shape.numel(), dtype=torch.bool, device=self.index.device)
        keep[self.index] = True
        return keep.reshape(self.in_shape)

    def apply(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, self.index]

    def adjoint(self, y: Tensor) -> Tensor:
        x = y.new_zeros(y.shape[0], self.in_shape.numel())
        return x.index_copy(1, self.index, y).reshape(-1, *self.in_shape)

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y)


class Erase(LinearOperator):
    """y = x with zeros at the missing entries, a picture again.

    Args:
        mask: which entries are kept.
    """

    disjoint = True

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.mask, self.spec = mask, mask.spec
        self.in_shape = self.out_shape = mask.in_shape

    def apply(self, x: Tensor) -> Tensor:
        return x * self.mask.keep

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask.keep

    def pinv(self, y: Tensor) -> Tensor:
        return y * self.mask.keep


def side_missing(space: tuple[int, ...], side: str) -> Tensor:
    """Keeps all but one half: of an axis of odd length the smaller half is missing; bool, of shape `space`.

    Args:
        space: spatial shape.
        side: "left", "right" (last axis), "top", "bottom" (the one before), "front" or "back" (the first of three).
    """
    axis, end = _SIDES[side]
    if -axis > len(space):
        raise InputError(f"mask:{side} needs {-axis} spatial axes, and the event has {len(space)}")
    size = space[axis]
    place = torch.arange(size)
    keep = place >= size // 2 if end == 0 else place < size - size // 2
    return keep.reshape(-1, *[1] * (-axis - 1)).expand(space)


def box_missing(space: tuple[int, ...], size: float) -> Tensor:
    """Keeps all but a box in the middle whose sides are `size` times those of the event; bool, of shape `space`."""
    if not 0 < size < 1:
        raise InputError(f"the box's side is a share of the picture's between 0 and 1, got {size}")
    missing = torch.ones((), dtype=torch.bool)
    for length in space:
        side = min(max(1, round(size * length)), length)
        place = torch.arange(length) - (length - side) // 2
        missing = missing[..., None] & ((place >= 0) & (place < side))
    return ~missing


def voice_missing(shape: tuple[int, ...], which: int, count: int) -> Tensor:
    """Keeps all but one of several equal groups of channels; bool, of the event's whole shape.

    Args:
        shape: (channels, *space).
        which: the group that is missing, from 1.
        count: of groups.
    """
    if not 1 <= which <= count:
        raise InputError(f"voice {which} of {count} is to be missing: give one from 1 to {count}")
    if shape[0] % count:
        raise InputError(
            f"the channels of an event, {shape[0]}, are no {count} voices of equally many: is the prior one of music?"
        )
    keep = torch.arange(shape[0]) // (shape[0] // count) != which - 1
    return keep.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)


def random_missing(space: tuple[int, ...], fraction: float, seed: int) -> Tensor:
    """Keeps all but a random share of the entries, exactly round(fraction * size) of them; bool, of shape `space`."""
    if not 0 < fraction < 1:
        raise InputError(f"the missing fraction lies between 0 and 1, got {fraction}")
    size = math.prod(space)
    order = Rows(1, seed=seed).stream("mask").uniform(size, dtype=torch.float64)[0].argsort(stable=True)
    keep = torch.ones(size, dtype=torch.bool)
    keep[order[: round(fraction * size)]] = False
    return keep.reshape(space)


def spell(keep: Tensor, file: str = "") -> str:
    """A mask as words: its bits, packed and compressed, which `unspell` reads; and the file that it is called by."""
    bits = torch.nn.functional.pad(keep.flatten().to(torch.uint8), (0, -keep.numel() % 8)).reshape(-1, 8)
    weights = 2 ** torch.arange(8, dtype=torch.uint8)
    packed = bytes((bits * weights).sum(1).to(torch.uint8).tolist())
    words = base64.urlsafe_b64encode(zlib.compress(packed, 9)).decode().rstrip("=")
    name = f":file={quote(file, safe='')}" if file else ""
    return f"mask:bits={words}:shape={'x'.join(map(str, keep.shape))}{name}"


def spoken(words: str) -> str:
    """Words as people are told of them: of a mask's bits the name of its file, or else its shape."""
    return _BITS.sub(lambda found: f"mask:{unquote(found[2]) if found[2] else f'...:shape={found[1]}'}", words)


def unspell(words: str, shape: tuple[int, ...]) -> Tensor:
    """The mask that `spell` wrote; bool, of this shape.

    Raises:
        InputError: for damaged bits.
    """
    try:
        packed = zlib.decompress(base64.urlsafe_b64decode(words + "=" * (-len(words) % 4)))
    except (ValueError, zlib.error) as error:
        raise InputError(f"the bits of the mask are damaged ({error}); save the measurement again") from None
    bits = torch.tensor(list(packed), dtype=torch.uint8)[:, None] >> torch.arange(8, dtype=torch.uint8) & 1
    size = math.prod(shape)
    if not size <= bits.numel() < size + 8:
        raise InputError(f"the bits of the mask hold {bits.numel()} entries and the shape {shape} needs {size}")
    return bits.flatten()[:size].bool().reshape(shape)
