"""Settings of the vae family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class VAEConfig:
    """See `oneprior.models.vae`.

    Args:
        latent: how many latent numbers, or channels of the latent grid with `spatial`; None for 16, or 4.
        spatial: latents on a grid, the first stage of latent diffusion, instead of one vector.
        beta: weight of the divergence; None for 1, or 0.1 with `spatial`.
        network: "light" (ours, any dimension), "mlp" (vector latents of tiny events), "diffusers" (`AutoencoderKL`,
            2-D and spatial, for export to LDMPipeline), or "auto": "mlp" for vector latents of at most 256 numbers,
            else "light".
        downsample: the latent grid is the event divided by this power of two.
        width: channels after the first halving (hidden units / 8 of "mlp").
        blocks: residual blocks at each size.
        encoder_noise: deviation of the noise on what the encoder sees in training, against memorising; not with
            `spatial`.
        condition_dropout: share of rows whose conditions are withheld in training, so that p(x) is learned beside p(x
            | c).
        adversarial: weight of a critic of patches (VQGAN's term); 0 for none, and then there is no critic.
        perceptual: weight of a distance between features of a fixed random network; 0 for none.
        adversarial_start: share of the training after which the critic's term counts.
        pretrained: JSON of the config of the diffusers network this was imported from; empty for our own.
    """

    latent: int | None = None
    spatial: bool = False
    beta: float | None = None
    network: Literal["auto", "light", "mlp", "diffusers"] = "auto"
    downsample: int = 4
    width: int = 32
    blocks: int = 1
    encoder_noise: float = 0.15
    condition_dropout: float = 0.1
    adversarial: float = 0.0
    perceptual: float = 0.0
    adversarial_start: float = 0.3
    pretrained: str = ""
