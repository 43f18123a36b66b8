"""To diffusers and back: a run that any pipeline loads, and a folder of theirs as a model of ours.

A diffusers folder is `model_index.json`, and for each part a `config.json` with weights in safetensors. A pipeline
gives its network the number of a discrete step, 0 to 999, and start noise of deviation 1. Our networks are told just
that number (`priors.diffusion.Clock`) and see variance-preserving x_t, so that exporting one changes no weight and no
convention: the same noise on the same steps gives the same picture. EDM's own schedulers are not used: inside
DDPMPipeline they run, and wrongly, because it never scales the start noise nor the input.

What goes out:

| ours | folder | scheduler |
|---|---|---|
| diffusion, edm or a table | DDIMPipeline (or DDPMPipeline with "dpm") | DDIMScheduler, DPMSolverMultistepScheduler |
| diffusion, flow | DDPMPipeline | FlowMatchEulerDiscreteScheduler |
| ldm over a diffusers autoencoder | LDMPipeline | as above |

What comes in: `UNet2DModel` pipelines with a scheduler that has betas (or a plain flow), latent ones too;
`AutoencoderKL` and `VQModel` as codecs. Only JSON and safetensors are read, nothing pickled. Everything else is
refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from oneprior.core import BadRunError, InputError
from oneprior.models.base import Model
from oneprior.models.configs.diffusion import DiffusionConfig
from oneprior.models.configs.ldm import LDMConfig
from oneprior.models.diffusion import Diffusion
from oneprior.models.ldm import LatentDiffusion
from oneprior.models.vae import VAE
from oneprior.models.vqvae import VQVAE
from oneprior.nets.unet import PlainUNet
from oneprior.priors.diffusion.schedules import LinearSchedule, RectifiedFlow, TableSchedule

_PREDICTION = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
_BETAS = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
_WEIGHTS = "diffusion_pytorch_model.safetensors"


def export_diffusers(model: Model, folder: str | Path, *, scheduler: Literal["ddim", "dpm"] = "ddim") -> Path:
    """Write a folder that `diffusers.DiffusionPipeline.from_pretrained` loads unchanged.

    Args:
        model: a 2-D `Diffusion` without conditions, or a `LatentDiffusion` over a diffusers autoencoder.
        folder: made where it does not exist.
        scheduler: "ddim", or "dpm" for DPM-Solver++(2M); a flow has its own.

    Raises:
        InputError: names what diffusers cannot hold.
    """
    latent = isinstance(model, LatentDiffusion)
    diffusion = model.diffusion if isinstance(model, LatentDiffusion) else model
    if not isinstance(diffusion, Diffusion):
        raise InputError(
            f"a {model.family} has no place among diffusers' pipelines: only diffusion and ldm are exported"
        )
    unet = _exportable(diffusion, latent)
    plan = _scheduler(diffusion, scheduler)
    root = Path(folder)
    parts: dict[str, Any] = {"unet": unet, "scheduler": plan}
    if isinstance(model, LatentDiffusion):
        parts = {"vqvae": model.diffusers_autoencoder(), **parts}
    name = "LDMPipeline" if latent else "DDIMPipeline" if type(plan).__name__ == "DDIMScheduler" else "DDPMPipeline"
    for part, thing in parts.items():
        thing.save_pretrained(root / part)
    index = {"_class_name": name, **{part: ["diffusers", type(thing).__name__] for part, thing in parts.items()}}
    (root / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return root


def import_diffusers(folder: str | Path, *, size: tuple[int, int] | None = None) -> Model:
    """Read a folder that diffusers wrote.

    Args:
        folder: a pipeline with a `UNet2DModel`, or an `AutoencoderKL` or `VQModel` on its own.
        size: height and width of the events, where the folder does not say or another is wanted.

    Returns:
        `Diffusion`, `LatentDiffusion`, or `VAE` and `VQVAE` as codecs.

    Raises:
        BadRunError: where files are missing or broken.
        InputError: names what cannot be read.
    """
    root = Path(folder)
    if (root / "model_index.json").is_file():
        return _import_pipeline(root, size)
    config = _json(root / "config.json", "a diffusers folder has model_index.json, or config.json for one part")
    if config.get("_class_name") in ("AutoencoderKL", "VQModel"):
        return _import_autoencoder(root, config, size)
    if config.get("_class_name") == "UNet2DModel":
        raise InputError(f"{root} is a UNet2DModel without its scheduler: give the folder of the whole pipeline")
    raise InputError(
        f"{root} holds a {config.get('_class_name')}: UNet2DModel, AutoencoderKL and VQModel are known here"
    )


def push_to_hub(
    folder: str | Path, repo_id: str, *, private: bool = False, token: str | None = None, message: str = "OnePrior"
) -> str:
    """Upload a folder (an export, or a run) to the Hugging Face hub, and return its address.

    Args:
        folder: an export, which is uploaded whole; or a run, of which only the finished model is (config.json,
            card.md, weights): checkpoints, previews and cached latents, which are data in another form, stay here.
        repo_id: "owner/name"; made where it does not exist.
        private: whether only its owner sees a new repository.
        token: of the account; by default the one that `huggingface-cli login` has stored.
        message: of the commit.

    Raises:
        InputError: where the folder holds nothing to upload.
    """
    root = Path(folder)
    if not (root / "model_index.json").is_file() and not (root / "config.json").is_file():
        raise InputError(f"{root} is neither a run nor a diffusers folder: there is nothing to upload")
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    finished = [
        "config.json",
        "card.md",
        "model.safetensors",
        "autoencoder/config.json",
        "autoencoder/model.safetensors",
    ]
    parts = None if (root / "model_index.json").is_file() else finished
    api.upload_folder(folder_path=str(root), repo_id=repo_id, commit_message=message, allow_patterns=parts)
    return f"https://huggingface.co/{repo_id}"


def _exportable(diffusion: Diffusion, latent: bool) -> Any:
    """The model's `UNet2DModel`, or an error that names why it has none."""
    shape, core = tuple(diffusion.event_shape), diffusion.network.core
    if diffusion.conditions:
        names = ", ".join(spec.name for spec in diffusion.conditions)
        raise InputError(f"diffusers' unconditional pipelines cannot hold the conditions ({names}) of this model")
    if len(shape) != 3:
        raise InputError(f"diffusers' pipelines are for 2-D pictures, and the events have shape {shape}")
    if not isinstance(core, PlainUNet):
        raise InputError(
            f"this network is a {type(core).__name__}, which diffusers cannot read: train with network='unet' to export"
        )
    if not diffusion.network.plain:
        levels = len(core.net.config.block_out_channels)
        raise InputError(
            f"events of {shape[1]}x{shape[2]} are padded to multiples of {2 ** (levels - 1)}, which no pipeline does: "
            "train with another --size or with fewer multipliers"
        )
    if latent and shape[1] != shape[2]:
        raise InputError(f"LDMPipeline draws square latents only, and these have shape {shape}")
    return core.net


