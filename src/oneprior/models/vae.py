"""The variational autoencoder, with the noise of its decoder learned (Kingma and Welling 2014; Rybkin et al. 2021).

The model is z ~ N(0, I), x = f(z) + sigma eps, and the encoder's q(z | x) = N(mean, diag var) stands for the
posterior. By Jensen's inequality, for x of D numbers,

    log p(x) >= E_q[log N(x; f(z), sigma^2 I)] - KL(q(z | x) || N(0, I)),

and that is what is maximised, in nats per number (divided by D). sigma is learned with the rest; at the optimum
sigma^2 is the mean squared error of the reconstructions (Rybkin, Daniilidis, Levine 2021, equation 6), which does
what beta of a beta-VAE (Higgins et al. 2017) is usually tuned for. `beta` stays as a weight of the divergence on top.

The encoder sees x with a little noise in training (Im et al. 2017): q(z | x + noise) is averaged over the noise, the
bound stays a bound, and small sets are memorised later. (1,500 digits, 2,000 steps of 64, bound on 297 held-out
digits after 1,000 / 1,500 / 2,000 steps: -5.6, -4.4, -6.7 nats without, -5.5, -3.2, -3.1 with noise of 0.15.)

The decoder's noise is part of x, so the prior's base noise is u = (z, eps). The law without it, x = f(z), lies on a
surface, and has other posteriors: `prior(decoder_noise=False)`.

With `spatial` the latents are a grid, beta is small and the result is a codec: the first stage of latent diffusion
(Rombach et al. 2022, section 3.1), optionally sharpened by a critic and by features (`nets.patch_critic`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.data.batch import Batch
from oneprior.models.base import Model, Recipe, mean_over_rows
from oneprior.models.conditions import bind, refuse_images, told_in_training
from oneprior.models.configs.vae import VAEConfig
from oneprior.nets.adversarial import ConditionVector
from oneprior.nets.autoencoder import (
    ConvDecoder,
    ConvEncoder,
    DiffusersAutoencoder,
    MLPDecoder,
    MLPEncoder,
    diffusers_autoencoder,
    diffusers_copy,
    latent_grid,
)
from oneprior.nets.codec import Codec
from oneprior.nets.patch_critic import Sharpness
from oneprior.priors.base import StandardNormal
from oneprior.priors.pushforward import NoisePushforward

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_PACE = 10.0  # log sigma^2 = _PACE * parameter: Adam moves every parameter alike, and this one has far to go
_TINY = 256  # events of at most this many numbers take perceptrons


class VAE(Model):
    """See the module.

    Args:
        config: settings.
        event_shape: (channels, *space).
        conditions: classes, vectors, token sequences; none with `spatial`.

    Raises:
        InputError: for an image condition, any condition with `spatial`, or a network that does not fit.
    """

    family: ClassVar[str] = "vae"
    config: VAEConfig

    def __init__(
        self,
        config: VAEConfig,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
    ) -> None:
        super().__init__(config, event_shape, conditions)
        refuse_images("vae", self.conditions)
        if config.spatial and self.conditions:
            raise InputError(
                "a spatial vae is a codec and takes no conditions: give them to the diffusion on its latents"
            )
        self.beta = config.beta if config.beta is not None else (0.1 if config.spatial else 1.0)
        self.latent = config.latent or (4 if config.spatial else 16)
        self.told = ConditionVector(self.conditions, 32)
        self.network = _network(config, self.event_shape)
        grid = latent_grid(self.event_shape[1:], config.downsample) if config.spatial else ()
        self.latent_shape = torch.Size((self.latent, *grid))
        self.encoder, self.decoder = self._parts()
        self.noise = nn.Parameter(torch.zeros(()))
        self.sharpness = Sharpness(self.event_shape, config.adversarial, config.perceptual)

    def _parts(self) -> tuple[nn.Module, nn.Module]:
        config, told, shape = self.config, self.told.width, self.event_shape
        if self.network == "diffusers":
            part = DiffusersAutoencoder(_diffusers_net(config, shape, self.latent), shape)
            return part, part
        if self.network == "mlp":
            width = 8 * config.width
            return (
                MLPEncoder(shape, 2 * self.latent, width=width, told=told),
                MLPDecoder(shape, self.latent, width=width, told=told),
            )
        options: dict[str, Any] = {
            "downsample": config.downsample,
            "width": config.width,
            "blocks": config.blocks,
            "vector": not config.spatial,
            "told": told,
        }
        return ConvEncoder(shape, 2 * self.latent, **options), ConvDecoder(shape, self.latent, **options)

    @property
    def players(self) -> Mapping[str, list[nn.Parameter]]:
        """ "all", and before it "critic" where there is one."""
        critic = list(self.sharpness.parameters())
        own = [p for name, p in self.named_parameters() if not name.startswith("sharpness.")]
        return {"critic": critic, "all": own} if critic else {"all": own}

    def recipe(self, player: str) -> Recipe:
        """A brisk Adam; weight decay holds the perceptrons of tiny sets back from memorising."""
        if player == "critic":
            return Recipe(learning_rate=1e-3, betas=(0.5, 0.9), ema=0.0, compile=False)
        return Recipe(
            learning_rate=3e-3 if self.config.spatial else 2e-3, weight_decay=0.0 if self.config.spatial else 0.1
        )

    @property
    def log_variance(self) -> Tensor:
        """log sigma^2 of the decoder's noise, scalar."""
        return _PACE * self.noise

    def prepare(self, passes: Callable[[], Iterator[Batch]], rows: Rows) -> None:
        """Start sigma at the deviation of the data."""
        batch = next(passes(), None)
        if batch is not None:
            with torch.no_grad():
                self.noise.fill_(float(batch.x.var().clamp_min(1e-4).log()) / _PACE)

    def encode(self, x: Tensor, condition: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), both (n, *latent_shape).

        Raises:
            ShapeError: if x are no events of this model.
        """
        if x.shape[1:] != self.event_shape:
            raise ShapeError("events to encode", x.shape, ("n", *self.event_shape))
        return self._encode(x, self.told(bind(condition, self.conditions, x.device).cycle(len(x)), len(x)))

    def _encode(self, x: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor]:
        encoder = self.encoder
        h = encoder.encode(x) if isinstance(encoder, DiffusersAutoencoder) else encoder(x, told)
        mean, log_variance = h.float().chunk(2, 1)  # under autocast too: the divergence is a small difference
        return mean, log_variance.clamp(-30.0, 20.0)

    def _decode(self, z: Tensor, told: Tensor | None = None) -> Tensor:
        decoder = self.decoder
        return decoder.decode(z) if isinstance(decoder, DiffusersAutoencoder) else decoder(z, told)

    def forward(self, batch: Batch, player: str, rows: Rows) -> dict[str, Tensor]:
        x, n = batch.x, len(batch)
        told = self.told(told_in_training(batch, self.conditions, rows, self.config.condition_dropout), n)
        eps = rows.to(x.device).normal(*self.latent_shape, dtype=torch.float32)
        if player == "critic":
            with torch.no_grad():
                mean, log_variance = self._encode(x, told)
                reconstruction = self._decode(mean + (0.5 * log_variance).exp() * eps, told)
            return {"critic": mean_over_rows(self.sharpness.critic_loss(x, reconstruction), batch)}
        seen = x
        if self.training and self.config.encoder_noise and not self.config.spatial:
            seen = x + self.config.encoder_noise * rows.stream("seen").to(x.device).normal(*self.event_shape)
        mean, log_variance = self._encode(seen, told)
        reconstruction = self._decode(mean + (0.5 * log_variance).exp() * eps, told)
        error = (reconstruction - x).square().flatten(1).mean(1)
        fit = 0.5 * (error * (-self.log_variance).exp() + self.log_variance + math.log(2 * math.pi))
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
        divergence = divergence / self.event_shape.numel()
        losses = {
            "reconstruction": mean_over_rows(fit, batch),
            "divergence": mean_over_rows(self.beta * divergence, batch),
            "metric/elbo": -mean_over_rows(fit + divergence, batch).detach(),
            "metric/noise": (0.5 * self.log_variance).exp().detach(),
        }
        on = self.progress >= self.config.adversarial_start
        for name, term in self.sharpness.terms(x, reconstruction, adversarial=on).items():
            losses[name] = mean_over_rows(term, batch)
        return losses

    def prior(self, condition: Mapping[str, Tensor] | None = None, *, decoder_noise: bool = True) -> NoisePushforward:
        """The law of x; base noise u = (z, eps), flat, or z alone without the decoder's noise.

        Args:
            condition: what is told, one row each or one for all.
            decoder_noise: whether x = f(z) + sigma eps (the model) or x = f(z) (its surface).
        """
        given = bind(condition, self.conditions, self.device)
        size = self.latent_shape.numel()
        total = size + self.event_shape.numel() * decoder_noise

        def decode(u: Tensor) -> Tensor:
            x = self._decode(u[:, :size].reshape(-1, *self.latent_shape), self.told(given.cycle(len(u)), len(u)))
            return x + (0.5 * self.log_variance).exp() * u[:, size:].reshape(x.shape) if decoder_noise else x

        return NoisePushforward(StandardNormal((total,), self.device), decode, self.event_shape)

    def surface(self, condition: Mapping[str, Tensor] | None = None) -> NoisePushforward:
        return self.prior(condition, decoder_noise=False)

    def explain(self, x: Tensor, rows: Rows, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        with torch.no_grad():
            mean, log_variance = self.encode(x, condition)
            z = mean + (0.5 * log_variance).exp() * rows.to(x.device).normal(*self.latent_shape)
            return self._decode(z, self.told(bind(condition, self.conditions, x.device).cycle(len(x)), len(x)))

    def latents(self, x: Tensor) -> Tensor:
        """The mean of q(z | x), flat."""
        with torch.no_grad():
            return self.encode(x)[0].flatten(1)

    def codec(self) -> Codec:
        """x -> posterior mean -> x; the latents as they are, not scaled.

        Raises:
            InputError: where the latents are no grid.
        """
        if not self.config.spatial:
            raise InputError("this vae's latents are one vector: train a codec with spatial=True (--spatial)")
        return _MeanCodec(self)

    def preview(self, rows: Rows, batch: Batch | None = None) -> dict[str, Tensor]:
        """Draws without the decoder's noise; of a codec, events and their reconstructions."""
        pictures = {} if self.config.spatial else {"samples": self.prior(decoder_noise=False).sample(rows)}
        if batch is not None:
            with torch.no_grad():
                mean, _ = self.encode(batch.x, batch.condition)
                told = self.told(bind(batch.condition, self.conditions, batch.x.device), len(batch))
                pictures |= {"data": batch.x, "reconstructions": self._decode(mean, told)}
        return pictures or {"samples": self.prior(decoder_noise=False).sample(rows)}

    @classmethod
    def from_diffusers(cls, net: AutoencoderKL, event_shape: torch.Size | tuple[int, ...]) -> Self:
        """A codec made of a diffusers `AutoencoderKL`, its weights copied."""
        config = cast(Any, net).config
        model = cls(
            VAEConfig(
                latent=config["latent_channels"],
                spatial=True,
                network="diffusers",
                downsample=1 << (len(config["block_out_channels"]) - 1),
                pretrained=json.dumps(dict(config)),
            ),
            event_shape,
        )
        cast(DiffusersAutoencoder, model.encoder).net.load_state_dict(net.state_dict())
        return model

    def to_diffusers(self) -> AutoencoderKL:
        """A copy of the network as diffusers' `AutoencoderKL`.

        Raises:
            InputError: where the network is not diffusers' own.
        """
        return diffusers_copy(self.encoder, self.network)


