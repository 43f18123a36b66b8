"""Diffusion and flow matching: a network learns to take noise away, at every level of it.

An event x is drowned, x_t = alpha x + sigma eps with eps ~ N(0, I) (Sohl-Dickstein et al. 2015; Ho, Jain, Abbeel
2020), and the network is fitted by least squares to a linear mixture of x and eps, so that it comes to know E[x | x_t]
(Vincent 2011), which is all that sampling and guidance need. The families in use are choices of three things:

- the schedule, that is, which noise levels s = sigma / alpha there are;
- the target, "v" = alpha eps - sigma x by default (Salimans and Ho 2022). For alpha^2 + sigma^2 = 1 its plain squared
  error is EDM's weighted loss with sigma_data = 1: their preconditioned network F is -v (Karras et al. 2022, equations
  7 and 8);
- the law of s in training: log-normal (Karras et al. 2022; for rectified flow it is the logit-normal t of Esser et al.
  2024, the same law), with a share of rows uniform in t, or uniform in t alone, as DDPM has it. The mean of log s is
  -0.6: pictures on [-1, 1] that are mostly background or ink deviate by about 0.7, EDM's CIFAR-10 by 0.5, for which
  they take -1.2. (8x8 digits, 200,000 images, one seed: Frechet distances of pixels of 0.28, 0.24, 0.22 for
  means of -1.2, -0.8, -0.4.)

x0 is fitted with the weight max(SNR, 1) (Salimans and Ho 2022, section 4); all other targets with weight 1. The noise
level of a row is a function of the row's own number: numbers in succession fall evenly over the law (Weyl 1916),
which lowers the variance of the gradient and couples no rows.

The network is told the place of s in DDPM's table of 1000 steps, whatever the schedule: so its weights are at once
those of a `UNet2DModel` that diffusers' pipelines can run (`diffusers_format`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from oneprior.core import ConditionSpec, InputError, Rows, per_row
from oneprior.data.batch import Batch
from oneprior.models.base import Model, Recipe, mean_over_rows
from oneprior.models.conditions import bind, told_in_training
from oneprior.models.configs.diffusion import DiffusionConfig
from oneprior.nets.adversarial import Given
from oneprior.nets.unet import denoiser
from oneprior.priors.diffusion.parameterisation import Parameterisation, from_x0
from oneprior.priors.diffusion.prior import Clock, DiffusionPrior
from oneprior.priors.diffusion.samplers import DiffusionSampler, DPMSolver
from oneprior.priors.diffusion.schedule import Schedule
from oneprior.priors.diffusion.schedules import CosineSchedule, EDMSchedule, LinearSchedule, RectifiedFlow
from oneprior.priors.gaussian import LowRankGaussian

_TARGETS: dict[str, Parameterisation] = {
    "edm": "v",
    "linear": "eps",
    "scaled_linear": "eps",
    "cosine": "v",
    "flow": "velocity",
}
_GOLDEN = 2654435769  # 2^32 / golden ratio
_LEVELS = (0.002, 160.0)  # from EDM's lowest to the last step of the linear table, where an exported pipeline starts
_MOMENT_IMAGES = 10_000
_MOMENT_NUMBERS = 16384  # no Gaussian is fitted to larger events


class Diffusion(Model):
    """A denoising network with its schedule.

    Args:
        config: see `DiffusionConfig`.
        event_shape: (channels, *space).
        conditions: what it can be told.

    Raises:
        InputError: for settings that do not belong together.
    """

    family = "diffusion"
    config: DiffusionConfig
    moment_mean: Tensor
    moment_basis: Tensor
    moment_variances: Tensor
    moment_noise: Tensor

    def __init__(
        self,
        config: DiffusionConfig,
        event_shape: torch.Size | tuple[int, ...],
        conditions: tuple[ConditionSpec, ...] = (),
    ) -> None:
        super().__init__(config, event_shape, conditions)
        self.schedule = schedule_of(config)
        self.clock = Clock.for_schedule(self.schedule)
        self.parameterisation: Parameterisation = _parameterisation(config)
        self.network = denoiser(
            self.event_shape,
            self.conditions,
            network=config.network,
            width=config.width,
            multipliers=config.multipliers,
            blocks=config.blocks,
            attention=config.attention,
            dropout=config.dropout,
            config=config.pretrained,
        )
        d = self.event_shape.numel()
        rank = max(0, min(config.moments_rank, d - 1)) if d <= _MOMENT_NUMBERS else 0
        self.register_buffer("moment_mean", torch.zeros(d if rank else 0))
        self.register_buffer("moment_basis", torch.zeros(d if rank else 0, rank))
        self.register_buffer("moment_variances", torch.zeros(rank))
        self.register_buffer("moment_noise", torch.zeros(()))

    @property
    def players(self) -> Mapping[str, list[nn.Parameter]]:
        return {"all": list(self.network.parameters())}

    def recipe(self, player: str) -> Recipe:
        return Recipe(learning_rate=1e-3, ema=20_000.0)

    def forward(self, batch: Batch, player: str, rows: Rows) -> dict[str, Tensor]:
        x, rows = batch.x, rows.to(batch.x.device)
        t = self.training_times(rows)
        alpha, sigma = per_row(self.schedule.alpha(t), x), per_row(self.schedule.sigma(t), x)
        x_t = alpha * x + sigma * rows.stream("noise").normal(*self.event_shape, dtype=x.dtype)
        out = self.network(x_t, self.clock(self.schedule, t).float(), self._told(batch, rows))
        error = (out - from_x0(self.parameterisation, x, x_t, alpha, sigma)).square().flatten(1).mean(1)
        if self.parameterisation == "x0":
            error = error * (alpha / sigma).square().clamp_min(1.0).flatten()
        return {"denoising": mean_over_rows(error, batch)}

    def training_times(self, rows: Rows) -> Tensor:
        """The t of each row in a training step, (n,) float64: log-normal noise levels, or uniform t."""
        u = _even(rows.stream("level"))
        if _noise(self.config) == "uniform":
            return u.clamp_min(float(self.schedule.time(torch.tensor(_LEVELS[0], dtype=u.dtype))))
        s = torch.exp(self.config.noise_mean + self.config.noise_std * torch.special.ndtri(u))
        flat = rows.stream("tail").uniform(2, dtype=torch.float64)
        low, high = (self.schedule.time(torch.tensor(level, dtype=u.dtype, device=u.device)) for level in _LEVELS)
        return torch.where(flat[:, 0] < self.config.tail, low + (high - low) * flat[:, 1], self.schedule.time(s))

    def prior(
        self,
        condition: Mapping[str, Tensor] | None = None,
        *,
        sampler: DiffusionSampler | None = None,
        steps: int = 18,
        cfg_scale: float = 1.0,
    ) -> DiffusionPrior:
        """The law that was learned.

        Args:
            condition: tensors with first axis n or 1; what is not given is absent.
            sampler: how `sample` integrates; DPM-Solver++(2M) by default.
            steps: network calls of the default sampler.
            cfg_scale: classifier-free guidance; 1 for none.
        """
        return DiffusionPrior(
            self.network,
            self.schedule,
            self.event_shape,
            parameterisation=self.parameterisation,
            clock=self.clock,
            given=bind(condition, self.conditions, self.device),
            cfg_scale=cfg_scale,
            sampler=sampler or DPMSolver(steps=steps),
            moments=self.moments(),
        )

    def moments(self) -> LowRankGaussian | None:
        """The Gaussian of the data that `prepare` fitted, or None."""
        if not bool(self.moment_noise > 0):
            return None
        mean = self.moment_mean.reshape(self.event_shape)
        return LowRankGaussian(mean, self.moment_basis, self.moment_variances, self.moment_noise)

    def prepare(self, passes: Callable[[], Iterator[Batch]], rows: Rows) -> None:
        """Fits the Gaussian of the data, on at most 10,000 of them."""
        rank = self.moment_variances.numel()
        if rank == 0:
            return
        seen: list[Tensor] = []
        stream = _first(passes(), _MOMENT_IMAGES)
        for x in stream:
            seen.append(x)
            if sum(map(len, seen)) > rank + 1:
                break
        if (count := sum(map(len, seen))) < 3:
            return
        found = LowRankGaussian.fit(chain(seen, stream), min(rank, count - 2))
        self.moment_mean.copy_(found.mean.flatten())
        self.moment_basis.zero_()[:, : found.rank] = found.basis
        self.moment_variances.zero_()[: found.rank] = found.variances
        self.moment_noise.copy_(found.noise_variance)

    def _told(self, batch: Batch, rows: Rows) -> Given | None:
        """Each condition is withheld at times, and at times all at once: that is what cfg_scale compares with."""
        if not self.conditions:
            return None
        given = told_in_training(batch, self.conditions, rows, self.config.condition_dropout)
        if len(self.conditions) == 1:
            return given
        kept = rows.stream("all withheld").uniform() >= self.config.condition_dropout
        return Given(given.values, {name: present & kept for name, present in given.present.items()})


def schedule_of(config: DiffusionConfig) -> Schedule:
    """The schedule that these settings name."""
    if config.schedule == "edm":
        return EDMSchedule()
    if config.schedule == "flow":
        return RectifiedFlow()
    if config.schedule == "cosine":
        return CosineSchedule(config.table_steps)
    scaled = config.schedule == "scaled_linear"
    return LinearSchedule(config.beta_start, config.beta_end, config.table_steps, scaled)


def _parameterisation(config: DiffusionConfig) -> Parameterisation:
    named = config.parameterisation
    if named == "auto":
        return _TARGETS[config.schedule]
    if named == "edm":
        if config.schedule == "flow":
            raise InputError(
                "EDM's preconditioning belongs to a variance-preserving schedule: give parameterisation=velocity"
            )
        return "v"
    return named


def _noise(config: DiffusionConfig) -> str:
    named = {"edm": "lognormal", "flow": "lognormal"}.get(config.schedule, "uniform")
    return named if config.noise == "auto" else config.noise


def _even(rows: Rows) -> Tensor:
    """A number in (0, 1) for each row, (n,) float64: one offset for the step, plus the row's number times the golden
    ratio, so that rows in succession lie evenly."""
    step = Rows([0], rows.seed, stream=rows.name, device=rows.device)
    step.calls = rows.calls
    offset = step.bits()
    rows.calls += 1
    return (((rows.index * _GOLDEN + offset) & 0xFFFFFFFF).double() + 0.5) * 2.0**-32


def _first(batches: Iterator[Batch], images: int) -> Iterator[Tensor]:
    """The events of the first batches, about so many."""
    seen = 0
    for batch in batches:
        if seen >= images:
            return
        yield batch.x
        seen += len(batch)
