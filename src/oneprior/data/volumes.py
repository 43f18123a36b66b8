"""NIfTI: volumes with their affine.

An event keeps the axes of the file, (1, i, j, k), and the affine that takes voxel (i, j, k) to millimetres in the
world (RAS+), so that what is written lies where it was read. Volumes whose axes point in unlike directions do not make
one set: `orientation="RAS"` turns them all alike.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oneprior.core import Geometry, InputError
from oneprior.data.decoded import Decoded

VOLUMES = (".nii", ".nii.gz")
MOST_CHANNELS = 16


def decode_nifti(data: bytes, name: str) -> Decoded:
    """The bytes of a .nii or .nii.gz -> (channels, i, j, k), after the file's slope and intercept.

    A fourth axis of up to 16 is channels (modalities); trailing axes of length one are dropped, so that a single
    slice is a picture.
    """
    import nibabel as nib

    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    header = int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big")
    kind = nib.Nifti2Image if 540 in header else nib.Nifti1Image
    image = kind.from_bytes(data)
    stored: Any = image.dataobj
    plain = stored.slope == 1 and stored.inter == 0
    values = stored.get_unscaled() if plain else np.asarray(stored, dtype=np.float32)
    if values.dtype.names or values.dtype.kind == "c":
        raise InputError(f"{name}: holds {values.dtype}, needed are real numbers")
    values = np.asarray(values).astype(values.dtype.newbyteorder("="), copy=False)
    channels = values.shape[3] if values.ndim > 3 else 1
    if (values.ndim > 4 and max(values.shape[4:]) > 1) or channels > MOST_CHANNELS:
        raise InputError(f"{name}: shape {values.shape} is a series of volumes; split it into one file each")
    space = values.shape[:3]
    event = np.moveaxis(values.reshape(*space, channels), -1, 0)
    while len(space) > 1 and space[-1] == 1:
        space = space[:-1]
    spacing = tuple(float(v) for v in image.header.get_zooms()[: len(space)])
    geometry = Geometry(values.dtype.name, spacing, as_tuples(np.asarray(image.affine)), "nifti")
    codes = "".join(str(c or "?") for c in nib.aff2axcodes(image.affine))
    return Decoded(np.ascontiguousarray(event.reshape(channels, *space)), geometry, orientation=codes)


def orient(decoded: Decoded, orientation: str) -> Decoded:
    """The same volume with its axes pointing to, for example, right, anterior, superior ("RAS"); no interpolation."""
    from nibabel import orientations

    if decoded.geometry.affine is None or decoded.event.ndim != 4 or decoded.orientation == orientation:
        return decoded
    if len(orientation) != 3 or any(sum(c in orientation for c in pair) != 1 for pair in ("LR", "PA", "IS")):
        raise InputError(f"orientation {orientation!r} is not understood; write three of L/R, P/A, I/S, such as 'RAS'")
    affine = np.asarray(decoded.geometry.affine)
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(orientation))
    shape = decoded.event.shape[1:]
    event = np.moveaxis(decoded.event, 0, -1)
    event = np.moveaxis(orientations.apply_orientation(event, turn), -1, 0)
    affine = affine @ orientations.inv_ornt_aff(turn, shape)
    spacing = tuple(float(v) for v in np.sqrt((affine[:3, :3] ** 2).sum(0)))
    geometry = replace(decoded.geometry, affine=as_tuples(affine), spacing=spacing)
    return replace(decoded, event=np.ascontiguousarray(event), geometry=geometry, orientation=orientation)


def encode_nifti(events: np.ndarray, path: Path, geometry: Geometry) -> None:
    """Write (n, channels, *space) to one NIfTI file; n volumes, or channels, are its fourth axis.

    A slice gets its cut axis back with length one; a picture without an affine gets its spacing on the diagonal.

    Raises:
        InputError: for n > 1 events of more than one channel each, which one file cannot tell apart.
    """
    import nibabel as nib

    n, channels, *space = events.shape
    if n > 1 and channels > 1:
        raise InputError(f"{path.name}: {n} events of {channels} channels do not fit one NIfTI file; give a folder")
    stack = events.reshape(n * channels, *space)
    while stack.ndim < 4:
        stack = np.expand_dims(stack, stack.ndim if geometry.axis is None else 1 + geometry.axis)
    values = np.moveaxis(stack, 0, -1)
    values = values[..., 0] if len(stack) == 1 else values
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    affine = np.eye(4)
    if geometry.affine is not None:
        affine = np.asarray(geometry.affine, dtype=np.float64)
    elif geometry.spacing:
        affine[range(len(geometry.spacing)), range(len(geometry.spacing))] = geometry.spacing
    image = nib.Nifti1Image(np.ascontiguousarray(values), affine, dtype=values.dtype)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def as_tuples(affine: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """A matrix as nested tuples of plain numbers, which is what `Geometry` keeps."""
    return tuple(tuple(float(v) for v in row) for row in np.asarray(affine))