class _MeanCodec(Codec):
    """A spatial VAE read as a pair of maps."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model, self.latent_shape = model, model.latent_shape

    def encode(self, x: Tensor) -> Tensor:
        return self.model.encode(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        return self.model._decode(z)


def _network(config: VAEConfig, event_shape: torch.Size) -> str:
    """What "auto" means here, and whether the choice fits."""
    name = config.network
    if name == "auto":
        name = "mlp" if not config.spatial and event_shape.numel() <= _TINY else "light"
    if name == "mlp" and config.spatial:
        raise InputError("network 'mlp' has no grid of latents: take 'light', or spatial=False")
    if name == "diffusers" and not (config.spatial and len(event_shape) == 3):
        raise InputError(
            f"network 'diffusers' serves 2-D events with a grid of latents, and the events are {tuple(event_shape)}"
            f"{'' if config.spatial else ' with spatial=False'}: take 'light'"
        )
    return name


def _diffusers_net(config: VAEConfig, event_shape: torch.Size, latent: int) -> AutoencoderKL:
    if config.pretrained:
        from diffusers import AutoencoderKL

        return cast("AutoencoderKL", AutoencoderKL.from_config(json.loads(config.pretrained)))
    net = diffusers_autoencoder(
        event_shape[0], latent, downsample=config.downsample, width=config.width, blocks=config.blocks
    )
    return cast("AutoencoderKL", net)
