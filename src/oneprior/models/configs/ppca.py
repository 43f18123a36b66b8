"""Settings of the ppca family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PPCAConfig:
    """Probabilistic PCA and its mixtures; see `oneprior.models.ppca`.

    Args:
        components: number of Gaussians, of each class where a class condition is learned.
        rank: directions of each Gaussian; 0 chooses the rank with the best held-out likelihood.
        passes: the most passes over the data that EM makes (a single Gaussian needs one).
        tolerance: EM stops when the mean log-likelihood per dimension grows by less, in nats.
    """

    components: int = 1
    rank: int = 0
    passes: int = 30
    tolerance: float = 1e-3
