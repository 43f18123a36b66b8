"""The published networks against their reference implementations on the same random weights.

Inception's expected features (inception_reference.json) come from torch-fidelity 0.4.0, on weights and pictures that
are made again here; DINOv2 and CLIP are held against `transformers`, where it is installed, DINOv2 against a plain
forward too.
"""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from oneprior.core import InputError, ShapeError
from oneprior.evaluation.networks import PUBLISHED, Inception, clip, dinov2, fill, identify, read_state
from oneprior.evaluation.networks.pictures import bicubic, bilinear, levels

REFERENCE = json.loads((Path(__file__).parent / "inception_reference.json").read_text())


def inception_weights(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name in sorted(shapes):
        u, shape = torch.rand(shapes[name], generator=generator), shapes[name]
        if name.endswith("bn.running_var"):
            weights[name] = 0.5 + u
        elif name.endswith("bn.weight"):
            weights[name] = 0.8 + 0.4 * u
        elif name.endswith(("bn.bias", "running_mean", "fc.bias")):
            weights[name] = 0.4 * u - 0.2
        else:
            weights[name] = (u - 0.5) * (24 / shape[1:].numel()) ** 0.5
    return weights


def two_pictures():
    u = torch.rand((2, 3, 40, 53), generator=torch.Generator().manual_seed(1)) * 256
    u = u.floor().clamp(max=255).to(torch.uint8)
    u[1, :, :20] //= 4
    return u.float() / 127.5 - 1


@pytest.fixture(scope="module")
def weights():
    shapes = {k: v.shape for k, v in Inception().state_dict().items() if not k.endswith("num_batches_tracked")}
    return inception_weights(shapes)


@pytest.fixture(scope="module")
def inception(weights):
    network = Inception()
    fill(network, weights, "Inception")
    return network


def apart(found, expected):
    expected = torch.as_tensor(expected)
    return float((found - expected).abs().max() / expected.abs().max())


def test_inception_is_torch_fidelity(inception):
    x = two_pictures()
    stages = inception.stages(x)
    assert [tuple(stage.shape[1:]) for stage in stages] == [(64, 73, 73), (192, 35, 35), (768, 17, 17), (2048, 8, 8)]
    assert apart(stages[-1].mean((2, 3))[:, :64], REFERENCE["tensorflow"]) < 1e-5
    assert apart(inception.logits(x)[:, :32], REFERENCE["logits"]) < 1e-5
    assert inception(x).shape == (2, 2048)


def test_inception_with_the_resizing_of_pytorch_fid(weights):
    network = Inception("torch")
    fill(network, weights, "Inception")
    found = network(two_pictures())[:, :64]
    assert apart(found, REFERENCE["torch"]) < 1e-5
    assert apart(found, REFERENCE["tensorflow"]) > 1e-3  # the two ways do differ
    with pytest.raises(InputError, match="tensorflow or torch"):
        Inception("bicubic")  # pyright: ignore[reportArgumentType]


def test_every_tensor_of_inception_matters(inception, weights):
    """So that the agreement above is not blind to a branch that its 64 features do not see."""
    x = two_pictures()[:1]
    whole = inception(x)
    for name in (
        "Mixed_5b.branch_pool.conv.weight",
        "Mixed_7c.branch3x3dbl_3b.bn.running_var",
        "Mixed_6a.branch3x3.conv.weight",
    ):
        changed = dict(weights)
        changed[name] = changed[name] * 1.5
        other = Inception()
        fill(other, changed, "Inception")
        assert apart(other(x), whole) > 1e-4, name


def test_grey_is_repeated_and_levels_are_whole(inception):
    grey = two_pictures()[:1, :1]
    assert torch.equal(inception(grey), inception(grey.expand(-1, 3, -1, -1)))
    every = torch.arange(256.0).reshape(1, 1, 16, 16)
    assert torch.equal(levels(every / 127.5 - 1, "x")[:, :1], every)
    assert levels(torch.tensor([-3.0, -1, 0, 1, 3]).reshape(1, 1, 1, 5), "x")[0, 0, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("shape", [(2, 1, 8, 8, 8), (2, 2, 8, 8), (2, 1, 8)])
def test_what_is_no_picture_is_refused(inception, shape):
    with pytest.raises(ShapeError, match="1 or 3, height, width"):
        inception(torch.zeros(shape))


def test_tensorflow_resizing_has_no_half_pixel():
    """Output i looks at i h / H: a ramp keeps its slope and its origin, and the end repeats."""
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    found = bilinear(ramp, 8, "tensorflow")[0, 0]
    assert torch.allclose(found[3], torch.tensor([0, 0.5, 1, 1.5, 2, 2.5, 3, 3]))
    assert torch.allclose(bilinear(ramp.mT, 8, "tensorflow")[0, 0], found.mT)


@pytest.mark.parametrize(("old", "new"), [((28, 28), 224), ((64, 48), 224), ((260, 300), 224), ((301, 224), 56)])
def test_bicubic_is_pillow(old, new):
    u = np.random.default_rng(0).integers(0, 256, (*old, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(u).resize((new, new), Image.Resampling.BICUBIC)).astype(float)
    found = bicubic(torch.from_numpy(u).permute(2, 0, 1)[None].float(), new)[0].permute(1, 2, 0).numpy()
    wrong = np.abs(found - expected)
    assert wrong.max() <= 1  # a level, where Pillow's fixed point and float32 round a half apart
    assert (wrong > 0).mean() < 1e-3


def _dinov2_weights(width=128, depth=3, patch=14, grid=5, gated=False, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    state = {
        "cls_token": draw(1, 1, width),
        "pos_embed": draw(1, grid**2 + 1, width),
        "mask_token": draw(1, width),
        "patch_embed.proj.weight": draw(width, 3, patch, patch, scale=0.05),
        "patch_embed.proj.bias": draw(width),
    }
    hidden = 176 if gated else 4 * width
    for i in range(depth):
        for norm in ("norm1", "norm2"):
            state[f"blocks.{i}.{norm}.weight"] = 1 + draw(width, scale=0.2)
            state[f"blocks.{i}.{norm}.bias"] = draw(width, scale=0.2)
        first, last = ("w12", "w3") if gated else ("fc1", "fc2")
        sizes = {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            f"mlp.{first}": ((2 if gated else 1) * hidden, width),
            f"mlp.{last}": (width, hidden),
        }
        for name, (rows, columns) in sizes.items():
            state[f"blocks.{i}.{name}.weight"] = draw(rows, columns, scale=2 / columns**0.5)
            state[f"blocks.{i}.{name}.bias"] = draw(rows, scale=0.2)
        state[f"blocks.{i}.ls1.gamma"], state[f"blocks.{i}.ls2.gamma"] = draw(width), draw(width)
    state["norm.weight"], state["norm.bias"] = 1 + draw(width, scale=0.2), draw(width, scale=0.2)
    return state


def _plain_dinov2(state, colours, depth=3, head=64):
    """The forward pass written out in float64, attention as sums over tokens, positions by the official rule."""
    s = {name: value.double() for name, value in state.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * s[f"{name}.weight"] + s[f"{name}.bias"]
        )

    def linear(x, name):
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    weight = s["patch_embed.proj.weight"]
    width, patch = weight.shape[0], weight.shape[-1]
    n, _, side, _ = colours.shape
    new, old = side // patch, math.isqrt(s["pos_embed"].shape[1] - 1)
    cut = colours.double().reshape(n, 3, new, patch, new, patch).permute(0, 2, 4, 1, 3, 5).reshape(n, new * new, -1)
    tokens = cut @ weight.reshape(width, -1).T + s["patch_embed.proj.bias"]
    square = s["pos_embed"][0, 1:].reshape(old, old, width).permute(2, 0, 1)[None]
    square = F.interpolate(square, scale_factor=((new + 0.1) / old,) * 2, mode="bicubic", align_corners=False)
    positions = torch.cat([s["pos_embed"][0, :1], square[0].flatten(1).T])
    x = torch.cat([s["cls_token"].expand(n, 1, width), tokens], 1) + positions
    for i in range(depth):
        y = norm(x, f"blocks.{i}.norm1")
        parts = linear(y, f"blocks.{i}.attn.qkv").split(width, -1)
        heads = []
        for h in range(width // head):
            query, key, value = (part[..., h * head : (h + 1) * head] for part in parts)
            heads.append(torch.softmax(torch.einsum("nik,njk->nij", query, key) / head**0.5, -1) @ value)
        x = x + s[f"blocks.{i}.ls1.gamma"] * linear(torch.cat(heads, -1), f"blocks.{i}.attn.proj")
        y = norm(x, f"blocks.{i}.norm2")
        if f"blocks.{i}.mlp.w12.weight" in s:
            gate, value = linear(y, f"blocks.{i}.mlp.w12").chunk(2, -1)
            y = linear(gate * torch.sigmoid(gate) * value, f"blocks.{i}.mlp.w3")
        else:
            y = linear(y, f"blocks.{i}.mlp.fc1")
            y = linear(0.5 * y * (1 + torch.erf(y / 2**0.5)), f"blocks.{i}.mlp.fc2")
        x = x + s[f"blocks.{i}.ls2.gamma"] * y
    return norm(x, "norm")[:, 0]


def _colours(x, size, mean, deviation):
    """Through Pillow, one picture at a time."""
    u = ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    resized = [np.asarray(Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC)) for p in u]
    shares = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).double() / 255
    return (shares - torch.tensor(mean).double()[:, None, None]) / torch.tensor(deviation).double()[:, None, None]


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
OPENAI = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])


@pytest.mark.parametrize("gated", [False, True])
def test_dinov2_in_its_own_layout_is_the_plain_forward(gated):
    state, x = _dinov2_weights(gated=gated), two_pictures()
    network = dinov2(state)
    colours = network.colours(x)
    expected = _plain_dinov2(state, colours)
    assert network.dimension == 128
    assert apart(network(x).double(), expected) < 1e-5
    assert apart(network.double().encode(colours), expected) < 1e-6  # the pictures themselves are float32


def test_colours_are_those_of_pillow():
    network, x = dinov2(_dinov2_weights(depth=1)), two_pictures()
    wrong = (network.colours(x) - _colours(x, 224, *IMAGENET)).abs()
    assert float(wrong.max()) < 1.1 / 255 / 0.224  # a level in few places, and nothing elsewhere
    assert float((wrong > 1e-5).double().mean()) < 1e-3


@pytest.mark.parametrize("gated", [False, True])
def test_dinov2_is_transformers(gated, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=518, use_swiglu_ffn=gated
    )
    torch.manual_seed(0)
    reference = transformers.Dinov2Model(config).eval()
    with torch.no_grad():
        for value in reference.parameters():  # the initial ones leave scales at one and biases at zero
            value.add_(0.1 * torch.randn_like(value))
    reference.save_pretrained(tmp_path)
    state = read_state(tmp_path / "model.safetensors")
    assert any(name.endswith("attention.attention.query.weight") for name in state)  # the layout of the hub
    x = two_pictures()
    with torch.no_grad():
        expected = reference(dinov2(state).colours(x)).last_hidden_state[:, 0]
    assert apart(dinov2(state, "transformers")(x), expected) < 1e-5
    assert apart(dinov2(state)(x), expected) > 1e-4  # the official positions differ


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_clip_is_transformers(activation, tmp_path):
    transformers = pytest.importorskip("transformers")
    vision = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 96,
        "patch_size": 32,
        "hidden_act": activation,
    }
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=48)
    torch.manual_seed(0)
    reference = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for value in reference.parameters():
            value.add_(0.1 * torch.randn_like(value))
    reference.save_pretrained(tmp_path)
    state = read_state(tmp_path / "model.safetensors")
    assert any(name.startswith("text_model.") for name in state)  # the whole of CLIP, as published
    x = two_pictures()
    network = clip(state, activation)
    assert (network.dimension, network.plan.size) == (48, 96)
    assert float(((network.colours(x) - _colours(x, 96, *OPENAI)).abs() > 1e-5).double().mean()) < 1e-3
    with torch.no_grad():
        expected = reference.visual_projection(reference.vision_model(network.colours(x)).pooler_output)
    assert apart(network(x), expected) < 1e-5
    other = "gelu" if activation == "quick_gelu" else "quick_gelu"
    assert apart(clip(state, other)(x), expected) > 1e-4


