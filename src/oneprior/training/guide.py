"""The mixture of Gaussians of the data that lends a denoiser its covariance, a run beside its weights.

Guided restoration needs Cov[x0 | x_t], and where it comes from decides more decibels than the network does
(`inference.guidance.beliefs`): on held-out Fashion-MNIST a mixture of ten is worth 0.3 to 0.7 dB over the Gaussian of
the data (`docs/benchmarks.md`). So a finished denoiser of events of up to `LARGEST` numbers keeps one, `guide/`, and
`restore` takes it where no other is given.

The same mixture denoises better than a network of a short training where the noise is large. So the weight of each at
every noise level is fitted too (`priors.diffusion.blended`), on held-out events where the run has any, and kept as
`blend.safetensors`; `Run.whole_prior` believes in the blend where no condition is bound, and `Run.prior` stays the
network's own law.
"""

from __future__ import annotations

import shutil
from collections import deque
from pathlib import Path

import torch

from oneprior.core import InputError, Rows
from oneprior.data.batch import Dataset
from oneprior.data.stored import Subset
from oneprior.models.base import Model
from oneprior.models.configs.ppca import PPCAConfig
from oneprior.models.ppca import PPCA
from oneprior.priors.diffusion.blended import Blended, ClosedLaw, blend
from oneprior.priors.diffusion.prior import DiffusionPrior
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.training.folder import write_tensors
from oneprior.training.numerics import quick
from oneprior.training.order import passes_over, seeded, some_of, spread
from oneprior.training.run import BLEND, GUIDE, Run, save

LARGEST = 2048
"""Numbers of an event up to which a mixture is fitted: each component accumulates a full covariance."""
COMPONENTS, EACH = 10, 100
"""Components at most, and the events that each has on average at least."""
EVENTS = 16_384
"""Events at most, spread evenly over the data."""
BLENDED = 128
"""Events on which network and mixture are weighed against each other."""
WIDENED = 512
"""Held-out events that tell how wide the mixture has to be."""
_BATCH = 512


def leave_guide(folder: Path, model: Model, data: Dataset, unseen: Dataset | None, seed: int) -> None:
    """The guide of a denoiser, in `folder`/guide, and its blend; nothing for other families, large events, few data.

    Args:
        folder: of the run.
        model: trained.
        data: what it was trained on.
        unseen: what was held out; None where nothing was.
        seed: of the first centres, and of the noise.
    """
    few = len(data) < 2 * EACH or model.event_shape.numel() > LARGEST
    if few or model.coded:  # a codec alone has no prior to ask for
        return
    prior = model.prior()
    if not isinstance(prior, DenoisingPrior):
        return
    shutil.rmtree(folder / GUIDE, ignore_errors=True)
    partial = folder / f".{GUIDE}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    about = {"path": "the data of the run that it guides", "trained_on": len(data)}
    guide = fit_guide(data, seed, unseen)
    save(guide, partial, units=data.units, geometry=data.geometry, data=about)
    partial.rename(folder / GUIDE)
    law = guide.to(model.device).prior()
    if isinstance(prior, DiffusionPrior) and isinstance(law, ClosedLaw):
        leave_blend(folder, prior, law, unseen or data, seed)


def leave_blend(folder: Path, prior: DiffusionPrior, law: ClosedLaw, data: Dataset, seed: int) -> Blended:
    """The weights of network and mixture by noise level, fitted on some of the data and written into a run folder."""
    x = data.batch(spread(data, BLENDED)).x.to(prior.device)
    network = quick(prior)
    assert isinstance(network, DiffusionPrior)
    found = blend(network, law, x, Rows(len(x), seed=seed, stream="blend"))
    write_tensors(folder / BLEND, {"levels": found.levels, "weights": found.weights}, {"events": len(x)})
    return found


def refit_blend(run: Run, data: Dataset) -> Blended:
    """`leave_blend` for a finished run with a guide, on events that it has not seen; written into its folder.

    Raises:
        InputError: a run without a guide, or an entry of the zoo, which stays as it was published.
    """
    run.refuse_published()
    prior, law = run.prior(), run.guide()
    if law is None or not isinstance(prior, DiffusionPrior):
        raise InputError(f"{run.path} has no guide to blend with: only diffusions of small events keep one")
    return leave_blend(run.path, prior, law, data, run.record.train.get("seed", 0))


def fit_guide(data: Dataset, seed: int = 0, unseen: Dataset | None = None) -> PPCA:
    """A mixture of Gaussians of low rank by EM, whatever the conditions of the data; on the processor.

    Args:
        data: at least `EACH` events.
        seed: of the first centres.
        unseen: events that were held out, which tell how wide the law has to be (`PPCA.widen`).
    """
    some = Subset(data, spread(data, EVENTS))
    config = PPCAConfig(components=max(1, min(COMPONENTS, len(some) // EACH)))
    model = PPCA(config, data.event_shape)
    with seeded(seed, "guide"):
        passes = passes_over(some, _BATCH, seed, torch.device("cpu"))
        deque(model.fit_passes(passes, Rows(_BATCH, seed=seed, stream="guide")), maxlen=0)
    if unseen is not None:
        model.widen(some_of(unseen, WIDENED))
    return model.trimmed()
