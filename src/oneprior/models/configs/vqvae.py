"""Settings of the vqvae family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class VQVAEConfig:
    """See `oneprior.models.vqvae`.

    Args:
        codes: size of the codebook.
        latent: numbers in a code.
        commitment: weight of |z - code|^2.
        decay: of the codebook's running means.
        dead: a code is restarted when its running count falls under this share of an even one; 0 for never.
        network: "light" (ours, any dimension), "patches" (each code its patch alone, to be changed one by one; any
            dimension) or "diffusers" (`VQModel`, 2-D, for export to LDMPipeline).
        downsample: the grid of codes is the event divided by this power of two.
        width: channels after the first halving.
        blocks: residual blocks at each size.
        prior_width: of the transformer over the codes.
        prior_depth: its blocks.
        prior_heads: its attention heads.
        prior_start: share of the training after which the transformer learns; before, codes still move too much. 1
            for a codec without a prior.
        condition_dropout: share of rows whose conditions are withheld from the transformer in training.
        adversarial: weight of a critic of patches (VQGAN's term); 0 for none, and then there is no critic.
        perceptual: weight of a distance between features of a fixed random network; 0 for none.
        adversarial_start: share of the training after which the critic's term counts.
        one_hot: the channels are so many groups of one-hot tokens, which the decoder tells by their probabilities; 0
            where they are numbers. Set by itself for sequences.
        pretrained: JSON of the config of the diffusers network this was imported from; empty for our own.
    """

    codes: int = 256
    latent: int = 8
    commitment: float = 0.25
    decay: float = 0.99
    dead: float = 0.02
    network: Literal["light", "patches", "diffusers"] = "light"
    downsample: int = 4
    width: int = 32
    blocks: int = 1
    prior_width: int = 128
    prior_depth: int = 4
    prior_heads: int = 4
    prior_start: float = 0.3
    condition_dropout: float = 0.1
    adversarial: float = 0.0
    perceptual: float = 0.0
    adversarial_start: float = 0.3
    one_hot: int = 0
    pretrained: str = ""
