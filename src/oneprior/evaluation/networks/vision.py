"""The vision transformers of DINOv2 and CLIP, built from the shapes in the user's file.

A picture is cut into patches, each becomes a token; a class token is put before them and learned positions are added
(Dosovitskiy et al. 2021). Then, block by block,

    x <- x + s_1 attention(norm(x)),    x <- x + s_2 mlp(norm(x)),

with heads of 64 channels. The features are the class token after the last normalisation: of DINOv2 (Oquab et al. 2023)
as it is; of CLIP (Radford et al. 2021) through the projection into the space it shares with text. DINOv2 scales its
branches (s), its largest model gates its mlp (SwiGLU, Shazeer 2020); CLIP normalises before the first block too, has no
scales, and its activation is x sigmoid(1.702 x).

One description serves both. Weights are taken from either published layout: DINOv2's own (`blocks.0.attn.qkv.weight`)
or that of Hugging Face (`encoder.layer.0.attention.attention.query.weight`), and CLIP's of Hugging Face. Nothing is
downloaded, and no other package is needed: `transformers` is the reference in the tests only.

DINOv2's positions were learned on a 37 x 37 grid (518 pixels) and are resized to the 16 x 16 of 224 pixels. Its own
code asks for (16 + 0.1) / 37 as the scale, "transformers" for 16 / 37; the features differ a little, and the published
distances were measured with the former, so that is the default.

Pictures are squeezed to a square, as dgm-eval does for DINOv2. (CLIP's own preparation cuts the middle out of pictures
that are not square; cut them first where that matters.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oneprior.core import InputError
from oneprior.evaluation.networks.pictures import bicubic, levels, normalised
from oneprior.evaluation.networks.weights import fill, some

HEAD = 64
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_DINOV2_SIZE = 224

Positions = Literal["official", "transformers"]
Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class Plan:
    """A vision transformer.

    Args:
        what: its name in messages.
        width: channels of a token.
        depth: blocks.
        hidden: channels inside the mlp.
        patch: side of a patch, in pixels.
        grid: patches along a side when the positions were learned.
        size: side of the pictures it is given, in pixels.
        gated: whether the mlp is gated.
        scaled: whether the branches are scaled.
        clip: CLIP's normalisation, projection and colours, or DINOv2's.
        projection: dimension of CLIP's projection.
        activation: of an mlp that is not gated.
        positions: how DINOv2's positions are resized.
    """

    what: str
    width: int
    depth: int
    hidden: int
    patch: int
    grid: int
    size: int
    gated: bool = False
    scaled: bool = False
    clip: bool = False
    projection: int = 0
    activation: Activation = "gelu"
    positions: Positions = "official"

    @property
    def epsilon(self) -> float:
        """Of the normalisations."""
        return 1e-5 if self.clip else 1e-6


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        query, key, value = self.qkv(x).reshape(n, tokens, 3, width // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(n, tokens, width))


class _Mlp(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.quick = plan.activation == "quick_gelu"
        self.fc1, self.fc2 = nn.Linear(plan.width, plan.hidden), nn.Linear(plan.hidden, plan.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x))


class _Gated(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(plan.width, 2 * plan.hidden), nn.Linear(plan.hidden, plan.width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(plan.width, eps=plan.epsilon) for _ in range(2))
        self.attn, self.mlp = _Attention(plan.width), _Gated(plan) if plan.gated else _Mlp(plan)
        self.ls1, self.ls2 = (_Scale(plan.width) if plan.scaled else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Patches(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, plan.width, plan.patch, stride=plan.patch, bias=not plan.clip)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).mT


class VisionTransformer(nn.Module):
    """Features of pictures in [-1, 1], (n, 1 or 3, height, width) -> (n, dimension)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan, self.dimension = plan, plan.projection or plan.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, plan.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + plan.grid**2, plan.width))
        self.patch_embed = _Patches(plan)
        self.norm_pre = nn.LayerNorm(plan.width, eps=plan.epsilon) if plan.clip else nn.Identity()
        self.blocks = nn.ModuleList(_Block(plan) for _ in range(plan.depth))
        self.norm = nn.LayerNorm(plan.width, eps=plan.epsilon)
        self.head = nn.Linear(plan.width, plan.projection, bias=False) if plan.projection else nn.Identity()
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """The features of pictures, which are rounded to levels, resized and normalised first."""
        return self.encode(self.colours(x))

    def colours(self, x: Tensor) -> Tensor:
        """The pictures as the network takes them, (n, 3, size, size)."""
        pictures = bicubic(levels(x, self.plan.what), self.plan.size)
        return normalised(pictures, *(_CLIP if self.plan.clip else _IMAGENET))

    def encode(self, colours: Tensor) -> Tensor:
        """The class token after the last normalisation, projected if there is a projection, (n, dimension)."""
        tokens = self.patch_embed(colours.to(self.cls_token.dtype))
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1) + self._positions()
        tokens = self.norm_pre(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))

    def _positions(self) -> Tensor:
        old, new = self.plan.grid, self.plan.size // self.plan.patch
        if old == new:
            return self.pos_embed
        square = self.pos_embed[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
        if self.plan.positions == "official":
            square = F.interpolate(square, scale_factor=(new + 0.1) / old, mode="bicubic")
        else:
            square = F.interpolate(square, size=(new, new), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], square.flatten(2).mT], 1)


