"""The vector-quantised autoencoder and the law of its codes (van den Oord, Vinyals, Kavukcuoglu 2017; Esser et al.
2021).

An encoder turns an event into a grid of vectors, each is replaced by its nearest code, and a decoder turns the codes
back:

    loss = |x - f(e)|^2 + commitment |z - sg(e)|^2,

the codebook following by running means (`nets.quantizer`); of tokens the cross-entropy is in place of the square. With
a critic of patches and a distance between features it is the VQGAN. The prior is a causal transformer over the grid,
whose conditionals are exact: x = f(codes), codes ~ p(codes).

Codec and transformer are trained in one run, as two players: the codec never sees the transformer's loss, and the
transformer never moves the codec. It starts when `prior_start` of the training is done and learns while the codes
settle: they still follow their vectors, and none is put elsewhere; no second run, no second pass over the data.
Conditions go to the transformer, as part of its start token; the codec has none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.data.batch import Batch
from oneprior.models.base import Model, Recipe, mean_over_rows
from oneprior.models.conditions import bind, refuse_images, told_in_training
from oneprior.models.configs.vqvae import VQVAEConfig
from oneprior.nets.adversarial import ConditionVector, Given
from oneprior.nets.autoencoder import (
    ConvDecoder,
    ConvEncoder,
    DiffusersAutoencoder,
    diffusers_autoencoder,
    diffusers_copy,
    latent_grid,
)
from oneprior.nets.codec import Codec
from oneprior.nets.patch_critic import Sharpness
from oneprior.nets.patches import PatchDecoder, PatchEncoder
from oneprior.nets.quantizer import Quantized, Quantizer
from oneprior.nets.transformer import Cache, CausalTransformer
from oneprior.priors.pushforward import Pushforward
from oneprior.priors.tokens import CausalTokenPrior

if TYPE_CHECKING:
    from diffusers import VQModel


_COLLAPSED = 0.02
"""Share of the codes, used alike, below which a codebook has collapsed,"""
_ALIVE = 0.1
"""unless more than this share is used now and then, as of sequences that are mostly their own end."""


class VQVAE(Model):
    """See the module.

    Args:
        config: settings.
        event_shape: (channels, *space).
        conditions: classes, vectors, token sequences, for the law of the codes.

    Attributes:
        grid: shape of the grid of codes.
        latent_shape: of what is quantised, (latent, *grid).

    Raises:
        InputError: for an image condition, or a network that does not fit the events.
    """

    family: ClassVar[str] = "vqvae"
    coded: ClassVar[bool] = True
    config: VQVAEConfig

    def __init__(
        self,
        config: VQVAEConfig,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
    ) -> None:
        super().__init__(config, event_shape, conditions)
        refuse_images("vqvae", self.conditions)
        self.grid = latent_grid(self.event_shape[1:], config.downsample)
        self.latent_shape = torch.Size((config.latent, *self.grid))
        if config.one_hot and self.event_shape[0] % config.one_hot:
            raise InputError(f"{self.event_shape[0]} channels are not {config.one_hot} groups of equally many tokens")
        self.encoder, self.decoder = self._parts()
        self.quantizer = Quantizer(config.codes, config.latent, decay=config.decay, dead=config.dead)
        self.sharpness = Sharpness(self.event_shape, config.adversarial, config.perceptual)
        self.told = ConditionVector(self.conditions if config.prior_start < 1 else (), 32)
        self.transformer = None
        if config.prior_start < 1:
            self.transformer = CausalTransformer(
                config.codes,
                self.grid.numel(),
                width=config.prior_width,
                depth=config.prior_depth,
                heads=config.prior_heads,
                told=self.told.width,
            )

    def _parts(self) -> tuple[nn.Module, nn.Module]:
        config, shape = self.config, self.event_shape
        if config.network == "diffusers":
            if len(shape) != 3:
                raise InputError(
                    f"network 'diffusers' serves 2-D events, and the events are {tuple(shape)}: take 'light'"
                )
            part = DiffusersAutoencoder(_diffusers_net(config, shape), shape)
            part.net.quantize.requires_grad_(False)  # type: ignore[union-attr]  # the codes live in `self.quantizer`
            return part, part
        options: dict[str, Any] = {"downsample": config.downsample, "width": config.width}
        if config.network == "patches":
            return PatchEncoder(shape, config.latent, **options), PatchDecoder(shape, config.latent, **options)
        options["blocks"] = config.blocks
        return ConvEncoder(shape, config.latent, **options), ConvDecoder(shape, config.latent, **options)

    @property
    def players(self) -> Mapping[str, list[nn.Parameter]]:
        """ "critic" where there is one, "codec", and "prior" where one is trained."""
        players = {
            "critic": list(self.sharpness.parameters()),
            "codec": [*self.encoder.parameters(), *self.decoder.parameters()],
            "prior": [*self.transformer.parameters(), *self.told.parameters()] if self.transformer else [],
        }
        players["codec"] = list({id(p): p for p in players["codec"] if p.requires_grad}.values())
        return {name: parameters for name, parameters in players.items() if parameters}

    def recipe(self, player: str) -> Recipe:
        """A brisk Adam for the codec, a decayed one for the transformer."""
        return {
            "critic": Recipe(learning_rate=1e-3, betas=(0.5, 0.9), ema=0.0, compile=False),
            "codec": Recipe(learning_rate=2e-3),
            "prior": Recipe(learning_rate=2e-3, betas=(0.9, 0.95), weight_decay=0.02),
        }[player]

    def forward(self, batch: Batch, player: str, rows: Rows) -> dict[str, Tensor]:
        return {"critic": self._critic_losses, "codec": self._codec_losses, "prior": self._prior_losses}[player](
            batch, rows
        )

    def _codec_losses(self, batch: Batch, rows: Rows) -> dict[str, Tensor]:
        quantized = self._quantize(batch.x, rows)
        decoded = self._decoded(quantized.z)
        reconstruction, error = self._shown(decoded), self._error(decoded, batch.x)
        losses = {
            "reconstruction": mean_over_rows(error, batch),
            "commitment": mean_over_rows(self.config.commitment * quantized.commitment, batch),
            "metric/perplexity": quantized.perplexity,
            "metric/codes_in_use": self.quantizer.usage(),
        }
        on = self.progress >= self.config.adversarial_start
        for name, term in self.sharpness.terms(batch.x, reconstruction, adversarial=on).items():
            # In units of the row's own error, so that one weight serves coarse and fine codecs alike.
            losses[name] = mean_over_rows(term * error.detach(), batch)
        return losses

    def _critic_losses(self, batch: Batch, rows: Rows) -> dict[str, Tensor]:
        with torch.no_grad():
            reconstruction = self._decode(self._quantize(batch.x, None).z)
        return {"critic": mean_over_rows(self.sharpness.critic_loss(batch.x, reconstruction), batch)}

    def _prior_losses(self, batch: Batch, rows: Rows) -> dict[str, Tensor]:
        """Cross-entropy in nats per code; nothing at all before `prior_start`."""
        if self.progress < self.config.prior_start:
            return {
                "codes": sum((p.sum() for p in self.players["prior"]), torch.zeros((), device=batch.x.device)) * 0.0
            }
        with torch.no_grad():
            codes = self._quantize(batch.x, None).codes.flatten(1)
        given = told_in_training(batch, self.conditions, rows, self.config.condition_dropout)
        logits = self._trained_transformer()(codes, self.told(given, len(batch)))
        return {"codes": mean_over_rows(F.cross_entropy(logits.movedim(-1, 1), codes, reduction="none").mean(1), batch)}

    def _quantize(self, x: Tensor, rows: Rows | None) -> Quantized:
        settled = self.progress >= self.config.prior_start
        return self.quantizer(self._encode(x), rows, restarts=not settled)

    def _encode(self, x: Tensor) -> Tensor:
        encoder = self.encoder
        return encoder.encode(x) if isinstance(encoder, DiffusersAutoencoder) else encoder(x)

    def _decode(self, z: Tensor) -> Tensor:
        return self._shown(self._decoded(z))

    def _decoded(self, z: Tensor) -> Tensor:
        """What the decoder makes of codes: events, or the logits of tokens."""
        decoder = self.decoder
        return decoder.decode(z) if isinstance(decoder, DiffusersAutoencoder) else decoder(z)

    def _shown(self, decoded: Tensor) -> Tensor:
        """Events: of tokens, their probabilities as -1 .. 1."""
        if not self.config.one_hot:
            return decoded
        return self._tokens(decoded).softmax(2).flatten(1, 2) * 2 - 1

    def _error(self, decoded: Tensor, x: Tensor) -> Tensor:
        """Of each row: the square of the difference, or the cross-entropy of tokens in nats a place. It is that of the
        logits: a probability that has come to nothing has no gradient."""
        if not self.config.one_hot:
            return (decoded - x).square().flatten(1).mean(1)
        share = self._tokens(decoded).log_softmax(2)
        return -(self._tokens((x + 1) / 2) * share).sum((1, 2)).flatten(1).mean(1)

    def _tokens(self, x: Tensor) -> Tensor:
        """(n, groups * tokens, *space) -> (n, groups, tokens, *space)."""
        return x.unflatten(1, (self.config.one_hot, -1))

    @property
    def codebook(self) -> Tensor:
        """The vectors of the codes, (K, latent)."""
        return self.quantizer.codebook

    def codes(self, x: Tensor) -> Tensor:
        """The codes of events, (n, *event_shape) -> (n, *grid) int64.

        Raises:
            ShapeError: if x are no events of this model.
        """
        if x.shape[1:] != self.event_shape:
            raise ShapeError("events to encode", x.shape, ("n", *self.event_shape))
        with torch.no_grad():
            return self._quantize(x, None).codes

    def decode_codes(self, codes: Tensor) -> Tensor:
        """The events of codes, (n, *grid) int64 -> (n, *event_shape)."""
        if codes.shape[1:] != self.grid:
            raise ShapeError("codes to decode", codes.shape, ("n", *self.grid))
        return self._decode(self.quantizer.lookup(codes))

    def prior(
        self,
        condition: Mapping[str, Tensor] | None = None,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        cfg_scale: float = 1.0,
    ) -> Pushforward:
        """The law of x: the decoder of one-hot codes, over the transformer's law of the codes.

        Args:
            condition: what is told, one row each or one for all.
            temperature: of every conditional of the codes.
            top_k: keep the k likeliest codes of every conditional; 0 for all.
            cfg_scale: 1 for p(codes | c); s > 1 sharpens every conditional to p(. | c)^s p(.)^(1 - s), normalised
                (Ho and Salimans 2022).

        Raises:
            InputError: where the codec was trained without a prior, or a setting is out of its range.
        """
        transformer = self._trained_transformer()
        if cfg_scale != 1.0 and not condition:
            raise InputError(f"cfg_scale {cfg_scale:g} guides towards a condition, and none is given")
        network = _Bound(transformer, self.told, bind(condition, self.conditions, self.device), cfg_scale)
        law = CausalTokenPrior(
            network, self.config.codes, self.grid, temperature=temperature, top_k=top_k, device=self.device
        )
        return Pushforward(law, lambda onehot: self._decode(self.quantizer.mix(onehot)), self.event_shape)

    def doubts(self, losses: Mapping[str, float]) -> list[str]:
        used, codes = losses.get("metric/perplexity", math.inf), self.config.codes
        if used >= max(_COLLAPSED * codes, 2.0) or losses.get("metric/codes_in_use", 0.0) > _ALIVE:
            return []
        return [
            f"hardly any of the {codes} codes is in use (as many as {used:.1f} used alike would be): what it draws "
            "will look much the same. Train on (--images, --minutes), or take fewer codes or a smaller --downsample"
        ]

    def _trained_transformer(self) -> CausalTransformer:
        if self.transformer is None:
            raise InputError("this vqvae is a codec alone (prior_start=1): train an ldm on it, or a vqvae with a prior")
        return self.transformer

    def surface(self, condition: Mapping[str, Tensor] | None = None) -> Pushforward | None:
        return None if self.transformer is None else self.prior(condition)

    def explain(self, x: Tensor, rows: Rows, condition: Mapping[str, Tensor] | None = None) -> Tensor:
        with torch.no_grad():
            return self.decode_codes(self.codes(x))

    def codec(self) -> Codec:
        """x -> what is quantised; z -> nearest codes -> x. The latents as they are, not scaled."""
        return _QuantizedCodec(self)

    def preview(self, rows: Rows, batch: Batch | None = None) -> dict[str, Tensor]:
        """Draws once the prior has begun; events and their reconstructions."""
        pictures = {}
        if self.transformer is not None and (self.progress > self.config.prior_start or batch is None):
            pictures["samples"] = self.prior().sample(rows)
        if batch is not None:
            with torch.no_grad():
                pictures |= {"data": batch.x, "reconstructions": self.decode_codes(self.codes(batch.x))}
        return pictures

    @classmethod
    def from_diffusers(cls, net: VQModel, event_shape: torch.Size | tuple[int, ...]) -> Self:
        """A codec, without a prior, made of a diffusers `VQModel`, its weights copied."""
        config = cast(Any, net).config
        model = cls(
            VQVAEConfig(
                codes=config["num_vq_embeddings"],
                latent=config["vq_embed_dim"] or config["latent_channels"],
                network="diffusers",
                downsample=1 << (len(config["block_out_channels"]) - 1),
                prior_start=1.0,
                pretrained=json.dumps(dict(config)),
            ),
            event_shape,
        )
        cast(DiffusersAutoencoder, model.encoder).net.load_state_dict(net.state_dict())
        model.quantizer.adopt(cast(Any, net).quantize.embedding.weight.detach())
        return model

    def to_diffusers(self) -> VQModel:
        """A copy of encoder, codebook and decoder as diffusers' `VQModel`.

        Raises:
            InputError: where the network is not diffusers' own.
        """
        copy = diffusers_copy(self.encoder, self.config.network)
        copy.quantize.embedding.weight.data.copy_(self.quantizer.codebook)
        return copy


class _Bound:
    """The transformer with its conditions bound; with cfg_scale != 1, guided conditionals."""

    def __init__(self, transformer: CausalTransformer, told: ConditionVector, given: Given, cfg_scale: float) -> None:
        self.transformer, self.vector, self.given, self.scale = transformer, told, given, cfg_scale

    def _told(self, n: int) -> Tensor | None:
        told = self.vector(self.given.cycle(n), n)
        return told if self.scale == 1.0 else torch.cat([cast(Tensor, told), cast(Tensor, self.vector(Given(), n))])

    def _twice(self, codes: Tensor) -> Tensor:
        return codes if self.scale == 1.0 else torch.cat([codes, codes])

    def _guide(self, logits: Tensor) -> Tensor:
        if self.scale == 1.0:
            return logits
        told, untold = logits.log_softmax(-1).chunk(2)
        return untold + self.scale * (told - untold)

    def logits(self, codes: Tensor) -> Tensor:
        return self._guide(self.transformer(self._twice(codes), self._told(len(codes))))

    def begin(self, n: int) -> tuple[Tensor, Cache]:
        logits, cache = self.transformer.begin(n if self.scale == 1.0 else 2 * n, self._told(n))
        return self._guide(logits), cache

    def advance(self, codes: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        logits, cache = self.transformer.advance(self._twice(codes), state)
        return self._guide(logits), cache


class _QuantizedCodec(Codec):
    """A VQVAE read as a pair of maps: continuous latents, quantised on the way back (Rombach et al. 2022, VQ-reg)."""

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.model, self.latent_shape = model, model.latent_shape

    def encode(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.model.event_shape:
            raise ShapeError("events to encode", x.shape, ("n", *self.model.event_shape))
        return self.model._encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.model._decode(self.model.quantizer(z).z)


def _diffusers_net(config: VQVAEConfig, event_shape: torch.Size) -> VQModel:
    if config.pretrained:
        from diffusers import VQModel

        return cast("VQModel", VQModel.from_config(json.loads(config.pretrained)))
    net = diffusers_autoencoder(
        event_shape[0],
        config.latent,
        downsample=config.downsample,
        width=config.width,
        blocks=config.blocks,
        codes=config.codes,
    )
    return cast("VQModel", net)
