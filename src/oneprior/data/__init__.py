"""Files in and out: data sets, splits, phantoms, and events written back in the user's own units."""

from oneprior.data.batch import Batch, Dataset
from oneprior.data.decoded import BadFileError
from oneprior.data.fastmri import KSpace, read_kspace, write_kspace
from oneprior.data.fit import check_stride, fit_events, parse_size, resize
from oneprior.data.memory import array_dataset, digits
from oneprior.data.npz import read_arrays, write_arrays
from oneprior.data.open import open_dataset
from oneprior.data.phantoms import phantoms
from oneprior.data.read import read_event, read_events
from oneprior.data.split import split
from oneprior.data.stored import StoredDataset, Subset
from oneprior.data.write import in_units, tile, write_events

__all__ = [
    "BadFileError",
    "Batch",
    "Dataset",
    "KSpace",
    "StoredDataset",
    "Subset",
    "array_dataset",
    "check_stride",
    "digits",
    "fit_events",
    "in_units",
    "open_dataset",
    "parse_size",
    "phantoms",
    "read_arrays",
    "read_event",
    "read_events",
    "read_kspace",
    "resize",
    "split",
    "tile",
    "write_arrays",
    "write_events",
    "write_kspace",
]
