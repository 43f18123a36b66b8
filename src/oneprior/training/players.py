"""The players of a model and their optimisers: whose turn it is, and the step it takes.

A plain family has one player; an adversarial one has two that move in turn, each with its own loss, optimiser and
learning rate. During a turn only the player's own parameters ask for gradients. The optimiser is Adam with decoupled
weight decay (Kingma, Ba 2015, arXiv:1412.6980; Loshchilov, Hutter 2019, arXiv:1711.05101); decay is of matrices and
kernels only, never of biases and gains. A recipe may ask for SGD with momentum instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from oneprior.core import Rows
from oneprior.data.batch import Batch
from oneprior.models.base import Model, Recipe
from oneprior.training.config import TrainConfig
from oneprior.training.numerics import Numerics
from oneprior.training.parallel import cut_like, is_cut, whole


class Losses(nn.Module):
    """The sum that a player minimises, and the named losses to log: the one module that data-parallel code calls."""

    def __init__(self, model: Model, numerics: Numerics) -> None:
        super().__init__()
        self.model, self.numerics = model, numerics

    def forward(self, batch: Batch, player: str, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        """(total, {name: detached scalar}); names that start with "metric/" are not in the total."""
        with self.numerics.autocast(batch.x.device):
            named = self.model(batch, player, rows)
        minimised = [value.float() for name, value in named.items() if not name.startswith("metric/")]
        return torch.stack(minimised).sum(), {name: value.detach().float() for name, value in named.items()}


def recipes(model: Model, config: TrainConfig) -> dict[str, Recipe]:
    """The recipe of each player, with the user's settings in place of the family's."""
    mine = {"learning_rate": config.learning_rate, "ema": config.ema, "clip": config.clip}
    given = {name: value for name, value in mine.items() if value is not None}
    asked = {player: replace(model.recipe(player), **given) for player in model.players}
    scale = config.learning_rate_scale
    return {player: replace(one, learning_rate=scale * one.learning_rate) for player, one in asked.items()}


class Players:
    """The optimisers of a model's players.

    Args:
        model: on its device, spread over the processes already.
        recipes: one for each player.
    """

    def __init__(self, model: Model, recipes: Mapping[str, Recipe]) -> None:
        self.recipes = recipes
        self.parameters = {player: list(parameters) for player, parameters in model.players.items()}
        names = {id(p): name for name, p in model.named_parameters()}
        self.names = {player: [names[id(p)] for p in ps] for player, ps in self.parameters.items()}
        self._cut = any(is_cut(p) for p in model.parameters())
        self._asked = [(p, p.requires_grad) for ps in self.parameters.values() for p in ps]
        self.optimisers = {player: self._optimiser(player) for player in recipes}

    def __iter__(self):
        return iter(self.recipes)

    def _optimiser(self, player: str) -> torch.optim.Optimizer:
        recipe, parameters = self.recipes[player], self.parameters[player]
        kernels = [p for p in parameters if p.dim() > 1]
        others = [p for p in parameters if p.dim() <= 1]
        groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        fused = not self._cut and all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
        groups = [group for group in groups if group["params"]]
        if recipe.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.betas[0], fused=fused)
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=fused)

    def begin(self, player: str) -> None:
        """The turn of one player: its parameters alone ask for gradients, and all gradients are forgotten."""
        for other, parameters in self.parameters.items():
            for parameter in parameters:
                parameter.grad = None
                if len(self.parameters) > 1 and not self._cut and other != player:
                    parameter.requires_grad_(False)
        for parameter in self.parameters[player]:
            parameter.requires_grad_(True)

    def step(self, player: str, factor: float) -> Tensor:
        """One step with `factor` times the player's learning rate; returns the gradient's norm before clipping."""
        recipe, optimiser = self.recipes[player], self.optimisers[player]
        mine = [p for p in self.parameters[player] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in mine if p.grad is not None])
        if recipe.clip > 0:
            nn.utils.clip_grads_with_norm_(mine, recipe.clip, norm)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * factor
        optimiser.step()
        return whole(norm.detach())

    def release(self) -> None:
        """The parameters ask for gradients as they did before, and hold none."""
        for parameter, asked in self._asked:
            parameter.grad = None
            parameter.requires_grad_(asked)

    def state(self) -> dict[str, Tensor]:
        """The optimisers' state under flat names, player/parameter/key."""
        flat = {}
        for player, optimiser in self.optimisers.items():
            for name, parameter in zip(self.names[player], self.parameters[player], strict=True):
                for key, value in optimiser.state.get(parameter, {}).items():
                    flat[f"{player}/{name}/{key}"] = whole(value)
        return flat

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """Takes over a `state()`."""
        for player, optimiser in self.optimisers.items():
            for name, parameter in zip(self.names[player], self.parameters[player], strict=True):
                prefix = f"{player}/{name}/"
                mine = {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}
                if mine:
                    optimiser.state[parameter] = {
                        key: value.to(parameter.device) if value.dim() == 0 else _like(value, parameter)
                        for key, value in mine.items()
                    }


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A moment laid out in memory as its parameter is."""
    value = cut_like(value, parameter)
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
