"""Settings of the ldm family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass, field
from typing import Literal

from oneprior.models.configs.diffusion import DiffusionConfig
from oneprior.models.configs.vae import VAEConfig
from oneprior.models.configs.vqvae import VQVAEConfig


@dataclass(frozen=True)
class LDMConfig:
    """See `oneprior.models.ldm`.

    Args:
        autoencoder: the first stage: the folder of a `vae --spatial` or `vqvae` run, or a folder of diffusers
            (`AutoencoderKL`, `VQModel`); empty to train one first, as a run of its own inside this one.
        autoencoder_family: the kind of the first stage: "vae" (KL) or "vqvae" (VQ).
        vae: settings of the first stage, where it is a vae; replaced by those of `autoencoder`.
        vqvae: the same, where it is a vqvae.
        diffusion: settings of the second stage, on the latents.
    """

    autoencoder: str = ""
    autoencoder_family: Literal["vae", "vqvae"] = "vae"
    vae: VAEConfig = field(default_factory=lambda: VAEConfig(spatial=True))
    vqvae: VQVAEConfig = field(default_factory=lambda: VQVAEConfig(codes=1024, latent=4, prior_start=1.0))
    diffusion: DiffusionConfig = field(
        default_factory=lambda: DiffusionConfig(width=64, multipliers=(1,), attention=(0,))
    )

    @property
    def first_stage(self) -> VAEConfig | VQVAEConfig:
        """The settings of the autoencoder."""
        return self.vae if self.autoencoder_family == "vae" else self.vqvae
