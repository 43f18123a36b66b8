"""Settings of the diffusion family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DiffusionConfig:
    """See `oneprior.models.diffusion`.

    Args:
        schedule: noise levels: EDM's, a DDPM table (linear; scaled_linear, as of latent diffusion; cosine), or
            rectified flow.
        parameterisation: what the network predicts; auto: edm (EDM's F with sigma_data = 1, which is -v) for edm, eps
            for linear tables, v for cosine, velocity for flow.
        noise: noise levels of training: log-normal, or uniform in t; auto: log-normal for edm and flow, uniform for
            tables.
        noise_mean: mean of log s of the log-normal, s the noise level in units of x; EDM's -1.2 is for data of
            deviation 0.5, that is, -0.5 in units of the data's deviation.
        noise_std: its standard deviation.
        tail: share of rows with t uniform instead, so that no level on the way of a sampler is never seen.
        network: "unet", "mlp" (for tiny events), or "auto": mlp for events of at most 144 numbers.
        width: channels of the network at full resolution; the perceptron has 8 times as many units.
        multipliers: channels of each level in units of width; each level after the first has half the resolution.
        blocks: residual blocks a level; the perceptron has one more than this.
        attention: levels with attention, 0 the finest.
        dropout: in the residual blocks.
        condition_dropout: share of rows whose conditions are withheld in training, for classifier-free guidance.
        moments_rank: rank of the Gaussian of the data that guidance uses, fitted before training; 0 for none.
        beta_start: first beta of the linear tables.
        beta_end: last beta of the linear tables.
        table_steps: length of the tables.
        pretrained: JSON of the config of the diffusers network this was imported from; empty for our own.
    """

    schedule: Literal["edm", "linear", "scaled_linear", "cosine", "flow"] = "edm"
    parameterisation: Literal["auto", "edm", "v", "eps", "x0", "velocity"] = "auto"
    noise: Literal["auto", "lognormal", "uniform"] = "auto"
    noise_mean: float = -0.6
    noise_std: float = 1.2
    tail: float = 0.1
    network: Literal["auto", "unet", "mlp"] = "auto"
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (2,)
    dropout: float = 0.0
    condition_dropout: float = 0.1
    moments_rank: int = 64
    beta_start: float = 1e-4
    beta_end: float = 0.02
    table_steps: int = 1000
    pretrained: str = ""
