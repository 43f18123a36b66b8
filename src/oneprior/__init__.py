"""OnePrior: learn p(x) once, then ask it everything.

    import oneprior

    run = oneprior.train("diffusion", data="films/", out="runs/films", size=(64, 64), images=2_000_000)
    x = oneprior.load("runs/films").prior().sample(oneprior.Rows(16, seed=0))

Names are imported when they are first used, so that `import oneprior` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from oneprior.core import Rows
    from oneprior.data import open_dataset
    from oneprior.inference import bayes
    from oneprior.laws import check_operator, check_prior
    from oneprior.tasks import restore, simulate
    from oneprior.training import load, train

_HOME = {
    "Rows": "oneprior.core",
    "open_dataset": "oneprior.data",
    "bayes": "oneprior.inference",
    "check_operator": "oneprior.laws",
    "check_prior": "oneprior.laws",
    "restore": "oneprior.tasks",
    "simulate": "oneprior.tasks",
    "load": "oneprior.training",
    "train": "oneprior.training",
}

__all__ = [
    "Rows",
    "bayes",
    "check_operator",
    "check_prior",
    "load",
    "open_dataset",
    "restore",
    "simulate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'oneprior' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
