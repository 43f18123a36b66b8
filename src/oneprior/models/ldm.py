"""Latent diffusion: a diffusion in the latents of an autoencoder (Rombach, Blattmann, Lorenz, Esser, Ommer 2022).

An autoencoder, trained as a run of its own, takes away what the eye hardly sees and leaves a grid some sixteen times
smaller; the diffusion then learns what is left, at a fraction of the price. In the algebra of priors this is one line,

    forward = diffusion.forward(encode(batch)),    prior = Pushforward(diffusion.prior(), decode),

and the rest of this file is bookkeeping. The latents are posterior means (KL) or what is quantised (VQ, which
quantises on the way back). They are shifted and scaled to mean 0 and variance 1, channel by channel over the training
data (for VQ by one scale, which leaves nearest codes nearest), since EDM's preconditioning counts on sigma_data = 1.
The first stage's weights are part of this model's own state, so that it needs no second folder to load.

The autoencoder stands still, so a training loop may encode the data once, by `latents`, and hand `forward` batches of
latents from then on. Conditions go to the diffusion: images are resized to the latents' grid and concatenated; labels,
vectors, tokens and images of any resolution may come by cross-attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.data.batch import Batch
from oneprior.models.base import Model, Recipe
from oneprior.models.configs.ldm import LDMConfig
from oneprior.models.diffusion import Diffusion
from oneprior.models.vae import VAE
from oneprior.models.vqvae import VQVAE
from oneprior.nets.autoencoder import DiffusersAutoencoder
from oneprior.nets.codec import Codec
from oneprior.priors.diffusion.samplers import DiffusionSampler
from oneprior.priors.pushforward import Pushforward, push

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, VQModel

_MOMENT_IMAGES = 10_000


class LatentDiffusion(Model):
    """See the module.

    Args:
        config: settings; those of the first stage must be the trained autoencoder's (`from_autoencoder` sees to it).
        event_shape: (channels, *space).
        conditions: what the diffusion is told.

    Attributes:
        latent_shape: of the latents, (channels, *grid).

    Raises:
        InputError: for a first stage whose latents are no grid, or have the shape of the events.
    """

    family: ClassVar[str] = "ldm"
    config: LDMConfig
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        config: LDMConfig,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
    ) -> None:
        super().__init__(config, event_shape, conditions)
        self.autoencoder = _autoencoder(config, self.event_shape)
        self.autoencoder.requires_grad_(False)
        self.latent_shape = self.autoencoder.latent_shape
        if self.latent_shape == self.event_shape:
            raise InputError(
                f"the latents have the shape of the events, {tuple(self.event_shape)}, and nothing is gained: "
                "train diffusion, or give the autoencoder a larger downsample"
            )
        self.diffusion = Diffusion(config.diffusion, self.latent_shape, self.conditions)
        self.register_buffer("latent_mean", torch.zeros(self.latent_shape[0]))
        self.register_buffer("latent_std", torch.ones(self.latent_shape[0]))

    @classmethod
    def from_autoencoder(
        cls, config: LDMConfig, autoencoder: VAE | VQVAE, conditions: tuple[ConditionSpec, ...] = ()
    ) -> Self:
        """A new model on a trained first stage; its settings go into the config, its weights are copied.

        Raises:
            InputError: if the autoencoder's latents are no grid.
        """
        if isinstance(autoencoder, VAE):
            config = replace(config, autoencoder_family="vae", vae=autoencoder.config)
        else:
            config = replace(config, autoencoder_family="vqvae", vqvae=autoencoder.config)
        model = cls(config, autoencoder.event_shape, conditions)
        given = autoencoder.state_dict()
        model.autoencoder.load_state_dict({name: given[name] for name in model.autoencoder.state_dict()})
        return model

    @property
    def players(self) -> Mapping[str, list[nn.Parameter]]:
        """The diffusion's; the autoencoder stands still."""
        return self.diffusion.players

    def recipe(self, player: str) -> Recipe:
        """The diffusion's."""
        return self.diffusion.recipe(player)

    def prepare(self, passes: Callable[[], Iterator[Batch]], rows: Rows) -> None:
        """Measure the latents' mean and deviation, then let the diffusion read the scaled latents.

        Args:
            passes: starts a pass over events (not over latents) in random order.
            rows: for the diffusion.
        """
        count, total, squares = 0, 0.0, 0.0
        self._scale(torch.zeros(()), torch.ones(()))
        for batch in passes():
            z = self.latents(batch.x).double().movedim(1, -1).flatten(0, -2)
            count, total, squares = count + len(z), total + z.sum(0), squares + z.square().sum(0)
            if count >= _MOMENT_IMAGES * self.latent_shape[1:].numel():
                break
        if count:
            mean = cast(Tensor, total / count)
            variance = cast(Tensor, squares / count) - mean.square()
            if isinstance(self.autoencoder, VQVAE):
                variance = variance.mean()
            self._scale(mean, variance.clamp_min(1e-8).sqrt())

        def latent_passes() -> Iterator[Batch]:
            return (replace(batch, x=self.latents(batch.x)) for batch in passes())

        self.diffusion.prepare(latent_passes, rows)

    def _scale(self, mean: Tensor, std: Tensor) -> None:
        self.latent_mean.copy_(mean.expand_as(self.latent_mean))
        self.latent_std.copy_(std.expand_as(self.latent_std))

    def latents(self, x: Tensor) -> Tensor:
        """The scaled latents of events, without gradient; what `forward` learns from, for encoding a data set once.

        (n, *event_shape) -> (n, *latent_shape); call it after `prepare`.
        """
        with torch.no_grad():
            return self.codec().encode(x)

    def codec(self) -> Codec:
        """x -> latents of mean 0 and variance 1 -> x."""
        return _ScaledCodec(self)

    def forward(self, batch: Batch, player: str, rows: Rows) -> dict[str, Tensor]:
        """The diffusion's losses; `batch.x` holds events, or latents made by `latents`."""
        if batch.x.shape[1:] == self.event_shape:
            batch = replace(batch, x=self.latents(batch.x))
        elif batch.x.shape[1:] != self.latent_shape:
            raise ShapeError(
                "a batch of ldm", batch.x.shape, f"(n, *{tuple(self.event_shape)}) or (n, *{tuple(self.latent_shape)})"
            )
        self.diffusion.progress = self.progress
        return self.diffusion(batch, player, rows)

    def prior(
        self,
        condition: Mapping[str, Tensor] | None = None,
        *,
        sampler: DiffusionSampler | None = None,
        steps: int = 18,
        cfg_scale: float = 1.0,
    ) -> Pushforward:
        """The law of decode(z), z from the diffusion; arguments as in `Diffusion.prior`."""
        base = self.diffusion.prior(condition, sampler=sampler, steps=steps, cfg_scale=cfg_scale)
        return push(base, self.codec().decode, self.event_shape)

    def surface(self, condition: Mapping[str, Tensor] | None = None) -> Pushforward:
        return self.prior(condition)

    def explain(self, x: Tensor, rows: Rows, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        with torch.no_grad():
            codec = self.codec()
            return codec.decode(codec.encode(x))

    def diffusers_autoencoder(self) -> AutoencoderKL | VQModel:
        """The first stage as diffusers' own, the latents' scale folded into its convolutions (scaling factor 1).

        Raises:
            InputError: where its network is not diffusers' own, or the events are padded.
        """
        net: Any = self.autoencoder.to_diffusers()
        if any(cast(DiffusersAutoencoder, self.autoencoder.encoder).padding):
            raise InputError(
                f"events of {tuple(self.event_shape)} are padded before encoding, which LDMPipeline cannot do: "
                "give a --size that the autoencoder's downsample divides"
            )
        mean, std = self.latent_mean.cpu(), self.latent_std.cpu()
        kl = isinstance(self.autoencoder, VAE)
        folded = {"use_quant_conv": True, "use_post_quant_conv": True} if kl else {}
        copy = type(net).from_config({**net.config, "scaling_factor": 1.0, **folded})
        copy.load_state_dict(net.state_dict(), strict=False)
        with torch.no_grad():
            for name in ("quant_conv", "post_quant_conv"):
                conv = getattr(copy, name)
                if getattr(net, name) is None:  # a network without these convolutions gets identities
                    nn.init.dirac_(conv.weight)
                    nn.init.zeros_(conv.bias)
            gain = torch.cat([1 / std, torch.ones_like(std)]) if kl else 1 / std
            shift = torch.cat([-mean / std, -2 * std.log()]) if kl else -mean / std
            copy.quant_conv.weight.mul_(gain[:, None, None, None])
            copy.quant_conv.bias.mul_(gain).add_(shift)
            back = copy.post_quant_conv
            back.bias.add_((back.weight[:, :, 0, 0] * mean).sum(1))
            back.weight.mul_(std[:, None, None])
            if not kl:
                copy.quantize.embedding.weight.sub_(mean).div_(std)
        return copy


class _ScaledCodec(Codec):
    """The first stage with the latents' mean taken off and their deviation divided out."""

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        self.inner, self.latent_shape = model.autoencoder.codec(), model.latent_shape
        self.register_buffer("mean", model.latent_mean.reshape(-1, *[1] * (len(self.latent_shape) - 1)))
        self.register_buffer("std", model.latent_std.reshape(-1, *[1] * (len(self.latent_shape) - 1)))

    def encode(self, x: Tensor) -> Tensor:
        return (self.inner.encode(x) - self.get_buffer("mean")) / self.get_buffer("std")

    def decode(self, z: Tensor) -> Tensor:
        return self.inner.decode(z * self.get_buffer("std") + self.get_buffer("mean"))


def _autoencoder(config: LDMConfig, event_shape: torch.Size) -> VAE | VQVAE:
    """The first stage without what only its own training needs."""
    if config.autoencoder_family == "vqvae":
        return VQVAE(replace(config.vqvae, prior_start=1.0, adversarial=0.0, perceptual=0.0), event_shape)
    if not config.vae.spatial:
        raise InputError(
            "latent diffusion needs an autoencoder whose latents are a grid, and this vae's are one vector: "
            "train it with spatial=True (--spatial)"
        )
    return VAE(replace(config.vae, adversarial=0.0, perceptual=0.0), event_shape)
