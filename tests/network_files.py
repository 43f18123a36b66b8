"""Network files in the official layout, written with Python's own pickle: what the importer has to read.

`torch_utils` and `dnnlib` are not here, so modules of these names stand in for them while a file is written; the file
then asks for the official names. Tensors and NumPy scalars are pickled by torch and NumPy themselves.
"""

import math
import pickle
import sys
import types
from contextlib import contextmanager

import numpy as np
import torch

from oneprior.nets.style_generator import StyleGenerator
from oneprior.nets.stylegan import resample_filter


class Persistent:
    """A module of a network as `torch_utils.persistence` pickles it."""

    def __init__(self, kind, source="", **state):
        self.kind, self.source, self.state = kind, source, state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self.kind, "state": self.state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


class EasyDict(dict):
    """That of dnnlib."""


def _reconstruct_persistent_obj(meta):
    raise AssertionError("this would execute the file")


@contextmanager
def official_names():
    """`torch_utils.persistence` and `dnnlib.util` can be pickled by name inside."""
    before = dict(sys.modules)
    rooms = {"torch_utils.persistence": _reconstruct_persistent_obj, "dnnlib.util": EasyDict}
    for name, thing in rooms.items():
        room = types.ModuleType(name)
        setattr(room, thing.__name__, thing)
        sys.modules[name], sys.modules[name.partition(".")[0]] = room, types.ModuleType(name.partition(".")[0])
        thing.__module__ = name
    try:
        yield
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def module(kind, parameters=None, buffers=None, modules=None, **attributes):
    """A module with what every `nn.Module` keeps beside its own attributes."""
    parameters = {k: torch.nn.Parameter(v.clone()) for k, v in (parameters or {}).items()}
    rest = {"_init_args": (), "_init_kwargs": EasyDict(), "_non_persistent_buffers_set": set(), "training": False}
    parts = {"_parameters": parameters, "_buffers": dict(buffers or {}), "_modules": dict(modules or {})}
    return Persistent(kind, **parts, **rest, **attributes)


def official(generator: StyleGenerator, *, clamp=None, rate=0.01, source="", block=None, layer=None, taps=None):
    """A generator of ours as the official program keeps it.

    Args:
        generator: without conditions, or with one class.
        clamp: conv_clamp.
        rate: lr_multiplier of the mapping network, by which its stored weights are larger or smaller.
        source: the source text of the root's class.
        block: further attributes of each SynthesisBlock.
        layer: further attributes of each SynthesisLayer.
        taps: the resampling filter.
    """
    state = {k: v.detach() for k, v in generator.state_dict().items()}
    taps = resample_filter() if taps is None else taps

    def linear(name, gain=1.0):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        ours = 0.01 if name.startswith("mapping") else 1.0
        return module(
            "FullyConnectedLayer",
            {"weight": weight * (ours / gain), "bias": bias * (ours / gain)},
            activation="lrelu" if name.startswith("mapping") else "linear",
            weight_gain=np.float64(gain) / np.sqrt(weight.shape[1]),
            bias_gain=gain,
        )

    blocks = {}
    for name in generator.synthesis.names:
        own = f"synthesis.{name}"
        convs = {}
        for conv in ("conv0", "conv1"):
            if f"{own}.{conv}.weight" in state:
                convs[conv] = module(
                    "SynthesisLayer",
                    {key: state[f"{own}.{conv}.{key}"] for key in ("weight", "noise_strength", "bias")},
                    {"resample_filter": taps, "noise_const": state[f"{own}.{conv}.noise_const"]},
                    {"affine": linear(f"{own}.{conv}.affine")},
                    conv_clamp=clamp,
                    **{"activation": "lrelu", "use_noise": True, "padding": 1, "act_gain": np.sqrt(2), **(layer or {})},
                )
        picture = module(
            "ToRGBLayer",
            {key: state[f"{own}.torgb.{key}"] for key in ("weight", "bias")},
            modules={"affine": linear(f"{own}.torgb.affine")},
            conv_clamp=clamp,
        )
        blocks[name] = module(
            "SynthesisBlock",
            {"const": state[f"{own}.const"]} if f"{own}.const" in state else {},
            {"resample_filter": taps},
            {**convs, "torgb": picture},
            **{"architecture": "skip", "use_fp16": True, **(block or {})},
        )
    inner = {f"fc{i}": linear(f"mapping.fc{i}", rate) for i in range(generator.mapping.layers)}
    if generator.mapping.embed.width:
        rows = state["mapping.embed.embed.label.weight"]
        bias = torch.linspace(-1, 1, rows.shape[1])
        inner["embed"] = module(
            "FullyConnectedLayer",
            {"weight": (rows - bias).T * math.sqrt(len(rows)), "bias": bias},
            weight_gain=1 / np.sqrt(len(rows)),
            bias_gain=1,
        )
    mapping = module("MappingNetwork", {}, {"w_avg": state["mapping.w_avg"]}, inner, w_avg_beta=0.995)
    whole = module("Generator", modules={"synthesis": module("SynthesisNetwork", modules=blocks), "mapping": mapping})
    whole.source = source
    return whole


def write(path, held, protocol=4):
    """Pickle `held` under the official names."""
    with official_names():
        path.write_bytes(pickle.dumps(held, protocol=protocol))
    return path


def snapshot(network, **more):
    """What a training writes."""
    discriminator = module("Discriminator", {"weight": torch.zeros(2, 2)})
    return {
        "G": network,
        "D": discriminator,
        "G_ema": network,
        "augment_pipe": None,
        "training_set_kwargs": EasyDict(path="/data/films.zip", use_labels=False),
        **more,
    }
