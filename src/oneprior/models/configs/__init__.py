"""The families, and their settings as plain dataclasses that import no torch."""

from oneprior.models.configs.diffusion import DiffusionConfig
from oneprior.models.configs.gan import GANConfig
from oneprior.models.configs.ldm import LDMConfig
from oneprior.models.configs.ppca import PPCAConfig
from oneprior.models.configs.vae import VAEConfig
from oneprior.models.configs.vqvae import VQVAEConfig

FAMILIES: dict[str, tuple[type, str]] = {
    "ppca": (PPCAConfig, "oneprior.models.ppca:PPCA"),
    "vae": (VAEConfig, "oneprior.models.vae:VAE"),
    "gan": (GANConfig, "oneprior.models.gan:GAN"),
    "vqvae": (VQVAEConfig, "oneprior.models.vqvae:VQVAE"),
    "diffusion": (DiffusionConfig, "oneprior.models.diffusion:Diffusion"),
    "ldm": (LDMConfig, "oneprior.models.ldm:LatentDiffusion"),
}