def dinov2(state: Mapping[str, Tensor], positions: Positions = "official") -> VisionTransformer:
    """DINOv2 with the weights of a file, in its own layout or that of Hugging Face.

    Args:
        state: names and tensors.
        positions: "official" for the code of its authors, "transformers" for that package.

    Raises:
        InputError: if they are not the weights of a DINOv2 model (one with registers is not read).
    """
    if positions not in ("official", "transformers"):
        raise InputError(f"positions={positions}: DINOv2's positions are resized as official or transformers")
    own = _fused(_renamed(state, _DINOV2_NAMES))
    own.pop("mask_token", None)  # used in training only
    width, patch, grid, depth = _shapes(own, "DINOv2")
    gated = "blocks.0.mlp.w12.weight" in own
    inside = own.get("blocks.0.mlp.w12.weight" if gated else "blocks.0.mlp.fc1.weight")
    hidden = 4 * width if inside is None else len(inside) // (2 if gated else 1)
    size = _DINOV2_SIZE // patch * patch
    plan = Plan("DINOv2", width, depth, hidden, patch, grid, size, gated=gated, scaled=True, positions=positions)
    network = VisionTransformer(plan)
    fill(network, own, "DINOv2")
    return network


def clip(state: Mapping[str, Tensor], activation: Activation = "quick_gelu") -> VisionTransformer:
    """CLIP's vision tower with its projection, with the weights of a file in the layout of Hugging Face.

    Args:
        state: names and tensors; those of the text tower are left out.
        activation: "quick_gelu" as in OpenAI's models, "gelu" as in most others; no shape tells which.

    Raises:
        InputError: if they are not the weights of a CLIP model.
    """
    if activation not in ("quick_gelu", "gelu"):
        raise InputError(f"activation={activation}: CLIP's is quick_gelu (OpenAI's models) or gelu (most others)")
    other = ("text_model.", "text_projection", "logit_scale", "vision_model.embeddings.position_ids")
    own = _fused(_renamed({k: v for k, v in state.items() if not k.startswith(other)}, _CLIP_NAMES))
    for name in ("cls_token", "pos_embed"):
        if name in own:
            own[name] = own[name].reshape(1, -1, own[name].shape[-1])
    width, patch, grid, depth = _shapes(own, "CLIP")
    if "head.weight" not in own:
        raise InputError("these are not the weights of CLIP with its projection: visual_projection.weight is missing")
    inside = own.get("blocks.0.mlp.fc1.weight")
    hidden = 4 * width if inside is None else len(inside)
    projection = len(own["head.weight"])
    plan = Plan(
        "CLIP", width, depth, hidden, patch, grid, grid * patch, clip=True, projection=projection, activation=activation
    )
    network = VisionTransformer(plan)
    fill(network, own, "CLIP")
    return network


_DINOV2_NAMES = (
    (r"^dinov2\.", ""),
    (r"^embeddings\.(cls_token|mask_token)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"^layernorm\.", "norm."),
)
_CLIP_NAMES = (
    (r"^vision_model\.", ""),
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),  # spelled so in the published files
    (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.q_proj\.", ".attn.query."),
    (r"\.self_attn\.k_proj\.", ".attn.key."),
    (r"\.self_attn\.v_proj\.", ".attn.value."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"^post_layernorm\.", "norm."),
    (r"^visual_projection\.", "head."),
)


def _renamed(state: Mapping[str, Tensor], names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        found[name] = value
    return found


def _fused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value as one matrix, where all three are there."""
    for name in [name for name in state if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in state for part in parts):
            state[name.replace(".query.", ".qkv.")] = torch.cat([state.pop(part) for part in parts])
    return state


def _shapes(state: Mapping[str, Tensor], what: str) -> tuple[int, int, int, int]:
    """Width, patch, grid and depth."""
    needed = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4}
    missing = [name for name, axes in needed.items() if name not in state or state[name].dim() != axes]
    if missing:
        raise InputError(
            f"these are not the weights of {what}: nothing in them is its {' or its '.join(missing)} "
            f"(they have {some(list(state))})"
        )
    if any(name.endswith("register_tokens") for name in state):
        raise InputError(f"these are weights of {what} with registers, which are not read; take those without")
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    grid = math.isqrt(state["pos_embed"].shape[1] - 1)
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if width % HEAD or patch > _DINOV2_SIZE:
        raise InputError(f"these are not the weights of {what}: {width} channels are no multiple of {HEAD}")
    return width, patch, grid, depth
