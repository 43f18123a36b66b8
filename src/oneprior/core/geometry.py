"""What a file says about its picture apart from the values: type, spacing, place in the scanner."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Geometry:
    """How to write an event back the way it came.

    Args:
        dtype: NumPy name of the stored type ("uint8", "uint16", "float32", ...).
        spacing: distance between samples along each spatial axis, in millimetres, or empty where unknown.
        affine: 4x4 voxel-to-world matrix as nested tuples (NIfTI, RAS+, millimetres), or None.
        format: the kind of file it came from ("png", "tiff", "npy", "nifti", "dicom", "idx", "clip",
            "selfies", "midi").
        axis: for slices cut from a volume, the axis that was cut; else None.
        tokens: of sequences, what each channel stands for; else empty. Of several voices each begins with its number
            and a colon ("0:rest").
    """

    dtype: str = "float32"
    spacing: tuple[float, ...] = ()
    affine: tuple[tuple[float, ...], ...] | None = None
    format: str = ""
    axis: int | None = None
    tokens: tuple[str, ...] = ()

    @property
    def groups(self) -> int:
        """How many tokens stand at each place of a sequence: its voices; 0 for what is no sequence."""
        voices = {word.partition(":")[0] for word in self.tokens if word[:1].isdigit()}
        return len(voices) or int(bool(self.tokens))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        affine = state.get("affine")
        return cls(
            **{
                **state,
                "spacing": tuple(state.get("spacing", ())),
                "tokens": tuple(state.get("tokens", ())),
                "affine": None if affine is None else tuple(tuple(row) for row in affine),
            }
        )