def _scheduler(diffusion: Diffusion, kind: Literal["ddim", "dpm"]) -> Any:
    """The scheduler on whose steps the network knows its way."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    named, schedule = diffusion.parameterisation, diffusion.clock.schedule
    if isinstance(schedule, RectifiedFlow):
        if named != "velocity":
            raise InputError(f"diffusers' flow scheduler takes the velocity, and this network predicts {named}")
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    if named not in _PREDICTION:
        raise InputError(f"diffusers' schedulers know {', '.join(_PREDICTION)}, and this network predicts {named}")
    assert isinstance(schedule, TableSchedule)
    table = diffusion.config.schedule if diffusion.config.schedule != "edm" else "linear"
    start, end = (schedule.beta_start, schedule.beta_end) if isinstance(schedule, LinearSchedule) else (1e-4, 0.02)
    options: dict[str, Any] = {
        "num_train_timesteps": schedule.steps,
        "beta_start": start,
        "beta_end": end,
        "beta_schedule": _BETAS[table],
        "prediction_type": _PREDICTION[named],
        "timestep_spacing": "trailing",  # from the last step, which is all noise
    }
    if kind == "dpm":
        return DPMSolverMultistepScheduler(**options)
    if kind == "ddim":
        return DDIMScheduler(**options, clip_sample=False, set_alpha_to_one=True)
    raise InputError(f"scheduler {kind!r} is not known; known are ddim and dpm")


def _import_pipeline(root: Path, size: tuple[int, int] | None) -> Model:
    index = _json(root / "model_index.json")
    parts = {name: part[-1] for name, part in index.items() if isinstance(part, list) and part[-1]}
    if parts.get("unet") != "UNet2DModel" or "scheduler" not in parts:
        raise InputError(
            f"{root} is a {index.get('_class_name')} of {', '.join(sorted(parts.values()))}: "
            "only pipelines of a UNet2DModel and its scheduler can be imported"
        )
    network = _json(root / "unet" / "config.json")
    config = _diffusion_config(network, _json(root / "scheduler" / "scheduler_config.json"))
    first = next((name for name in ("vqvae", "vae") if name in parts), None)
    if first is None:
        model: Model = Diffusion(config, (network["in_channels"], *_space(network, size)))
        diffusion = model
    else:
        told = _json(root / first / "config.json")
        codec = _import_autoencoder(root / first, told, size or _decoded(network, told))
        model = LatentDiffusion.from_autoencoder(LDMConfig(diffusion=config), codec)
        model.latent_std.fill_(1.0 / told.get("scaling_factor", 0.18215))
        diffusion = model.diffusion
    assert isinstance(diffusion, Diffusion)
    assert isinstance(diffusion.network.core, PlainUNet)
    _load(diffusion.network.core.net, root / "unet")
    return model


def _import_autoencoder(root: Path, config: Mapping[str, Any], size: tuple[int, int] | None) -> VAE | VQVAE:
    from diffusers import AutoencoderKL, VQModel

    kl = config["_class_name"] == "AutoencoderKL"
    net: Any = (AutoencoderKL if kl else VQModel).from_config(dict(config))
    _load(net, root)
    shape = (config.get("in_channels", 3), *_space(config, size))
    return VAE.from_diffusers(net, shape) if kl else VQVAE.from_diffusers(net, shape)


def _diffusion_config(network: Mapping[str, Any], plan: Mapping[str, Any]) -> DiffusionConfig:
    """Our settings for a network and a scheduler of theirs."""
    if network.get("num_class_embeds") or network.get("class_embed_type"):
        raise InputError(
            "this UNet2DModel takes class labels, which its pipelines never give it: it cannot be imported"
        )
    if network.get("out_channels", 3) != network.get("in_channels", 3):
        raise InputError("this UNet2DModel predicts variances beside its target: it cannot be imported")
    if network.get("time_embedding_type", "positional") != "positional":
        raise InputError(f"this UNet2DModel is told the time by {network['time_embedding_type']}, not by its steps")
    kept = json.dumps({key: value for key, value in network.items() if not key.startswith("_")})
    name = plan.get("_class_name", "")
    if name.startswith("FlowMatch"):
        if plan.get("shift", 1.0) != 1.0 or plan.get("use_dynamic_shifting"):
            raise InputError(f"{name} shifts its noise levels: only shift = 1 can be imported")
        if plan.get("num_train_timesteps", 1000) != 1000:
            raise InputError(f"{name} counts {plan['num_train_timesteps']} steps: only 1000 can be imported")
        return DiffusionConfig(schedule="flow", pretrained=kept)
    known = {theirs: ours for ours, theirs in _BETAS.items()}
    schedule = known.get(plan.get("beta_schedule", ""))
    if schedule is None or plan.get("trained_betas") is not None or plan.get("rescale_betas_zero_snr"):
        raise InputError(
            f"{name or 'the scheduler'} has no table of betas that is known here ({', '.join(known)}, as they are)"
        )
    predicted = plan.get("prediction_type", "epsilon")
    targets = {theirs: ours for ours, theirs in _PREDICTION.items()}
    if predicted not in targets:
        raise InputError(f"prediction type {predicted!r} is not known; known are {', '.join(targets)}")
    return DiffusionConfig(
        schedule=schedule,  # type: ignore[arg-type]
        parameterisation=targets[predicted],  # type: ignore[arg-type]
        beta_start=plan.get("beta_start", 1e-4),
        beta_end=plan.get("beta_end", 0.02),
        table_steps=plan.get("num_train_timesteps", 1000),
        pretrained=kept,
    )


def _space(config: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[int, int]:
    named = size or config.get("sample_size")
    if named is None:
        raise InputError("the folder does not say how large its events are: give size=(height, width)")
    return (named, named) if isinstance(named, int) else (int(named[0]), int(named[1]))


def _decoded(network: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> tuple[int, int]:
    """The size of the pictures that latents of the network's size decode to."""
    factor = 2 ** (len(autoencoder.get("block_out_channels", (64,))) - 1)
    height, width = _space(network, None)
    return height * factor, width * factor


def _json(path: Path, hint: str = "") -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise BadRunError(f"{path} is missing{f': {hint}' if hint else ''}") from None
    except ValueError as error:
        raise BadRunError(f"{path} is not valid JSON ({error})") from None


def _load(net: torch.nn.Module, folder: Path) -> None:
    """The weights of one part, from safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / _WEIGHTS
    if not path.is_file():
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        raise BadRunError(
            f"{folder} has no {_WEIGHTS}"
            + (
                f", only the pickled {', '.join(pickled)}, which is not read: save it again with diffusers"
                if pickled
                else ""
            )
        )
    try:
        net.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise BadRunError(f"{path} does not hold the weights that its config.json describes: {error}") from None
