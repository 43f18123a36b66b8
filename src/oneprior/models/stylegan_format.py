"""Generators of the official StyleGAN2-ADA (PyTorch) and StyleGAN3 programs as models of ours.

Their network files are read by `oneprior.data.network_pickle`, which executes nothing. The generator's settings follow
from the shapes of its weights, and what the shapes do not show (clamps, filters, architecture, gains) from the
attributes that the file keeps of each module; what ours does not compute is refused by name.

| official | here |
|---|---|
| z_dim, w_dim, num_layers | `latent`, `style`, `mapping_layers` |
| channel_base, channel_max | `width` (channels at the finest level), `max_width` |
| conv_clamp | `clamp` |
| c_dim > 0 | a condition "label" of as many classes |
| mapping.embed: W, b | the row of class k is W[:, k] / sqrt(classes) + b |
| lr_multiplier, gains of linear layers | weights and biases rescaled to our gains |
| levels in half precision | single precision, as the official programs do on a processor |

The official networks know no absent label; here it is the mean of the classes' rows, an input that they never saw.
Networks of class `training.networks_stylegan2.Generator` are read from files of either program; StyleGAN3's own
alias-free networks are refused. The critic is a fresh one: official critics differ from ours in their last layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneprior.core import ConditionSpec, InputError
from oneprior.data.network_pickle import PickledModule, read_network_pickle
from oneprior.models.configs.gan import GANConfig
from oneprior.models.gan import GAN
from oneprior.nets.style_generator import StyleGenerator
from oneprior.nets.stylegan import resample_filter, style_widths

_LABEL = "label"
_MAPPING_RATE = 0.01
_MOST_MODULES = 1_000
_LINEAR = re.compile(r"(mapping\.(fc\d+|embed)|.*\.affine)")


def import_stylegan(path: str | Path, *, network: str = "G_ema") -> GAN:
    """Read a generator from a network file (.pkl) of the official programs, without executing anything in it.

    Args:
        path: the file.
        network: which one: "G_ema", the averaged weights that are meant to be used, or "G".

    Returns:
        A `GAN` with network "stylegan2", the generator's weights and a fresh critic; its pictures are in [-1, 1].

    Raises:
        BadFileError: the file is damaged, or asks for what no network needs (`RefusedPickleError`).
        InputError: names what the file holds instead, or what ours does not compute.
    """
    modules = _modules(_chosen(path, network), str(path))
    _check_kind(modules, str(path))
    config, shape, conditions = _settings(modules, str(path))
    tensors = {
        f"{name}.{key}".lstrip("."): value
        for name, module in modules.items()
        for key, value in module.tensors().items()
        if key != "resample_filter"
    }
    with torch.device("meta"):
        blank = StyleGenerator(
            shape,
            conditions,
            latent=config.latent,
            style=config.style,
            width=config.width,
            max_width=config.max_width,
            mapping_layers=config.mapping_layers,
        )
    needed = {name: tuple(value.shape) for name, value in blank.state_dict().items() if ".embed." not in name}
    if conditions:
        needed |= {"mapping.embed.weight": (config.style, conditions[0].classes), "mapping.embed.bias": (config.style,)}
    _check_tensors(tensors, needed, str(path))  # before anything is converted: what follows is as large as our model
    model = GAN(config, shape, conditions)
    model.generator.load_state_dict(_weights(tensors, modules, str(path)))
    return model.eval()


def _chosen(path: str | Path, network: str) -> PickledModule:
    """The network that was asked for."""
    held = read_network_pickle(path)
    if isinstance(held, PickledModule):
        return held
    if type(held) is not dict:
        raise InputError(f"{path} holds a {type(held).__name__}, and no networks: give a network file of StyleGAN")
    names = [str(name)[:20] for name, value in held.items() if isinstance(value, PickledModule)]
    chosen = held.get(network)
    if not isinstance(chosen, PickledModule):
        raise InputError(f"{path} holds no network {network}; it holds {', '.join(names[:8]) or 'none'}")
    return chosen


def _modules(root: PickledModule, where: str) -> dict[str, PickledModule]:
    """All modules by their dotted names, "" for the root."""
    found, left = {}, [("", root)]
    while left:
        name, module = left.pop()
        found[name] = module
        left += [(f"{name}.{part}".lstrip("."), inner) for part, inner in module.modules().items()]
        if len(found) + len(left) > _MOST_MODULES or name.count(".") > 8:
            raise InputError(f"{where}: its modules hold one another without end; this is no generator of StyleGAN2")
    return found


def _check_kind(modules: Mapping[str, PickledModule], where: str) -> None:
    """Raise unless this is a StyleGAN2 generator of the kind that ours computes."""
    if modules[""].kind != "Generator" or not {"mapping", "synthesis"} <= set(modules):
        raise InputError(f"{where} holds a {_said(modules[''].kind)}: a Generator with mapping and synthesis is needed")
    if "synthesis.input" in modules or any(name.startswith("synthesis.L0_") for name in modules):
        raise InputError(
            f"{where} holds an alias-free StyleGAN3 generator (training.networks_stylegan3), which is not known here: "
            "only StyleGAN2 generators are, from StyleGAN2-ADA or trained with --cfg=stylegan2 in the StyleGAN3 program"
        )
    for name, module in modules.items():
        for key, allowed in _ALLOWED.get(module.kind, {}).items():
            value = module.state.get(key, allowed[0])
            if type(value) not in (str, int, float, bool) or value not in allowed:
                raise InputError(f"{where}: {name} has {key} {_said(value)}; known here is {_said(allowed[0])}")
        taps = module.tensors().get("resample_filter")
        if taps is not None and (
            taps.shape != (4, 4) or not torch.allclose(taps.float(), resample_filter(), atol=1e-6)
        ):
            raise InputError(f"{where}: {name} resamples by another filter than [1, 3, 3, 1], which is not known here")


_ALLOWED: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "SynthesisNetwork": {"architecture": ("skip",)},
    "SynthesisBlock": {"architecture": ("skip",)},
    "SynthesisLayer": {"activation": ("lrelu",), "use_noise": (True,), "padding": (1,)},
}


def _settings(
    modules: Mapping[str, PickledModule], where: str
) -> tuple[GANConfig, torch.Size, tuple[ConditionSpec, ...]]:
    """Our settings, the shape of the pictures and the labels."""
    levels = sorted(int(m[1]) for name in modules if (m := re.fullmatch(r"synthesis\.b(\d{1,5})", name)))
    if not levels or levels != [4 * 2**k for k in range(len(levels))]:
        raise InputError(f"{where}: its synthesis has no levels b4, b8, b16, ...; this is no generator of StyleGAN2")
    names = [f"synthesis.b{level}" for level in levels]
    widths = [_tensor(modules, f"{name}.conv1", "weight", 4, where).shape[0] for name in names]
    if widths != style_widths(widths[-1], max(widths), len(widths)):
        raise InputError(f"{where}: its levels have {widths} channels, and known here are halves down to the finest")
    clamps = {
        _clamp(module, where)
        for name, module in modules.items()
        if name.startswith("synthesis.") and module.kind in ("SynthesisLayer", "ToRGBLayer")
    }
    if len(clamps) > 1:
        raise InputError(f"{where}: its layers are clamped differently, which is not known here")
    depth = sum(bool(re.fullmatch(r"mapping\.fc\d+", name)) for name in modules)
    if not depth:
        raise InputError(f"{where}: its mapping network has no layers")
    style = _tensor(modules, f"mapping.fc{depth - 1}", "weight", 2, where).shape[0]
    latent, classes = _tensor(modules, "mapping.fc0", "weight", 2, where).shape[1], 0
    if "mapping.embed" in modules:
        embedded, classes = _tensor(modules, "mapping.embed", "weight", 2, where).shape
        latent -= embedded
    if latent < 1:
        raise InputError(f"{where}: its mapping network takes no z, which is not known here")
    channels = _tensor(modules, f"{names[-1]}.torgb", "weight", 4, where).shape[0]
    config = replace(
        GANConfig.stylegan2(),
        latent=latent,
        style=style,
        width=widths[-1],
        max_width=max(widths),
        mapping_layers=depth,
        clamp=clamps.pop() if clamps else 0.0,
    )
    labels = (ConditionSpec(_LABEL, "class", classes=classes),) if classes else ()
    return config, torch.Size((channels, levels[-1], levels[-1])), labels


def _clamp(module: PickledModule, where: str) -> float:
    """A layer's conv_clamp, 0.0 for none."""
    value = module.state.get("conv_clamp")
    if value is None:
        return 0.0
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise InputError(f"{where}: a layer has conv_clamp {_said(value)}; a positive number is needed")
    return float(value)


