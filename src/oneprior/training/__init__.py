"""Fit a model to data, and keep what was learned in a folder. Imports nothing before a name is used.

for progress in train_iter("diffusion", data="films/", out="runs/films", minutes=30): ...
run = load("runs/films")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oneprior.training.config import TrainConfig
    from oneprior.training.entry import train, train_iter
    from oneprior.training.guide import refit_blend
    from oneprior.training.imported import import_run
    from oneprior.training.latents import CachedLatents
    from oneprior.training.loop import fit
    from oneprior.training.progress import Progress
    from oneprior.training.publication import publish
    from oneprior.training.residual import measure_residual
    from oneprior.training.run import Run, load, save

_HOME = {
    "CachedLatents": "latents",
    "Progress": "progress",
    "Run": "run",
    "TrainConfig": "config",
    "fit": "loop",
    "import_run": "imported",
    "load": "run",
    "measure_residual": "residual",
    "publish": "publication",
    "refit_blend": "guide",
    "save": "run",
    "train": "entry",
    "train_iter": "entry",
}

__all__ = [
    "CachedLatents",
    "Progress",
    "Run",
    "TrainConfig",
    "fit",
    "import_run",
    "load",
    "measure_residual",
    "publish",
    "refit_blend",
    "save",
    "train",
    "train_iter",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"oneprior.training.{_HOME[name]}"), name)
    raise AttributeError(f"module 'oneprior.training' has no attribute {name!r}")
