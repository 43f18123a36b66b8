"""The Parzen-window log-likelihood of Goodfellow et al. 2014, by the protocol of their published code.

A Gaussian of width s is put on each of 10,000 samples, and the mean log density of 10,000 test images is reported; s is
the best of ten on 1,000 held-out images. Pixels lie in [0, 1]. With D pixels,

    log p(x) = log mean_j exp(-|x - mu_j|^2 / 2 s^2) - D log(s sqrt(2 pi))

It is kept for history, and nothing is ranked by it: in high dimension it rewards smoothness. On MNIST 10,000 training
images score 243 nats, blurred ones 320, 2,000 k-means centroids 298 and the blurry means of a VAE 273, as measured in
this project; the adversarial nets of 2014 scored 225. Theis, van den Oord and Bethge 2016 say why. Print it beside such
anchors or not at all (`benchmarks/parzen.py` does).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError

BANDWIDTHS = tuple(10.0 ** (-1 + k / 9) for k in range(10))
"""np.logspace(-1, 0, 10), the grid of the published code (`parzen_ll.py`)."""


@dataclass(frozen=True)
class Parzen:
    """The result of the protocol.

    Args:
        mean: mean log-likelihood of the test events, nats, of events scaled to [0, 1].
        standard_error: of `mean`, over the test events.
        bandwidth: the width that was best on the held-out events, in units of [0, 1].
        log_likelihood: of each test event, (n,), float64: two models are compared by paired differences.
    """

    mean: float
    standard_error: float
    bandwidth: float
    log_likelihood: Tensor


def parzen_log_likelihood(
    samples: Tensor,
    held_out: Tensor,
    test: Tensor,
    *,
    bandwidths: Sequence[float] = BANDWIDTHS,
    value_range: tuple[float, float] = (-1.0, 1.0),
    chunk: int = 1000,
) -> Parzen:
    """Parzen-window log-likelihood of test events under samples of a model.

    Args:
        samples: (m, *event_shape); 10,000 in the protocol.
        held_out: events that choose the bandwidth; the first 1,000 are used.
        test: events that are scored; 10,000 in the protocol.
        bandwidths: standard deviations to choose from, in units of [0, 1].
        value_range: the values that are mapped to 0 and 1.
        chunk: events whose distances to all samples are held at once (chunk * m float64 numbers).

    Returns:
        Mean, standard error over the test events, and the bandwidth chosen.

    Raises:
        ShapeError: if the events differ in shape.
        InputError: if a set is empty or the samples hold nan.

    Source: Goodfellow et al. 2014, section 5 and table 1; `parzen_ll.py` of goodfeli/adversarial.
    """
    for name, events in (("held_out", held_out), ("test", test)):
        if events.shape[1:] != samples.shape[1:]:
            raise ShapeError(
                f"{name} events", events.shape[1:], samples.shape[1:], "Give events of the samples' shape."
            )
    if not (len(samples) and len(held_out) and len(test)):
        raise InputError(f"parzen needs events, got {len(samples)} samples, {len(held_out)} held out, {len(test)} test")
    if not bool(torch.isfinite(samples).all()):
        raise InputError("the samples hold nan or infinity; they cannot be scored")
    low, high = value_range
    mu, held, x = ((events.flatten(1).double() - low) / (high - low) for events in (samples, held_out[:1000], test))
    widths = torch.tensor(list(bandwidths), dtype=torch.float64, device=mu.device)
    chosen = float(widths[_log_density(held, mu, widths, chunk).mean(1).argmax()])
    score = _log_density(x, mu, widths.new_tensor([chosen]), chunk)[0]
    error = float(score.std()) / math.sqrt(len(score)) if len(score) > 1 else math.nan
    return Parzen(float(score.mean()), error, chosen, score)


def _log_density(x: Tensor, mu: Tensor, widths: Tensor, chunk: int) -> Tensor:
    """log p(x) for every width, (k, n); the distances are computed once and serve every width."""
    norms = mu.square().sum(1)
    out = torch.empty(len(widths), len(x), dtype=torch.float64, device=x.device)
    for start in range(0, len(x), chunk):
        piece = x[start : start + chunk]
        squared = torch.addmm(norms, piece, mu.T, alpha=-2.0).add_(piece.square().sum(1, keepdim=True)).clamp_min_(0)
        for k, width in enumerate(widths.tolist()):
            out[k, start : start + chunk] = torch.logsumexp(squared * (-0.5 / width**2), 1)
    normaliser = x.shape[1] * (widths * math.sqrt(2 * math.pi)).log()
    return out - math.log(len(mu)) - normaliser[:, None]
