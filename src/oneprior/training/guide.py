"""The mixture of Gaussians of the data that lends a denoiser its covariance, a run beside its weights.

Guided restoration needs Cov[x0 | x_t], and where it comes from decides more decibels than the network does
(`inference.guidance.beliefs`): on held-out Fashion-MNIST a mixture of ten is worth 0.3 to 0.7 dB over the Gaussian of
the data (`docs/benchmarks.md`). So a finished denoiser of events of up to `LARGEST` numbers keeps one, `guide/`, and
`restore` takes it where no other is given.
"""

from __future__ import annotations

import shutil
from collections import deque
from pathlib import Path

import torch

from oneprior.core import Rows
from oneprior.data.batch import Dataset
from oneprior.data.stored import Subset
from oneprior.models.base import Model
from oneprior.models.configs.ppca import PPCAConfig
from oneprior.models.ppca import PPCA
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.training.order import passes_over, seeded
from oneprior.training.run import GUIDE, save

LARGEST = 2048
"""Numbers of an event up to which a mixture is fitted: each component accumulates a full covariance."""
COMPONENTS, EACH = 10, 100
"""Components at most, and the events that each has on average at least."""
EVENTS = 16_384
"""Events at most, spread evenly over the data."""
_BATCH = 512


def leave_guide(folder: Path, model: Model, data: Dataset, seed: int) -> None:
    """The guide of a denoiser, in `folder`/guide; nothing for other families, large events and few data.

    Args:
        folder: of the run.
        model: trained.
        data: what it was trained on.
        seed: of the first centres.
    """
    few = len(data) < 2 * EACH or model.event_shape.numel() > LARGEST
    if few or not isinstance(model.prior(), DenoisingPrior):
        return
    shutil.rmtree(folder / GUIDE, ignore_errors=True)
    partial = folder / f".{GUIDE}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    about = {"path": "the data of the run that it guides", "trained_on": len(data)}
    save(fit_guide(data, seed), partial, units=data.units, geometry=data.geometry, data=about)
    partial.rename(folder / GUIDE)


def fit_guide(data: Dataset, seed: int = 0) -> PPCA:
    """A mixture of Gaussians of low rank by EM, whatever the conditions of the data; on the processor.

    Args:
        data: at least `EACH` events.
        seed: of the first centres.
    """
    some = Subset(data, torch.linspace(0, len(data) - 1, min(EVENTS, len(data))).round().long().unique())
    config = PPCAConfig(components=max(1, min(COMPONENTS, len(some) // EACH)))
    model = PPCA(config, data.event_shape)
    with seeded(seed, "guide"):
        passes = passes_over(some, _BATCH, seed, torch.device("cpu"))
        deque(model.fit_passes(passes, Rows(_BATCH, seed=seed, stream="guide")), maxlen=0)
    return model.trimmed()