def test_another_networks_weights_are_told_by_what_is_missing(weights):
    with pytest.raises(InputError, match=r"tensors are missing \(Conv2d_1a_3x3.conv.weight"):
        fill(Inception(), _dinov2_weights(), "Inception")
    with pytest.raises(InputError, match="not the weights of DINOv2: nothing in them is its cls_token"):
        dinov2(weights)
    with pytest.raises(InputError, match="visual_projection.weight is missing"):
        clip({name: value for name, value in _dinov2_weights().items() if name != "mask_token"})
    with pytest.raises(InputError, match=r"1 tensors are missing \(blocks.1.attn.proj.bias\)"):
        dinov2({name: value for name, value in _dinov2_weights().items() if name != "blocks.1.attn.proj.bias"})
    with pytest.raises(InputError, match="with registers"):
        dinov2(_dinov2_weights() | {"register_tokens": torch.zeros(1, 4, 128)})
    with pytest.raises(InputError, match="has shape"):
        fill(Inception(), weights | {"fc.bias": torch.zeros(1000)}, "Inception")


def test_files_are_read_whole_or_not_at_all(tmp_path):
    state = {"a": torch.arange(1000.0), "b": torch.ones(2, 2)}
    torch.save(state, tmp_path / "w.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pth", "old.pth", "w.safetensors"):
        found = read_state(tmp_path / name)
        assert all(torch.equal(found[key], value) for key, value in state.items())
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="cannot be read as weights"):
            read_state(tmp_path / f"cut-{name}")
    with pytest.raises(InputError, match="cannot be read as weights"):
        read_state(tmp_path / "none.pth")
    torch.save({"state_dict": state}, tmp_path / "nested.pth")
    with pytest.raises(InputError, match="no plain state dict"):
        read_state(tmp_path / "nested.pth")
    assert list(load_file(tmp_path / "w.safetensors")) == ["a", "b"]


