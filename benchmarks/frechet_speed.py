"""The Frechet distance of 10,000 features of length 2048 against torchmetrics' own, on the same features in one run.

The features are rectified random projections of real images (Fashion-MNIST, training against test images), whose
spectrum falls as that of a network's features does; on nearly white ones the eigenvalues of the product are found
quickly, and the race says little. Both are given the features and work in float64. The reference value is the distance
by the eigenvalues of the product of the covariances, as torchmetrics has it; a second pair has fewer events than
features, so that its covariances are singular, and is compared with the square root by eigenvectors.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from benchmarks.harness import Figure, Options, fashion, record
from oneprior.core import Rows
from oneprior.evaluation import frechet_distance


def run(options: Options) -> None:
    """One race, since theirs takes minutes; and a singular pair."""
    n, d = (400, 64) if options.quick else (10_000, 2048)
    data = fashion(options)
    a, b = features(data.train[:n], d), features(data.test[:n], d)
    start = time.perf_counter()
    ours = float(frechet_distance(a, b))
    middle = time.perf_counter()
    theirs = by_torchmetrics(a, b)
    end = time.perf_counter()
    few = [x[: d // 4] for x in (a, b)]
    singular, reference = float(frechet_distance(*few)), by_eigenvectors(*few)
    figures = {
        "speed": Figure((end - middle) / (middle - start), None, (">=", 10.0), "seconds of torchmetrics over ours"),
        "relative_difference": Figure(abs(ours / theirs - 1), None, ("<=", 1e-6), "against torchmetrics, float64"),
        "singular_difference": Figure(abs(singular / reference - 1), None, ("<=", 1e-6), "against eigenvectors"),
        "seconds": Figure(middle - start, note="ours"),
        "seconds_of_torchmetrics": Figure(end - middle),
    }
    record(
        "frechet_speed",
        figures,
        options,
        claim=f"Frechet distance of {n} events, {d} features, torchmetrics against ours, {options.threads} threads.",
    )


def features(x: Tensor, d: int) -> Tensor:
    """Rectified random projections of images, (n, 1, height, width) -> (n, d) float64."""
    flat = x.flatten(1).double()
    directions = Rows(d, seed=2).normal(flat.shape[1], dtype=torch.float64) / flat.shape[1] ** 0.5
    return (flat @ directions.T + 0.1).relu()


def by_torchmetrics(a: Tensor, b: Tensor) -> float:
    """Mean, covariance and torchmetrics' formula."""
    from torchmetrics.image.fid import _compute_fid

    return float(_compute_fid(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T)))


def by_eigenvectors(a: Tensor, b: Tensor) -> float:
    """tr (S_a S_b)^(1/2) as tr (R S_b R)^(1/2) with R the symmetric root of S_a."""
    s_a, s_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(s_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    trace = torch.linalg.eigvalsh(root @ s_b @ root).clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + s_a.trace() + s_b.trace() - 2 * trace)
