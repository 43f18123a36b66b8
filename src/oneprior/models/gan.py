"""Generative adversarial networks: x = G(z), learned from a critic that tells real events from generated ones.

Three choices are separate here. The *game* (`objective`): `oneprior.models.adversarial_losses`; the default is the
relativistic game with R1 and R2 of R3GAN (Huang, Gokaslan, Kuleshov and Tompkin 2024), whose weight gamma falls on a
cosine as the training goes on. The *networks* (`network`): R3GAN-style convolutional ones for lines, pictures and
volumes, StyleGAN2 (Karras et al. 2020), the networks of Goodfellow et al. 2014, or small perceptrons. The
*augmentation* of what the critic sees (`augment`): adaptive (Karras et al. 2020b) where data are few.

`GAN.prior` gives the law as a map of Gaussian noise, in one of three spaces: "z", the generator as it was trained;
"w", for StyleGAN2, where w is taken as Gaussian with the mean and covariance that the mapping network gives it, a
flatter space to invert in; and "w+", with one w per layer, which reaches more pictures than the generator was trained
to make. The last two are other laws than that of "z", near it.

The critic's step needs second derivatives, so it is never compiled. Each `forward` computes gradients for the one
player's parameters only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from oneprior.core import ConditionSpec, IncompatiblePrior, InputError, Rows, ShapeError
from oneprior.data.batch import Batch
from oneprior.models.adversarial_losses import critic_loss, generator_loss, gradient_penalty
from oneprior.models.base import Model, Recipe, mean_over_rows
from oneprior.models.configs.gan import GANConfig
from oneprior.models.gan_networks import build_networks
from oneprior.nets.adversarial import Given, check_given
from oneprior.nets.augment import Augment, sum_over_processes
from oneprior.nets.perceptron import GoodfellowGenerator
from oneprior.nets.style_generator import Mapping as StyleMapping
from oneprior.nets.style_generator import StyleGenerator
from oneprior.priors.base import NoisePrior, StandardNormal
from oneprior.priors.pushforward import NoisePushforward
from oneprior.priors.styles import Space, StyleNormal

SMALL_SET = 30_000
_TINY_EVENT = 100
_ADAPT_EVERY = 4
_PATH_EVERY = 4
_STYLE_MEMORY = 0.998


class GAN(Model):
    """A generator and a critic; see the module and `GANConfig`.

    Attributes:
        network: the networks in use ("auto" resolved).
        generator: G(z, given, noise) -> x.
        critic: D(x, given) -> logits.
        augment: what the critic sees events through.
    """

    family: ClassVar[str] = "gan"
    config: GANConfig
    steps: Tensor
    augmenting: Tensor
    path_mean: Tensor

    def __init__(
        self,
        config: GANConfig,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
    ) -> None:
        super().__init__(config, event_shape, conditions)
        if config.penalty_every < 1:
            raise InputError(f"penalty_every counts critic steps and is at least 1, got {config.penalty_every}")
        self.network = config.network
        if self.network == "auto":
            self.network = "mlp" if self.event_shape.numel() <= _TINY_EVENT else "conv"
        self.generator, self.critic = build_networks(
            replace(config, network=self.network), self.event_shape, conditions
        )
        self.augment = Augment(
            self.event_shape, config.augment_steps, target=config.augment_target, images=config.augment_images
        )
        self.register_buffer("steps", torch.zeros([], dtype=torch.int64))
        self.register_buffer("augmenting", torch.tensor(config.augment in ("adaptive", "ramp")))
        self.register_buffer("path_mean", torch.zeros([]))

    @property
    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"critic": list(self.critic.parameters()), "generator": list(self.generator.parameters())}

    @property
    def gamma(self) -> float:
        """The weight of the gradient penalties now."""
        config = self.config
        if config.gamma is None:
            start = 0.0 if config.objective == "minimax" else default_gamma(self.event_shape)
        else:
            start = config.gamma
        if config.objective != "relativistic":
            return start
        left = 0.5 * (1.0 + math.cos(math.pi * self.progress))
        return start * (config.gamma_end + (1.0 - config.gamma_end) * left)

    def forward(self, batch: Batch, player: str, rows: Rows) -> dict[str, Tensor]:
        """The critic's {"critic", "r1", "r2"} or the generator's {"generator", "path_length"}, and metrics."""
        if batch.x.shape[1:] != self.event_shape:
            raise ShapeError("batch of events", batch.x.shape, ("n", *self.event_shape))
        rows = rows.to(batch.x.device).stream(player)
        given = self._hide(batch, rows.stream("hide"))
        if player == "critic":
            with frozen(self.generator):
                return self._critic_step(batch, given, rows)
        if player == "generator":
            with frozen(self.critic):
                return self._generator_step(batch, given, rows)
        raise InputError(f"the players of a gan are 'critic' and 'generator', got {player!r}")

    def _critic_step(self, batch: Batch, given: Given, rows: Rows) -> dict[str, Tensor]:
        config, gamma = self.config, self.gamma
        with torch.no_grad():
            fake = self._generate(given, rows)
            real, fake = self._see(batch.x, rows.stream("real")), self._see(fake, rows.stream("fake"))
        penalised = gamma > 0 and int(self.steps) % config.penalty_every == 0
        both = config.objective == "relativistic"
        real.requires_grad_(penalised)
        fake.requires_grad_(penalised and both)
        d_real, d_fake = self._logits(real, fake, given, rows, together=both or not penalised)
        losses = {"critic": mean_over_rows(critic_loss(config.objective, d_real, d_fake), batch)}
        if penalised:
            weight = 0.5 * gamma * config.penalty_every
            penalties = gradient_penalty(d_real + d_fake, real, fake) if both else gradient_penalty(d_real, real)
            for name, penalty in zip(("r1", "r2"), penalties, strict=False):
                losses[name] = weight * mean_over_rows(penalty, batch)
        d_real, d_fake = d_real.detach(), d_fake.detach()
        centre = sum_over_processes(torch.stack([(d_real + d_fake).sum() / 2, d_real.new_tensor(float(len(d_real)))]))
        centred = d_real - centre[0] / centre[1]  # of the global batch
        if self.config.augment != "ramp" and bool(self.augmenting):
            self.augment.observe(centred)
        return losses | {
            "metric/gap": (d_real - d_fake).mean(),
            "metric/overfitting": centred.sign().mean(),
            "metric/augment_p": self.augment.p.clone(),
        }

    def _generator_step(self, batch: Batch, given: Given, rows: Rows) -> dict[str, Tensor]:
        config = self.config
        fake = self._see(self._generate(given, rows), rows.stream("fake"))
        if config.objective == "relativistic":
            with torch.no_grad():
                real = self._see(batch.x, rows.stream("real"))
                d_real = self.critic(real, given, rows.stream("dropout real"))
        else:
            d_real = fake.new_zeros(len(batch))
        d_fake = self.critic(fake, given, rows.stream("dropout fake"))
        losses = {"generator": mean_over_rows(generator_loss(config.objective, d_real, d_fake), batch)}
        if isinstance(self.generator, StyleGenerator):
            self._note_styles(self.generator.mapping, given, rows)
            if config.path_length > 0 and int(self.steps) % _PATH_EVERY == 0:
                losses["path_length"] = _PATH_EVERY * config.path_length * self._path_length(given, rows)
        return losses

    def _see(self, x: Tensor, rows: Rows) -> Tensor:
        """What the critic sees of x; a tensor of its own, so that gradients may stop at it."""
        seen = self.augment(x, rows) if bool(self.augmenting) else x
        return x.clone() if seen is x else seen

    def _logits(self, real: Tensor, fake: Tensor, given: Given, rows: Rows, *, together: bool) -> tuple[Tensor, Tensor]:
        """D(real) and D(fake), as one batch where the critic treats rows apart: large batches are faster."""
        n = real.shape[0]
        if together and not self.critic.couples_rows:
            logits = self.critic(torch.cat([real, fake]), given.cycle(2 * n), rows.stream("dropout").repeat(2))
            return logits[:n], logits[n:]
        return (
            self.critic(real, given, rows.stream("dropout real")),
            self.critic(fake, given, rows.stream("dropout fake")),
        )

    def _generate(self, given: Given, rows: Rows) -> Tensor:
        """One event per row as in training: random noise inputs, and mixed styles where they are asked for."""
        z = rows.stream("z").normal(self.generator.latent)
        if not isinstance(self.generator, StyleGenerator):
            return self.generator(z, given)
        ws = self.generator.mapping(z, given)
        if self.config.style_mixing > 0:
            mix = rows.stream("mixing")
            other = self.generator.mapping(mix.normal(self.generator.latent), given)
            layer = torch.arange(ws.shape[1], device=ws.device)[None, :]
            first = torch.where(mix.uniform(1) < self.config.style_mixing, 1 + mix.integers(ws.shape[1] - 1, 1), 10**6)
            ws = torch.where((layer < first)[:, :, None], ws, other)
        return self.generator.synthesis(ws, rows.stream("noise").normal(self.generator.noise_size))

    @torch.no_grad()
    def _note_styles(self, mapping: StyleMapping, given: Given, rows: Rows) -> None:
        """Move w_avg towards the mean of w over the global batch."""
        w = mapping.style_of(rows.stream("z").normal(self.generator.latent), given)
        total = sum_over_processes(torch.cat([w.sum(0), w.new_tensor([float(len(rows))])]))
        mapping.w_avg.lerp_((total[:-1] / total[-1]).to(mapping.w_avg), 1.0 - _STYLE_MEMORY)

    def _path_length(self, given: Given, rows: Rows) -> Tensor:
        """(|J_w' y| - a)^2, y random pictures, a the running mean, on half the rows (Karras et al. 2020, eq. 4)."""
        assert isinstance(self.generator, StyleGenerator)
        half = rows.stream("path").take(slice(0, max(1, len(rows) // 2)))
        given = given.take(slice(len(half)))
        ws = self.generator.mapping(half.normal(self.generator.latent), given)
        x = self.generator.synthesis(ws, half.normal(self.generator.noise_size))
        y = half.normal(*self.event_shape) / math.sqrt(math.prod(self.event_shape[1:]))
        (jacobian,) = torch.autograd.grad((x * y).sum(), ws, create_graph=True)
        lengths = jacobian.square().sum(2).mean(1).sqrt()
        with torch.no_grad():
            total = sum_over_processes(torch.stack([lengths.sum(), lengths.new_tensor(float(len(half)))]))
            self.path_mean.lerp_((total[0] / total[1]).to(self.path_mean), 0.01)
        return (lengths - self.path_mean).square().mean()

    def _hide(self, batch: Batch, rows: Rows) -> Given:
        """The batch's conditions, each hidden in some rows so that its "absent" value is learned."""
        given = Given(batch.condition, batch.present)
        check_given(given, self.conditions)
        if not batch.condition or self.config.condition_dropout <= 0:
            return given
        keep = rows.uniform(len(batch.condition)) >= self.config.condition_dropout
        present = dict(batch.present)
        for k, name in enumerate(sorted(batch.condition)):
            present[name] = keep[:, k] & present[name] if name in present else keep[:, k]
        return Given(batch.condition, present)

    def prepare(self, passes: Callable[[], Iterator[Batch]], rows: Rows) -> None:
        """Look at one batch: is the set small enough to augment, and where does the 2014 generator start."""
        batch = next(iter(passes()))
        if self.config.augment == "auto" and batch.index is not None:
            # k numbers drawn from 0 .. N-1 have the largest near N k / (k + 1)
            size = (int(batch.index.max()) + 1) * (1.0 + 1.0 / len(batch))
            self.augmenting.fill_(size < SMALL_SET)
        if isinstance(self.generator, GoodfellowGenerator):
            self.generator.start_at(batch.x.mean(0).to(self.device))

    def after_step(self, images: int) -> None:
        """Count the step and move the probability of augmentation."""
        self.steps += 1
        if not bool(self.augmenting):
            return
        if self.config.augment == "ramp":
            self.augment.p.fill_(self.config.augment_probability * 0.5 * (1.0 - math.cos(math.pi * self.progress)))
        elif int(self.steps) % _ADAPT_EVERY == 0:
            self.augment.adapt()

    def recipe(self, player: str) -> Recipe:
        rate = self.config.learning_rate
        if self.network == "goodfellow2014":
            return Recipe(rate or 0.1, (0.5, 0.0), ema=0.0, clip=0.0, compile=False, optimiser="sgd")
        if self.network == "stylegan2":
            return Recipe(rate or 2.5e-3, (0.0, 0.99), ema=10_000.0, clip=0.0, compile=False)
        return Recipe(rate or 2e-3, (0.0, 0.99), ema=10_000.0, clip=0.0, compile=False)

    @property
    def spaces(self) -> tuple[Space, ...]:
        return ("z", "w", "w+") if isinstance(self.generator, StyleGenerator) else ("z",)

    @property
    def mapping(self) -> StyleMapping:
        """The mapping network of StyleGAN2."""
        return self._style_generator("a mapping network").mapping

    def prior(
        self,
        condition: Mapping[str, Tensor] | None = None,
        *,
        space: Space = "z",
        truncation: float = 1.0,
        noise: Literal["constant", "random"] = "constant",
    ) -> NoisePushforward:
        """The law that was learned, as a map of Gaussian noise u.

        Args:
            condition: bound here, one row each or one for all; what is not given is absent.
            space: u is z; or w = mean + root u with the moments of 10,000 mapped z; or one such w per layer.
            truncation: psi; w is drawn towards its average. Without a mapping network z is scaled by it.
            noise: the constant planes of StyleGAN2, or planes that are part of u: u = (z or w, planes), flat.
        """
        given = Given(dict(condition or {})).to(self.device)
        check_given(given, self.conditions)
        generator = self.generator
        if space != "z" or noise == "random":
            self._style_generator(f"space={space!r}" if space != "z" else "noise='random'")
        layers = generator.synthesis.num_ws if isinstance(generator, StyleGenerator) else 1
        length = generator.mapping.style if space != "z" and isinstance(generator, StyleGenerator) else generator.latent
        inner = torch.Size([layers] if space == "w+" else []) + torch.Size([length])
        base: NoisePrior = StandardNormal(inner, self.device)
        if space != "z" and isinstance(generator, StyleGenerator):
            base = StyleNormal(inner, *generator.mapping.moments(given))
        read = self._read(given, space, truncation, layers)

        def picture(z: Tensor, planes: Tensor | None = None) -> Tensor:
            if isinstance(generator, StyleGenerator):
                return generator.synthesis(read(z), planes)
            return generator(read(z), given.cycle(z.shape[0]))

        if noise == "constant":
            return NoisePushforward(base, picture, self.event_shape)
        size, inside = inner.numel(), base
        whole = StandardNormal((size + generator.noise_size,), self.device)

        def decode(u: Tensor) -> Tensor:
            return picture(inside.decode(u[:, :size].reshape(-1, *inner)), u[:, size:])

        return NoisePushforward(whole, decode, self.event_shape)

    def surface(self, condition: Mapping[str, Tensor] | None = None) -> NoisePushforward:
        return self.prior(condition)

    def _read(self, given: Given, space: Space, truncation: float, layers: int) -> Callable[[Tensor], Tensor]:
        """z or w -> what the generator proper reads: z, or w for each layer."""
        generator = self.generator
        if not isinstance(generator, StyleGenerator):
            return lambda z: truncation * z
        mapping = generator.mapping
        if space == "z":
            return lambda z: mapping(z, given.cycle(z.shape[0]), truncation)
        return lambda w: mapping.truncate(w, truncation).expand(-1, layers, -1)

    def truncation_sheet(
        self, rows: Rows, values: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7, 1.0), condition: Any = None
    ) -> Tensor:
        """The same rows at several truncations, (n, len(values), *event_shape)."""
        sheets = [self.prior(condition, truncation=psi).sample(rows.stream("sheet")) for psi in values]
        return torch.stack(sheets, 1)

    def preview(self, rows: Rows, batch: Batch | None = None) -> dict[str, Tensor]:
        condition = {} if batch is None else dict(batch.condition)
        return {"samples": self.prior(condition).sample(rows)}

    def _style_generator(self, what: str) -> StyleGenerator:
        if not isinstance(self.generator, StyleGenerator):
            raise IncompatiblePrior(f"{what} needs network='stylegan2'; this model has network={self.network!r}")
        return self.generator


def default_gamma(event_shape: torch.Size) -> float:
    """One for each 64 numbers of the event, at most 16.

    Distances between events grow with the number of their entries, so the critic's slope falls and its square counts
    for less. Measured in two CPU minutes: 1 was the best of 0.1 to 3 on 8 x 8 digits; on 28 x 28 clothing 10 gave a
    third of the Frechet distance of 1, whose critic won. (R3GAN has 0.05 for CIFAR-10, 2 and 150 for faces.)
    """
    return min(event_shape.numel() / 64, 16.0)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for these parameters: the graph built inside passes through the module and never into it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
