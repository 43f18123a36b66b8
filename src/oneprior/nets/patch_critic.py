"""What makes reconstructions sharp: a critic of patches, and a distance between features.

A squared error averages over all that the latents leave open, and the average is blurred. VQGAN (Esser, Rombach,
Ommer 2021) adds two terms. A critic looks at overlapping patches (Isola et al. 2017) and learns, by the hinge loss
(Lim and Ye 2017), to tell reconstructions from data: E[relu(1 - D(x))] + E[relu(1 + D(x'))], while the decoder raises
E[D(x')]. And a distance between features of a fixed network (Zhang et al. 2018, "perceptual"): any callable that
turns events into one feature map or several serves; nothing is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from oneprior.core import Rows
from oneprior.nets.dims import CONV

Features = Callable[[Tensor], Tensor | Sequence[Tensor]]


class PatchCritic(nn.Module):
    """x -> a grid of logits, one for each overlapping patch; about 1-Lipschitz (spectral norm, Miyato et al. 2018).

    Args:
        event_shape: (channels, *space), 1, 2 or 3 spatial axes.
        width: channels after the first halving; doubled at the second.
    """

    def __init__(self, event_shape: torch.Size | tuple[int, ...], width: int = 32) -> None:
        super().__init__()
        conv = CONV[len(event_shape) - 1]
        halvings = max(0, min(2, int(math.log2(min(event_shape[1:]))) - 1))
        widths = [width << level for level in range(halvings)] or [width]
        layers: list[nn.Module] = []
        for a, b in zip([event_shape[0], *widths[:-1]], widths, strict=True):
            layers += [spectral_norm(conv(a, b, 4 if halvings else 3, stride=2 if halvings else 1, padding=1)),
                       nn.LeakyReLU(0.2)]  # fmt: skip
        layers += [spectral_norm(conv(widths[-1], widths[-1], 3, padding=1)), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, conv(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, *event_shape) -> (n, patches)."""
        return self.net(x).flatten(1)


def critic_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The critic's loss, one number a row; logits (n, patches), (n, patches) -> (n,)."""
    return F.relu(1 - real).mean(1) + F.relu(1 + fake).mean(1)


def feature_distance(features: Features, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared distance of features scaled to unit length along the channels; (n, *event_shape) twice -> (n,).

    Source: Zhang, Isola, Efros, Shechtman, Wang 2018, equation 1, with equal weights.
    """
    a, b = features(x), features(y)
    total = x.new_zeros(len(x))
    for u, v in zip(_maps(a), _maps(b), strict=True):
        gap = F.normalize(u, dim=1) - F.normalize(v, dim=1)
        total = total + gap.square().flatten(1).sum(1) / math.prod(u.shape[2:])
    return total


def _maps(features: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [features] if isinstance(features, Tensor) else features


class RandomFeatures(nn.Module):
    """A fixed random convolutional network: the feature map that needs no download.

    Its weights are drawn once from a seed of its own; random filters already see edges and texture.

    Args:
        event_shape: (channels, *space).
        width: channels of the first map; doubled in the second.
        seed: of the weights.
    """

    def __init__(self, event_shape: torch.Size | tuple[int, ...], width: int = 16, seed: int = 0) -> None:
        super().__init__()
        dims, channels = len(event_shape) - 1, event_shape[0]
        self.function = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
        for name, a, b in (("first", channels, width), ("second", width, 2 * width)):
            kernel = Rows(b, seed=seed, stream=name).normal(a, *[3] * dims)
            self.register_buffer(name, kernel * (2 / kernel[0].numel()) ** 0.5)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, *event_shape) -> two maps, at full and half resolution."""
        first = F.leaky_relu(self.function(x, self.get_buffer("first"), padding=1), 0.2)
        return [first, F.leaky_relu(self.function(first, self.get_buffer("second"), stride=2, padding=1), 0.2)]


class Sharpness(nn.Module):
    """The two terms together, with their weights; without a weight, nothing is built.

    Args:
        event_shape: (channels, *space).
        adversarial: weight of the critic's term; 0 for none.
        perceptual: weight of the distance between features; 0 for none.
        features: the network that sees; `RandomFeatures` by default.
    """

    def __init__(
        self,
        event_shape: torch.Size | tuple[int, ...],
        adversarial: float = 0.0,
        perceptual: float = 0.0,
        features: Features | None = None,
    ) -> None:
        super().__init__()
        self.adversarial, self.perceptual = adversarial, perceptual
        self.critic = PatchCritic(event_shape) if adversarial > 0 else None
        self.features = (features or RandomFeatures(event_shape)) if perceptual > 0 else None

    def critic_loss(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """(n, *event_shape) twice -> (n,)."""
        assert self.critic is not None
        return critic_hinge(self.critic(x), self.critic(reconstruction.detach()))

    def terms(self, x: Tensor, reconstruction: Tensor, *, adversarial: bool = True) -> dict[str, Tensor]:
        """The weighted terms that a decoder minimises, each (n,); the critic's weights get no gradient.

        Args:
            x: events, (n, *event_shape).
            reconstruction: (n, *event_shape).
            adversarial: whether the critic's term counts already.
        """
        terms = {}
        if self.critic is not None and adversarial:
            frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
            terms["adversarial"] = -self.adversarial * functional_call(self.critic, frozen, (reconstruction,)).mean(1)
        if self.features is not None:
            terms["perceptual"] = self.perceptual * feature_distance(self.features, x, reconstruction)
        return terms
