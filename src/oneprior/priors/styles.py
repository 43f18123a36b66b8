"""The Gaussian of StyleGAN's W space as a map of white noise: w = mean + root u, u ~ N(0, I), one w or one a layer.

The mapping network's own draws give mean and covariance, root being its symmetric square root (`GAN.prior`). The law
of pictures is the synthesis network behind it, `Pushforward(StyleNormal, synthesis)`. Inference moves in the white u,
whose prior is N(0, I) whatever the covariance; BRGM (`inference.noise.brgm`), whose objective is written in w, in w.

Karras et al. 2020 ("Analyzing and improving the image quality of StyleGAN", section 5) project pictures on W with the
mean and the total variance of 10,000 mapped z; the full covariance was found to matter by Wulff and Torralba 2020
("Improving inversion and generation diversity in StyleGAN using a Gaussianized latent space"). Abdal, Qin, Wonka 2019
("Image2StyleGAN") gave each layer a w of its own, W+.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from oneprior.priors.base import NoisePrior

Space = Literal["z", "w", "w+"]
"""Where the latents of a generator are Gaussian: its input z, the styles w, or a style for each layer."""


class StyleNormal(NoisePrior):
    """w = mean + root u of each row, and of each layer in W+.

    Args:
        shape: of u, (latent,) for W or (layers, latent) for W+.
        mean: of w, (1 or k, latent); row i of a batch has that of row i % k.
        root: symmetric root of the covariance of w, (1 or k, latent, latent).

    Attributes:
        event_shape: of the styles, (1, latent) for W and (layers, latent) for W+.
    """

    def __init__(self, shape: torch.Size | tuple[int, ...], mean: Tensor, root: Tensor) -> None:
        self.noise_shape = torch.Size(shape)
        self.event_shape = torch.Size(shape if len(shape) == 2 else (1, *shape))
        self.mean, self.root = mean, root

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def decode(self, u: Tensor) -> Tensor:
        """Styles of white noise, (n, [layers,] latent) -> (n, layers or 1, latent)."""
        row = self.row(u)
        mean, root = (self.mean, self.root) if len(self.mean) == 1 else (self.mean[row], self.root[row])
        return mean.unsqueeze(1) + u.reshape(-1, *self.event_shape) @ root

    def row(self, like: Tensor) -> Tensor:
        """Whose statistics each row of a batch has, int64 (n,)."""
        return torch.arange(len(like), device=like.device) % len(self.mean)
