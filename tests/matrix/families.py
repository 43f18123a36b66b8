"""Every family, tiny, in one, two and three dimensions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from oneprior.core import ConditionSpec, Rows
from oneprior.data import phantoms
from oneprior.data.batch import Batch
from oneprior.models import FAMILIES, family
from oneprior.models.base import ClosedFormModel, Model

SHAPES = {1: (1, 16), 2: (1, 8, 8), 3: (1, 8, 8, 8)}


@dataclass(frozen=True)
class Tiny:
    """A family with the smallest settings that still are that family."""

    family: str
    settings: dict[str, Any] = field(default_factory=dict)
    dimensions: tuple[int, ...] = (1, 2, 3)
    conditional: bool = True

    @property
    def name(self) -> str:
        return "-".join([self.family, *(str(v) for v in self.settings.values() if isinstance(v, str))])

    def build(self, shape: tuple[int, ...], conditions: tuple[ConditionSpec, ...] = ()) -> Model:
        """The model with seeded weights and its statistics prepared on phantoms."""
        torch.manual_seed(0)
        config = FAMILIES[self.family][0](**self.settings)
        model = family(self.family)(config, shape, conditions)
        batches = lambda: iter([batch_of(shape, conditions)])  # noqa: E731
        if isinstance(model, ClosedFormModel):
            for _ in model.fit_passes(batches, Rows(16, seed=1)):
                pass
        else:
            model.prepare(batches, Rows(16, seed=1))
        return model.eval()


U = {"width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (1,)}
TINY = [
    Tiny("ppca", {"rank": 3}),
    Tiny("ppca", {"rank": 2, "components": 2}),
    Tiny("vae", {"latent": 3, "width": 8, "network": "light"}),
    Tiny("vae", {"latent": 3, "width": 4, "network": "mlp"}),
    Tiny("gan", {"latent": 4, "width": 8, "network": "conv", "augment": "none"}),
    Tiny("gan", {"latent": 4, "width": 8, "network": "mlp", "objective": "nonsaturating"}),
    Tiny("gan", {"latent": 8, "width": 8, "network": "stylegan2", "objective": "minimax"}, (2,)),
    Tiny("vqvae", {"codes": 8, "latent": 4, "width": 8, "prior_width": 16, "prior_depth": 1, "prior_heads": 2}),
    Tiny("diffusion", {**U, "network": "unet"}),
    Tiny("diffusion", {"network": "mlp", "width": 8, "blocks": 1, "schedule": "flow"}),
    Tiny("diffusion", {"network": "mlp", "width": 8, "blocks": 1, "schedule": "linear"}),
]


def batch_of(shape: tuple[int, ...], conditions: tuple[ConditionSpec, ...] = (), n: int = 16) -> Batch:
    """Phantoms, with labels where they are asked for."""
    x = phantoms(n, shape[1:], Rows(n, seed=3))
    labels = {spec.name: torch.arange(n) % spec.classes for spec in conditions}
    return Batch(x, condition=labels, index=torch.arange(n))


def cases() -> Iterator[tuple[Tiny, int]]:
    """Every family in every dimension that it serves."""
    for tiny in TINY:
        for dimension in tiny.dimensions:
            yield tiny, dimension