def _check_tensors(given: Mapping[str, Tensor], needed: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise unless these are the tensors of a StyleGAN2 generator, finite and of the shapes that ours has."""
    missing, strange = sorted(set(needed) - set(given)), sorted(set(given) - set(needed))
    if missing or strange:
        said = f"lacks {missing[0]} (of {len(missing)})" if missing else f"has {_said(strange[0])} (of {len(strange)})"
        raise InputError(f"{where}: the generator {said}, unlike StyleGAN2's with skip connections: not known here")
    for name, shape in needed.items():
        if tuple(given[name].shape) != shape:
            raise InputError(
                f"{where}: {name} has shape {tuple(given[name].shape)}, and {shape} follows from the others: this "
                "generator is not known here"
            )
        if not bool(torch.isfinite(given[name]).all()):
            raise InputError(f"{where}: {name} holds nan or infinity: its training had diverged")


def _weights(tensors: Mapping[str, Tensor], modules: Mapping[str, PickledModule], where: str) -> dict[str, Tensor]:
    """The generator's parameters and buffers under our names, in single precision, linear layers at our gains."""
    weights = {name: value.float() for name, value in tensors.items()}
    for name, module in modules.items():
        if not _LINEAR.fullmatch(name):
            continue
        root = math.sqrt(weights[f"{name}.weight"].shape[1])
        rate = _MAPPING_RATE if name.startswith("mapping.fc") else 1.0
        weights[f"{name}.weight"] = weights[f"{name}.weight"] * (
            _gain(module, "weight_gain", rate / root, where) * root / rate
        )
        weights[f"{name}.bias"] = weights[f"{name}.bias"] * (_gain(module, "bias_gain", rate, where) / rate)
    if "mapping.embed.weight" in weights:
        columns, bias = weights.pop("mapping.embed.weight"), weights.pop("mapping.embed.bias")
        rows = columns.T / math.sqrt(columns.shape[1]) + bias
        weights[f"mapping.embed.embed.{_LABEL}.weight"] = rows
        weights[f"mapping.embed.absent.{_LABEL}"] = rows.mean(0)
    return weights


def _tensor(modules: Mapping[str, PickledModule], name: str, key: str, axes: int, where: str) -> Tensor:
    """A weight that settings follow from."""
    value = modules[name].tensors().get(key) if name in modules else None
    if value is None or value.dim() != axes or not value.numel():
        raise InputError(f"{where}: the generator has no {name}.{key} of {axes} axes; this is none of StyleGAN2")
    return value


def _gain(module: PickledModule, key: str, usual: float, where: str) -> float:
    """What a linear layer multiplies its weight or bias with."""
    value = module.state.get(key, usual)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise InputError(f"{where}: a linear layer has {key} {_said(value)}, and a number is needed")
    return float(value)


def _said(value: Any) -> str:
    """A value of the file in a message, short; what is not plain is named by its type."""
    return ascii(value)[:40] if type(value) in (str, int, float, bool) else type(value).__name__
