"""Kernels of a blur: how light of one point is spread over its neighbours, and how that is written in words.

All have odd sides unless a user's has not, and sum to 1 unless a user's array says otherwise. The centre of a side of k
entries is entry k // 2, as in `scipy.ndimage.convolve`.
"""

from __future__ import annotations

import base64
import itertools
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from oneprior.core import InputError

_REACH = 4.0  # standard deviations at which a Gaussian ends; the tails beyond hold 6e-5


def gaussian(sigma: float) -> Tensor:
    """Samples of exp(-i^2 / (2 sigma^2)) up to 4 sigma, summing to 1; (2 ceil(4 sigma) + 1,), float64.

    Args:
        sigma: standard deviation in entries, >= 0; 0 blurs nothing.
    """
    if not 0 <= sigma < math.inf:
        raise InputError(f"the deviation of a blur is a number of pixels >= 0, got {sigma}")
    if sigma == 0:
        return torch.ones(1, dtype=torch.float64)
    reach = math.ceil(_REACH * sigma)
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (place / sigma).square())
    return kernel / kernel.sum()


def motion(length: float, angle: float = 0.0) -> Tensor:
    """A straight path at even speed: how long each pixel sees it; odd sides, float64, summing to 1.

    Args:
        length: of the path, in pixels, > 0; 1 blurs nothing along an axis.
        angle: degrees from the last axis (to the right) towards the top, counter-clockwise.
    """
    if not 0 < length < math.inf or not math.isfinite(angle):
        raise InputError(f"a motion has a length > 0 in pixels and an angle in degrees, got {length} and {angle}")
    turn = math.radians(angle)
    rates = tuple(round(v, 12) for v in (-math.sin(turn), math.cos(turn)))  # of rows and columns along the path
    reach = [max(0, math.ceil(length / 2 * abs(rate) - 0.5 - 1e-9)) for rate in rates]
    cuts = {-length / 2, length / 2}
    for rate, far in zip(rates, reach, strict=True):
        borders = [(k + 0.5) / rate for k in range(-far - 1, far + 1)] if rate else []
        cuts.update(cut for cut in borders if abs(cut) < length / 2)
    kernel = torch.zeros(2 * reach[0] + 1, 2 * reach[1] + 1, dtype=torch.float64)
    for start, stop in itertools.pairwise(sorted(cuts)):  # between two cuts the path stays in one pixel
        middle = (start + stop) / 2
        row, column = (round(middle * rate) for rate in rates)
        kernel[row + reach[0], column + reach[1]] += stop - start
    kernel = (kernel + kernel.flip(0, 1)) / 2  # the path is its own mirror image; what rounding does at corners is not
    return kernel / kernel.sum()


def read(path: str) -> Tensor:
    """A kernel from an array file, taken as it is, or from a picture, grey and scaled to sum 1; float64.

    Raises:
        InputError: for a file that is missing, unreadable, all black or not finite.
    """
    import numpy as np
    from PIL import Image

    if not Path(path).expanduser().is_file():
        raise InputError(f"kernel file {path!r} does not exist")
    try:
        if Path(path).suffix == ".npy":
            values = np.load(Path(path).expanduser(), allow_pickle=False)
            if np.iscomplexobj(values):
                raise InputError(f"kernel file {path!r} is complex: a kernel is what light of one point becomes, real")
            kernel = torch.from_numpy(values.astype("float64"))
        else:
            with Image.open(Path(path).expanduser()) as picture:
                deep = picture.mode in ("I", "F") or picture.mode.startswith("I;")
                grey = picture if deep else picture.convert("L")
                kernel = torch.from_numpy(np.asarray(grey).astype("float64"))
            kernel = kernel / kernel.sum()
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"kernel file {path!r} cannot be read: {error}") from None
    if not kernel.numel() or not bool(torch.isfinite(kernel).all()):
        raise InputError(f"kernel file {path!r} holds no finite kernel (an all-black picture, or NaN)")
    return kernel


def spell(kernel: Tensor) -> str:
    """A kernel as the options of words: its float64 numbers, compressed; `unspell` reads them."""
    raw = kernel.detach().cpu().double().contiguous().numpy().astype("<f8").tobytes()
    words = base64.urlsafe_b64encode(zlib.compress(raw, 9)).decode().rstrip("=")
    return f"bits={words}:shape={'x'.join(map(str, kernel.shape))}"


def unspell(words: str, shape: tuple[int, ...]) -> Tensor:
    """The kernel that `spell` wrote; float64, of this shape.

    Raises:
        InputError: for damaged bits.
    """
    import numpy as np

    try:
        raw = zlib.decompress(base64.urlsafe_b64decode(words + "=" * (-len(words) % 4)))
    except (ValueError, zlib.error) as error:
        raise InputError(f"the bits of the kernel are damaged ({error}); save the measurement again") from None
    if not shape or min(shape) < 1 or len(raw) != 8 * math.prod(shape):
        raise InputError(f"the bits of the kernel hold {len(raw) // 8} numbers and the shape {shape} needs others")
    return torch.from_numpy(np.frombuffer(raw, dtype="<f8").astype("float64")).reshape(shape)
