"""PNG, JPEG, TIFF and their kin: one picture to (channels, height, width) and back, 8 bits and 16.

Transparency is laid over white, palettes become colours, a camera's rotation tag is obeyed, and a negative (TIFF's
MinIsWhite) is turned so that 0 is black. Pillow cannot hold 16-bit colour and would quietly drop the lower byte: such
files go through tifffile and imagecodecs, and where a codec is missing the error says so.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from oneprior.core import Geometry, InputError
from oneprior.data.decoded import Decoded

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm")
_WITH_OPACITY = ("RGBA", "LA", "PA", "RGBa", "La")


def decode_picture(data: bytes, name: str) -> Decoded:
    """The bytes of one picture file -> (channels, height, width); a TIFF of many pages is a volume (1, d, h, w)."""
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decoded(_tiff(data, name), "tiff")
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:25] == b"\x10" and data[25:26] != b"\0":
        return _decoded(_deep_png(data, name), "png")
    with Image.open(io.BytesIO(data)) as image:
        return _decoded(from_image(image), (image.format or "picture").lower())


def from_image(image: Image.Image) -> np.ndarray:
    """A Pillow image -> (channels, height, width): uint8, uint16, int32 or float32, one channel or three."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[None]
    if image.mode in ("I", "F"):
        return np.asarray(image)[None].copy()
    if image.mode in _WITH_OPACITY or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La", "1")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("L" if grey else "RGB")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels[None].copy() if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def see_through(data: bytes) -> bool:
    """Whether the bytes of a picture file hold a pixel that is not opaque, which decoding lays over white."""
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        import tifffile

        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series, page = file.series[0], file.pages.first
            kinds = [int(kind) for kind in page.extrasamples]
            if page.photometric in (0, 1, 2):
                if kinds not in ([_ASSOCIATED], [_UNASSOCIATED]) or "S" not in series.axes:
                    return False
                opacity = series.asarray().take(-1, series.axes.index("S"))
                return opacity.dtype.kind == "u" and bool(opacity.min() < np.iinfo(opacity.dtype).max)
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in _WITH_OPACITY and "transparency" not in image.info:
            return False
        return np.asarray(image.convert("RGBA"))[..., 3].min() < 255


def encode_picture(pixels: np.ndarray, path: Path) -> None:
    """Write (1 | 3, height, width) to `path` by its suffix; a TIFF takes any type, a PNG 8 and 16 bits, a JPEG 8.

    Raises:
        InputError: for a type that the format cannot hold.
    """
    suffix = path.suffix.lower()
    plane = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    if plane.dtype == bool:
        plane = plane.astype(np.uint8) * np.uint8(255)
    if suffix in (".tif", ".tiff"):
        import tifffile

        tifffile.imwrite(path, plane, photometric="rgb" if len(pixels) == 3 else "minisblack", compression="zlib")
    elif plane.dtype == np.uint8:
        Image.fromarray(plane).save(path)
    elif plane.dtype == np.uint16 and suffix == ".png":
        if plane.ndim == 2:
            Image.fromarray(plane).save(path)
        else:
            path.write_bytes(_codecs(path.name).png_encode(plane))
    else:
        raise InputError(f"{path.name}: a {suffix} picture cannot hold {plane.dtype}; write .tif or .npz")


def _decoded(event: np.ndarray, kind: str) -> Decoded:
    return Decoded(event, Geometry(dtype=event.dtype.name, format=kind))


def _deep_png(data: bytes, name: str) -> np.ndarray:
    """16-bit colour or grey with transparency."""
    return _over_white(np.moveaxis(_codecs(name).png_decode(data), -1, 0))


def _tiff(data: bytes, name: str) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series, page = file.series[0], file.pages.first
        bits = page.bitspersample
        if page.photometric not in (0, 1, 2):  # palettes, CMYK and YCbCr: Pillow turns them into colours
            with Image.open(io.BytesIO(data)) as image:
                return from_image(image)
        try:
            values, axes = series.asarray(), series.axes
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if (bits > 8 and page.samplesperpixel > 1) or len(series.pages) > 1:
                raise InputError(f"{name}: {error}. Install it: pip install imagecodecs") from error
            with Image.open(io.BytesIO(data)) as image:
                return from_image(image)
        if page.photometric == 0 and values.dtype.kind == "u":
            values = np.asarray(2**bits - 1, values.dtype) - values
        elif page.photometric == 0 and values.dtype.kind == "b":
            values = ~values
    if values.dtype.kind == "b":
        values = values.astype(np.uint8) * np.uint8(255)
    keep = [k for k, a in enumerate(axes) if values.shape[k] > 1 or a in "YX"]
    values, axes = values.reshape([values.shape[k] for k in keep]), "".join(axes[k] for k in keep)
    channel = next((axes.index(a) for a in "SC" if a in axes), None)
    values = values[None] if channel is None else np.moveaxis(values, channel, 0)
    if values.ndim not in (3, 4):
        raise InputError(f"{name}: a TIFF with axes {axes} {values.shape} is more than one volume; split it")
    opacity = [int(kind) for kind in page.extrasamples] if channel is not None and axes[channel] == "S" else []
    if opacity in ([_ASSOCIATED], [_UNASSOCIATED]):
        values = _over_white(values, associated=opacity == [_ASSOCIATED])
    return np.ascontiguousarray(_upright(values, int(page.tags.valueof(274, 1))))


_ASSOCIATED, _UNASSOCIATED = 1, 2  # TIFF 6.0, tag ExtraSamples: what a further sample is; 0 says nothing


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Obey TIFF's tag Orientation, 1 .. 8: where row 0 and column 0 of what is stored are to be seen."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(-1, -2)
    if orientation in (2, 3, 6, 7):
        values = values[..., ::-1]
    return values[..., ::-1, :] if orientation in (3, 4, 7, 8) else values


def _over_white(pixels: np.ndarray, *, associated: bool = False) -> np.ndarray:
    """Lay the last of 2 or 4 samples, opacity, over white; integers keep their type.

    Args:
        pixels: (2 | 4, ...).
        associated: whether the colours are multiplied by the opacity already.
    """
    if len(pixels) not in (2, 4) or pixels.dtype.kind != "u":
        return np.ascontiguousarray(pixels)
    top = float(np.iinfo(pixels.dtype).max)
    opacity = pixels[-1:] / top
    colours = pixels[:-1] * (1.0 if associated else opacity)
    return np.rint(np.minimum(colours + top * (1 - opacity), top)).astype(pixels.dtype)


def _codecs(name: str):
    try:
        import imagecodecs
    except ImportError as error:
        raise InputError(
            f"{name}: 16-bit colour PNG needs imagecodecs (pip install imagecodecs), or use TIFF"
        ) from error
    return imagecodecs
