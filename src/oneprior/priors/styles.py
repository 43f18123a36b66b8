"""The Gaussian of StyleGAN's W space behind a white base: w = mean + root u, u ~ N(0, I), one w or one for each layer.

The mapping network's own draws give mean and covariance, root being its symmetric square root (`GAN.prior`). Inference
sees the white u and needs no more; BRGM (`inference.noise.brgm`), whose objective is written in w, asks for the map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oneprior.priors.base import StandardNormal


class StyleNormal(StandardNormal):
    """u ~ N(0, I) that stands for styles.

    Args:
        shape: (latent,) or (layers, latent).
        mean: of w, (1 or n, latent); row i of a batch has that of row i % n.
        root: symmetric root of the covariance of w, (1 or n, latent, latent).
    """

    def __init__(self, shape: torch.Size | tuple[int, ...], mean: Tensor, root: Tensor) -> None:
        super().__init__(shape, mean.device)
        self.mean, self.root = mean, root

    def styles(self, u: Tensor) -> Tensor:
        """w of u, (n, latent) -> (n, 1, latent) or (n, layers, latent) -> (n, layers, latent)."""
        row = torch.arange(u.shape[0], device=u.device) % self.mean.shape[0]
        mean, root = (self.mean, self.root) if self.mean.shape[0] == 1 else (self.mean[row], self.root[row])
        return mean.unsqueeze(1) + (u if u.dim() == 3 else u.unsqueeze(1)) @ root
