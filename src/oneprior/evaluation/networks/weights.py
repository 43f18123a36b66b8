"""Weights from files that other people wrote: tensors only, never code.

A checkpoint of PyTorch is a pickle, which can run anything when it is opened; `weights_only` reads its tensors and
refuses the rest. A safetensors file cannot hold anything else. Either is then held against the tensors that the network
has, name by name and shape by shape, so that another network's file is told by what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from oneprior.core import InputError

_COUNTERS = "num_batches_tracked"  # of batch normalisation: no weight, and written by some versions only


def read_state(path: Path | str) -> dict[str, Tensor]:
    """The named tensors of a safetensors file or of a PyTorch checkpoint.

    Raises:
        InputError: if it is missing, truncated, or holds anything but named tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as weights ({_first_line(error)}): it is missing, truncated, or holds code beside "
            "its tensors; copy it again, or save its state dict as safetensors"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no plain state dict (names and tensors); save one, best as safetensors")
    return dict(state)


def fill(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Copy weights into a network, all or none.

    Raises:
        InputError: if tensors are missing, foreign, or of other shapes, with the first names.
    """
    needed = {name: value.shape for name, value in network.state_dict().items() if not name.endswith(_COUNTERS)}
    given = {name: value for name, value in state.items() if not name.endswith(_COUNTERS)}
    missing = [name for name in needed if name not in given]
    foreign = [name for name in given if name not in needed]
    other = [name for name in needed if name in given and given[name].shape != needed[name]]
    if missing or foreign or other:
        parts = [f"{len(missing)} tensors are missing ({some(missing)})"] if missing else []
        parts += [f"{len(foreign)} are not its own ({some(foreign)})"] if foreign else []
        parts += [f"{name} has shape {tuple(given[name].shape)}, not {tuple(needed[name])}" for name in other[:1]]
        raise InputError(f"these are not the weights of {what}: {'; '.join(parts)}")
    network.load_state_dict({name: given[name].float() for name in needed}, strict=False)


def some(names: list[str], most: int = 3) -> str:
    """The first few names, with dots if there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
