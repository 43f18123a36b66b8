"""What every trainable family is: named losses, the players that minimise them, and a prior at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from oneprior.core import ConditionSpec, IncompatiblePrior, InputError, Rows
from oneprior.data.batch import Batch
from oneprior.priors.base import Prior
from oneprior.priors.styles import Space


@dataclass(frozen=True)
class Recipe:
    """How a player is optimised when the user says nothing.

    Args:
        learning_rate: of Adam(W).
        betas: of Adam(W).
        weight_decay: decoupled.
        ema: half-life of the averaged weights, in images; 0 for none.
        clip: largest gradient norm; 0 for none.
        compile: whether torch.compile may be used (never with double backward).
        optimiser: "adam", or "sgd" with momentum betas[0] (the first GAN paper's).
    """

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    ema: float = 20_000.0
    clip: float = 1.0
    compile: bool = True
    optimiser: Literal["adam", "sgd"] = "adam"


class Model(nn.Module, ABC):
    """A trainable family: `forward` gives the named losses of one player, `prior` the law that was learned.

    A concrete model is built by `Family(config, event_shape, conditions)`, where config is a frozen dataclass of plain
    values, so that a run folder can hold it as JSON.

    Attributes:
        config: the dataclass it was made from.
        event_shape: (channels, *space) of one x.
        conditions: what it can be told; each has one learned "absent" value.
        progress: how much of the training is done, 0 to 1; set by the training loop, read by losses that anneal.
    """

    family: ClassVar[str]
    coded: ClassVar[bool] = False
    """Whether events have codes."""
    config: Any
    event_shape: torch.Size
    conditions: tuple[ConditionSpec, ...]

    def __init__(
        self, config: Any, event_shape: torch.Size | tuple[int, ...], conditions: tuple[ConditionSpec, ...] = ()
    ) -> None:
        super().__init__()
        self.config, self.event_shape, self.conditions = config, torch.Size(event_shape), tuple(conditions)
        self.progress = 0.0

    @property
    @abstractmethod
    def players(self) -> Mapping[str, list[nn.Parameter]]:
        """The parameters of each player, in playing order: {"all": ...} or {"critic": ..., "generator": ...}."""

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The latent spaces in which `prior` can be asked for (`space=`), the default first; of a GAN, else none."""
        return ()

    @abstractmethod
    def forward(self, batch: Batch, player: str, rows: Rows) -> dict[str, Tensor]:
        """The named losses of one player on one batch, scalars; their sum is minimised.

        A name that starts with "metric/" is logged and not minimised. Means run over the rows of the batch (weighted
        by `batch.weight`), so that equal shares of a global batch average to its loss.
        """

    @abstractmethod
    def prior(self, condition: Mapping[str, Tensor] | None = None) -> Prior:
        """The law that was learned; conditions are bound here, one row each or one for all, and nowhere below."""

    def surface(self, condition: Mapping[str, Tensor] | None = None) -> Prior | None:
        """The law of the decoder alone, x = f(z), for a family that puts all its mass on such a surface; real events
        lie beside it. None where the law covers all events."""
        return None

    def explain(self, x: Tensor, rows: Rows, condition: Mapping[str, Tensor] | None = None) -> Tensor | None:
        """f(z) with a z that the encoder draws for x, (n, *event_shape); None where there is no encoder."""
        return None

    def codes(self, x: Tensor) -> Tensor:
        """The codes of events, (n, *event_shape) -> (n, *grid) int64.

        Raises:
            IncompatiblePrior: for a family without a discrete code (`coded` is False).
        """
        raise IncompatiblePrior(f"a {self.family} has no codes: train a vqvae")

    @property
    def codebook(self) -> Tensor | None:
        """The vectors of the codes, (K, numbers); None for a family without a discrete code."""
        return None

    def latents(self, x: Tensor) -> Tensor | None:
        """What `surface` decodes into something near x, (n, *event_shape) -> (n, *noise_shape); None without an
        encoder."""
        return None

    def doubts(self, losses: Mapping[str, float]) -> list[str]:
        """What speaks against a training that has ended, from its newest losses and metrics; none where all is well."""
        return []

    def recipe(self, player: str) -> Recipe:
        """The default optimisation of one player."""
        return Recipe()

    def prepare(self, passes: Callable[[], Iterator[Batch]], rows: Rows) -> None:
        """Called once, before the first step of a new run: read what the data say of themselves (moments, scales,
        a codebook's start) into buffers. `passes()` starts a pass over the data in random order."""
        return

    def after_step(self, images: int) -> None:
        """Called after every optimisation step of all players, with the number of images of the step."""
        return

    def preview(self, rows: Rows, batch: Batch | None = None) -> dict[str, Tensor]:
        """Pictures to look at while it trains: {"samples": (n, *event_shape)}, fixed by the rows."""
        return {"samples": self.prior().sample(rows)}

    @property
    def device(self) -> torch.device:
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    def config_dict(self) -> dict[str, Any]:
        return asdict(self.config)


class ClosedFormModel(Model):
    """A family fitted by passes over the data rather than by gradients (`ppca`)."""

    @property
    def players(self) -> Mapping[str, list[nn.Parameter]]:
        return {}

    def forward(self, batch: Batch, player: str, rows: Rows) -> dict[str, Tensor]:
        raise InputError(f"{self.family} has no gradient loss; it is fitted by `fit_passes`")

    @abstractmethod
    def fit_passes(self, passes: Callable[[], Iterator[Batch]], rows: Rows) -> Iterator[dict[str, float]]:
        """Fit; `passes()` starts a new pass over the data; yields metrics after each step of the fit."""

    def widen(self, unseen: Iterable[Batch]) -> float:
        """Make the law as wide as events that were held out ask; returns the factor on the noise variance, 1 where a
        family has none."""
        return 1.0


def mean_over_rows(value: Tensor, batch: Batch) -> Tensor:
    """The weighted mean over rows of a per-row loss (n,)."""
    return value.mean() if batch.weight is None else (value * batch.weight).mean()
