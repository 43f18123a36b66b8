"""In which arithmetic the networks run while they learn.

bf16 autocast keeps the weights, their gradients' sums and the optimiser in fp32 and multiplies in bf16, where the
processor does that natively (AMX and AVX512-BF16 on CPUs, tensor cores since Ampere): a quarter faster or more, at no
measured cost in quality. A family whose losses differentiate twice (R1, R2) keeps fp32: its penalties are squares of
small gradients, and torch.compile has no double backward at all.

On a CPU compilation was measured to buy about a tenth and to cost about a minute, on top of bf16 only, so that "auto"
compiles only long runs: on a GPU from 500,000 images or 20 minutes, on a CPU from 60 minutes. Under an image budget a
CPU run is never compiled unless it is told to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oneprior.core import native_bf16
from oneprior.models.base import Model, Recipe
from oneprior.priors.base import Prior
from oneprior.priors.diffusion.blended import Blended
from oneprior.priors.diffusion.prior import DiffusionPrior
from oneprior.training.config import DEFAULT_IMAGES, TrainConfig

_LARGE = 500_000  # parameters from which bf16 pays on a CPU: conversions cost a small network more than they save
_VOLUME = 4096  # numbers of a volume from which it does for any network: its convolutions take thrice the time in fp32
_LONG_IMAGES, _LONG_MINUTES_GPU, _LONG_MINUTES_CPU = DEFAULT_IMAGES, 20, 60


@dataclass(frozen=True)
class Numerics:
    """What was chosen.

    Args:
        bf16: multiply in bfloat16.
        compile: torch.compile the parts of the model.
        channels_last: lay 4-dimensional tensors out with the channels last.
    """

    bf16: bool = False
    compile: bool = False
    channels_last: bool = False

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which losses are computed."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def layout(self, x: Tensor) -> Tensor:
        """A batch in the chosen memory layout."""
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.dim() == 4 else x


def quick(prior: Prior) -> Prior:
    """The same law with a diffusion's network in bf16, where the device multiplies bf16 natively and the network is
    large enough for it to pay: two to three times the speed; posteriors agree to far less than their own spread."""
    if isinstance(prior, Blended):
        network, other = quick(prior.network), copy(prior)
        assert isinstance(network, DiffusionPrior)
        other.network = network
        return other
    if isinstance(prior, DiffusionPrior) and prior.precision is None and native_bf16(prior.device):
        weights = prior.network.parameters() if isinstance(prior.network, nn.Module) else ()
        if sum(p.numel() for p in weights) >= _LARGE:
            return prior.fast()
    return prior


def choose_numerics(config: TrainConfig, device: torch.device, model: Model, recipes: Mapping[str, Recipe]) -> Numerics:
    """Resolves every "auto" of the settings for one device and one model."""
    once = all(recipe.compile for recipe in recipes.values())  # no double backward anywhere
    weights = sum(p.numel() for ps in model.players.values() for p in ps)
    volumes = len(model.event_shape) == 4 and model.event_shape.numel() >= _VOLUME
    large = device.type == "cuda" or weights >= _LARGE or volumes
    bf16 = config.precision == "bf16" or (config.precision == "auto" and once and large and native_bf16(device))
    if config.compile == "auto":
        compile_it = once and _long(config, device, bf16)
    else:
        compile_it = config.compile == "on"
    flat = len(model.event_shape) == 3
    auto_layout = device.type == "cuda" or (bf16 and compile_it)  # eager GroupNorm on a CPU: 20 times slower so
    last = flat and (config.channels_last == "on" or (config.channels_last == "auto" and auto_layout))
    return Numerics(bf16, compile_it, last)


def arrange(model: Model, numerics: Numerics, recipes: Mapping[str, Recipe]) -> None:
    """Lays the model out and compiles the parts of it that have no double backward, in place; names stay."""
    if numerics.channels_last:
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    if numerics.compile:
        twice = {id(p) for name, ps in model.players.items() if not recipes[name].compile for p in ps}
        for part in _parts(model):
            mine = list(part.parameters())
            if mine and not any(id(p) in twice for p in mine):
                part.compile()


def uncompiled() -> AbstractContextManager[None]:
    """Inside, compiled parts run eagerly: previews have other shapes, and are not worth a minute each."""
    return torch.compiler.set_stance("force_eager")  # type: ignore[return-value]


def decompile(model: nn.Module) -> None:
    """Undoes `arrange`'s compilation, so that the trained model is a plain module again."""
    for part in _parts(model):
        part._compiled_call_impl = None


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    """The networks of a model, and of the models inside it: what has nothing but tensors in and out."""
    for part in model.children():
        if isinstance(part, Model):
            yield from _parts(part)
        else:
            yield part


def _long(config: TrainConfig, device: torch.device, bf16: bool) -> bool:
    if device.type == "cuda":
        return (config.minutes or 0) >= _LONG_MINUTES_GPU or (config.images or 0) >= _LONG_IMAGES
    return device.type == "cpu" and bf16 and (config.minutes or 0) >= _LONG_MINUTES_CPU
