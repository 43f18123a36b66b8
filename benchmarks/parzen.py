"""The Parzen-window log-likelihood of Goodfellow et al. 2014 for every family, on Fashion-MNIST, beside its anchors.

The table is kept for history and ranks nothing: blurred training images and k-means centroids score above sharp
training images. One comparison is asked of it, like with like: a GAN of today against the networks and game of 2014.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.draw import Ruler, load_prior, sample
from benchmarks.harness import Fashion, Figure, Options, fashion, record
from benchmarks.train import trained
from oneprior.core import Rows
from oneprior.evaluation import Parzen, parzen_log_likelihood

FAMILIES = ("ppca", "vae", "gan", "gan2014", "gan2014ns", "gan2014slow", "vqvae", "diffusion", "ldm")
NAMES = {
    "gan2014": "gan of 2014, minimax, learning rate .03",
    "gan2014ns": "gan of 2014, non-saturating, learning rate .1",
    "gan2014slow": "gan of 2014, non-saturating, learning rate .03",
}


def run(options: Options) -> None:
    """The table, and the paired difference between our default GAN and the best one of 2014."""
    data = fashion(options)
    count = 300 if options.quick else options.samples
    test = data.test[:count]
    distance = Ruler.of(options, data)
    found: dict[str, tuple[Parzen, float]] = {}

    def score(name: str, x: Tensor) -> None:
        found[name] = parzen_log_likelihood(x, data.held_out, test), distance(x)
        print(f"{name}: {found[name][0].mean:.1f} nats", flush=True)

    for name, x in anchors(data, count).items():
        score(name, x)
    for family in FAMILIES:
        score(NAMES.get(family, family), sample(load_prior(trained(family, options)), count)[0])
    score("vae, means", sample(load_prior(trained("vae", options), decoder_noise=False), count)[0])
    old = max(NAMES.values(), key=lambda name: found[name][0].mean)
    gain = found["gan"][0].log_likelihood - found[old][0].log_likelihood
    error = math.hypot(found["gan"][0].standard_error, found[old][0].standard_error)
    table = [
        {
            "samples": name,
            "nats": result.mean,
            "standard error": result.standard_error,
            "bandwidth": result.bandwidth,
            "Frechet distance": apart,
        }
        for name, (result, apart) in found.items()
    ]
    figures = {
        "gan_gain_in_standard_errors": Figure(float(gain.mean()) / error, None, (">=", 2.0), f"over the {old}"),
        "gan_gain": Figure(float(gain.mean()), error, None, "nats, standard errors of both added in quadrature"),
        "gan_gain_paired_error": Figure(float(gain.std()) / len(gain) ** 0.5, note="standard error of the paired gain"),
    }
    record(
        "parzen",
        figures,
        options,
        table=table,
        claim="Parzen-window log-likelihood by the protocol of Goodfellow et al. 2014; it ranks nothing.",
        samples=count,
        held_out=1000,
        features=distance.network.name,
    )


def anchors(data: Fashion, count: int) -> dict[str, Tensor]:
    """What stands beside the models: training images, blurred ones, and k-means centroids."""
    chosen = Rows(len(data.train), seed=0, stream="anchors").bits(1)[:, 0].argsort()[:count]
    images = data.train[chosen]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return {
        "training images": images,
        "training images, blurred 3x3": F.avg_pool2d(padded, 3, stride=1),
        "k-means centroids": centroids(data.train, count),
    }


def centroids(x: Tensor, count: int) -> Tensor:
    """The centres of k-means with `count` clusters (scikit-learn's MiniBatchKMeans, started at random images)."""
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(count, init="random", n_init="auto", batch_size=4096, max_iter=3, random_state=0)
    means.fit(x.flatten(1).numpy())
    return torch.from_numpy(means.cluster_centers_).float().reshape(-1, *x.shape[1:])