def test_code_in_a_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="holds code"):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_files_are_known_by_their_hash_only(tmp_path, monkeypatch):
    path = tmp_path / "inception-2015-12-05-6726825d.pth"
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(InputError, match=f"SHA-256 {sha256}.*inception:.*#sha256={sha256[:16]}"):
        identify(path, "inception")
    assert identify(path, "inception", sha256[:16].upper()).published is None
    with pytest.raises(InputError, match="at least 16 hexadecimal digits"):
        identify(path, "inception", sha256[:15])
    with pytest.raises(InputError, match="another file, or damaged"):
        identify(path, "inception", "0" * 16)
    with pytest.raises(InputError, match="there is no file"):
        identify(tmp_path / "none", "inception")
    entry = next(iter(PUBLISHED.values()))
    monkeypatch.setitem(PUBLISHED, sha256, entry)
    assert identify(path, "inception").published is entry
    with pytest.raises(InputError, match="not dinov2 weights; write inception:"):
        identify(path, "dinov2")


def test_the_list_of_published_files_is_well_formed():
    assert {entry.kind for entry in PUBLISHED.values()} == {"inception", "dinov2", "clip"}
    for sha256, entry in PUBLISHED.items():
        assert len(sha256) == 64
        assert not set(sha256) - set("0123456789abcdef")
        assert entry.source
