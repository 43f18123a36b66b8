"""Diffusers folders: the same picture from the same noise, there and back, and refusals by name."""

import json

import numpy as np
import pytest
import torch

from oneprior.core import BadRunError, ConditionSpec, InputError
from oneprior.models.configs.diffusion import DiffusionConfig
from oneprior.models.configs.ldm import LDMConfig
from oneprior.models.configs.vae import VAEConfig
from oneprior.models.configs.vqvae import VQVAEConfig
from oneprior.models.diffusers_format import export_diffusers, import_diffusers, push_to_hub
from oneprior.models.diffusion import Diffusion
from oneprior.models.ldm import LatentDiffusion
from oneprior.models.vae import VAE
from oneprior.models.vqvae import VQVAE
from oneprior.priors.diffusion.samplers import DDIM, DPMSolver

SMALL = {"width": 16, "blocks": 1, "multipliers": (1, 2), "attention": (1,), "network": "unet", "moments_rank": 0}


def awake(model):
    for p in model.parameters():
        if not bool(p.any()):
            torch.nn.init.normal_(p, std=0.05)
    return model.eval()


def make(shape=(1, 8, 8), conditions=(), **options):
    torch.manual_seed(0)
    return awake(Diffusion(DiffusionConfig(**SMALL | options), shape, conditions))


def make_latent(kind="vae"):
    torch.manual_seed(0)
    if kind == "vae":
        codec = VAE(VAEConfig(latent=2, spatial=True, network="diffusers", downsample=2, width=8), (1, 16, 16))
    else:
        settings = VQVAEConfig(codes=16, latent=2, network="diffusers", downsample=2, width=8, prior_start=1.0)
        codec = VQVAE(settings, (1, 16, 16))
    model = awake(LatentDiffusion.from_autoencoder(LDMConfig(diffusion=DiffusionConfig(**SMALL)), codec))
    model.latent_mean.copy_(torch.tensor([0.3, -0.2]) if kind == "vae" else torch.tensor([0.1, 0.1]))
    model.latent_std.copy_(torch.tensor([0.5, 1.7]) if kind == "vae" else torch.tensor([0.7, 0.7]))
    return model


