"""The Frechet distance of 10,000 features of length 2048 against torchmetrics' own, on the same features in one run.

The features are those of a trained network (the last stage of our classifier of Fashion-MNIST, pooled to 4 x 4, which
gives 2,048), of training against test images. Both are given the features and work in float64. The reference value is
the distance by the eigenvalues of the product of the covariances, as torchmetrics has it; a second pair has fewer
events than features, so that its covariances are singular, and is compared with singular values of the events.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import Figure, Options, fashion, feature_network, record
from oneprior.evaluation import Classifier, frechet_distance


def run(options: Options) -> None:
    """One race, since theirs takes minutes; and a singular pair."""
    n, d = (400, 64) if options.quick else (10_000, 2048)
    data = fashion(options)
    network = feature_network(options, data)
    a, b = (features(network, x[:n])[:, :d] for x in (data.train, data.test))
    start = time.perf_counter()
    ours = float(frechet_distance(a, b))
    middle = time.perf_counter()
    theirs = by_torchmetrics(a, b)
    end = time.perf_counter()
    few = [x[: d // 4] for x in (a, b)]
    singular, reference = float(frechet_distance(*few)), by_singular_values(*few)
    figures = {
        "speed": Figure((end - middle) / (middle - start), None, (">=", 10.0), "seconds of torchmetrics over ours"),
        "relative_difference": Figure(abs(ours / theirs - 1), None, ("<=", 1e-6), "against torchmetrics, float64"),
        "singular_difference": Figure(
            abs(singular / reference - 1), None, ("<=", 1e-6), "against singular values of the events"
        ),
        "seconds": Figure(middle - start, note="ours"),
        "seconds_of_torchmetrics": Figure(end - middle),
    }
    record(
        "frechet_speed",
        figures,
        options,
        claim=f"Frechet distance of {n} events, {d} features, torchmetrics against ours, {options.threads} threads.",
    )


@torch.no_grad()
def features(network: Classifier, x: Tensor) -> Tensor:
    """The last stage of a trained network, pooled to 4 x 4: (n, 1, height, width) -> (n, 128 * 16) float64."""
    parts = [F.adaptive_avg_pool2d(network.body(part), 4).flatten(1) for part in x.split(500)]
    return torch.cat(parts).double()


def by_torchmetrics(a: Tensor, b: Tensor) -> float:
    """Mean, covariance and torchmetrics' formula."""
    from torchmetrics.image.fid import _compute_fid

    return float(_compute_fid(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T)))


def by_singular_values(a: Tensor, b: Tensor) -> float:
    """tr (S_a S_b)^(1/2) as the singular values of A B' / (n - 1) of centred events; no covariance is formed."""
    x, y = a - a.mean(0), b - b.mean(0)
    n = len(x) - 1
    trace = torch.linalg.svdvals(x @ y.T).sum() / n
    far = (a.mean(0) - b.mean(0)).square().sum()
    return float(far + (x.square().sum() + y.square().sum()) / n - 2 * trace)