def run_pipeline(folder, noise_shape, steps):
    """The pipeline's own pictures, (n, h, w, c) in [0, 1], and the noise that it started from."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(
        batch_size=noise_shape[0],
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images
    return pictures, torch.randn(noise_shape, generator=torch.Generator().manual_seed(1)), pipeline


def as_picture(x):
    return (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("schedule", ["edm", "linear", "scaled_linear", "cosine", "flow"])
def test_same_noise_same_picture(tmp_path, schedule):
    model = make(schedule=schedule)
    export_diffusers(model, tmp_path)
    theirs, noise, _ = run_pipeline(tmp_path, (2, 1, 8, 8), 10)
    prior = model.prior()
    with torch.no_grad():
        ours = as_picture(DDIM(10, model.clock.grid(model.schedule, 10))(prior, None, noise))
    assert theirs.std() > 0.1
    assert np.abs(theirs - ours).max() < 1e-4


def test_same_noise_same_picture_by_dpm_solver(tmp_path):
    model = make((3, 8, 12), parameterisation="v")
    export_diffusers(model, tmp_path, scheduler="dpm")
    theirs, noise, pipeline = run_pipeline(tmp_path, (2, 3, 8, 12), 20)
    assert type(pipeline.scheduler).__name__ == "DPMSolverMultistepScheduler"
    with torch.no_grad():
        ours = as_picture(DPMSolver(20, model.clock.grid(model.schedule, 20))(model.prior(), None, noise))
    assert np.abs(theirs - ours).max() < 1e-4


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_every_target_comes_back(tmp_path, target):
    model = make(schedule="linear", parameterisation=target, beta_end=0.015)
    export_diffusers(model, tmp_path)
    back = import_diffusers(tmp_path)
    assert isinstance(back, Diffusion)
    assert (back.config.schedule, back.config.parameterisation, back.config.beta_end) == ("linear", target, 0.015)
    x_t, t = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        assert torch.equal(back.prior().denoise(x_t, t), model.prior().denoise(x_t, t))
    again = Diffusion(back.config, back.event_shape)  # as a run folder rebuilds it
    again.load_state_dict(back.state_dict())


@pytest.mark.parametrize("kind", ["vae", "vqvae"])
def test_latent_runs_are_ldm_pipelines(tmp_path, kind):
    model = make_latent(kind)
    export_diffusers(model, tmp_path)
    theirs, noise, pipeline = run_pipeline(tmp_path, (2, 2, 8, 8), 10)
    assert type(pipeline).__name__ == "LDMPipeline"
    diffusion = model.diffusion
    with torch.no_grad():
        z = DDIM(10, diffusion.clock.grid(diffusion.schedule, 10))(diffusion.prior(), None, noise)
        ours = as_picture(model.codec().decode(z))
        assert np.abs(theirs - ours).max() < 1e-4
        back = import_diffusers(tmp_path)
        assert isinstance(back, LatentDiffusion)
        assert torch.allclose(back.codec().decode(z), model.codec().decode(z), atol=1e-5)


def test_a_folder_of_diffusers_own(tmp_path):
    """What DDPMPipeline writes: other blocks, other time embedding, other betas."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        freq_shift=1,
        flip_sin_to_cos=False,
    )
    DDPMPipeline(unet, DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(tmp_path)
    model = import_diffusers(tmp_path)
    assert isinstance(model, Diffusion)
    assert model.config.schedule == "cosine"
    x_t, k = torch.randn(2, 1, 8, 8), 400
    alpha2 = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod[k]
    with torch.no_grad():
        eps = unet.eval()(x_t, k).sample
        expected = (x_t - (1 - alpha2).sqrt() * eps) / alpha2.sqrt()
        found = model.prior().denoise(x_t, torch.tensor(k / 999, dtype=torch.float64))
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["vae", "vqvae"])
def test_autoencoders_come_in_as_codecs(tmp_path, kind):
    codec = make_latent(kind).autoencoder
    codec.to_diffusers().save_pretrained(tmp_path)
    back = import_diffusers(tmp_path, size=(16, 16))
    x = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.allclose(back.codec().encode(x), codec.codec().encode(x), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: make(conditions=(ConditionSpec("label", "class", classes=2),)), "conditions .label."),
        (lambda: make(network="mlp"), "ResidualMLP"),
        (lambda: make((1, 9, 9)), "9x9 are padded"),
        (lambda: make((1, 16)), "2-D pictures"),
        (lambda: make((1, 4, 4, 4)), "2-D pictures"),
        (lambda: make(parameterisation="velocity"), "velocity"),
        (lambda: make(schedule="flow", parameterisation="x0"), "takes the velocity"),
        (lambda: VAE(VAEConfig(), (1, 8, 8)), "vae has no place"),
    ],
)
def test_what_cannot_go_out_is_refused_by_name(tmp_path, model, words):
    with pytest.raises(InputError, match=words):
        export_diffusers(model(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestBrokenFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        return export_diffusers(make(schedule="linear"), tmp_path / "run")

    def edit(self, path, **changes):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def test_nothing_there(self, tmp_path):
        with pytest.raises(BadRunError, match="config.json is missing"):
            import_diffusers(tmp_path)

    def test_truncated_weights(self, folder):
        path = folder / "unet" / "diffusion_pytorch_model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(BadRunError, match="does not hold the weights"):
            import_diffusers(folder)

    def test_pickled_weights_are_never_read(self, folder):
        path = folder / "unet" / "diffusion_pytorch_model.safetensors"
        path.rename(path.with_suffix(".bin"))
        with pytest.raises(BadRunError, match="pickled diffusion_pytorch_model.bin, which is not read"):
            import_diffusers(folder)

    def test_weights_of_another_network(self, folder):
        self.edit(folder / "unet" / "config.json", layers_per_block=2)
        with pytest.raises(BadRunError, match="does not hold the weights"):
            import_diffusers(folder)

    def test_broken_json(self, folder):
        (folder / "model_index.json").write_text("{")
        with pytest.raises(BadRunError, match="not valid JSON"):
            import_diffusers(folder)

    @pytest.mark.parametrize(
        ("part", "changes", "words"),
        [
            ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "no table of betas"),
            ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "'flow' is not known"),
            ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "no table of betas"),
            ("unet/config.json", {"num_class_embeds": 3}, "class labels"),
            ("unet/config.json", {"out_channels": 2}, "variances"),
            ("unet/config.json", {"sample_size": None}, "how large"),
            ("model_index.json", {"unet": ["diffusers", "UNet2DConditionModel"]}, "UNet2DConditionModel"),
        ],
    )
    def test_what_cannot_come_in_is_named(self, folder, part, changes, words):
        self.edit(folder / part, **changes)
        with pytest.raises(InputError, match=words):
            import_diffusers(folder)

    def test_a_part_alone(self, folder, tmp_path):
        with pytest.raises(InputError, match="without its scheduler"):
            import_diffusers(folder / "unet")


def test_push_to_hub(tmp_path, monkeypatch):
    import huggingface_hub

    done = []

    class FakeApi:
        def __init__(self, token=None):
            done.append(("token", token))

        def create_repo(self, repo_id, **options):
            done.append(("create", repo_id, options))

        def upload_folder(self, **options):
            done.append(("upload", options))

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    with pytest.raises(InputError, match="nothing to upload"):
        push_to_hub(tmp_path, "me/it")
    assert done == []
    export_diffusers(make(), tmp_path)
    assert push_to_hub(tmp_path, "me/it", private=True, token="t") == "https://huggingface.co/me/it"
    assert done[0] == ("token", "t")
    assert done[1] == ("create", "me/it", {"private": True, "exist_ok": True})
    assert done[2][1]["folder_path"] == str(tmp_path)
