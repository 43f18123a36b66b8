"""Settings of the gan family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GANConfig:
    """See `oneprior.models.gan`.

    Args:
        objective: "relativistic" (R3GAN: paired loss, R1 and R2), "nonsaturating" (StyleGAN2: R1) or "minimax"
            (Goodfellow et al. 2014, equation 1; no penalty unless `gamma` is given).
        network: "conv" (1-D, 2-D, 3-D), "stylegan2" (2-D), "mlp", "goodfellow2014" (the networks of the first paper),
            or "auto": "mlp" for events of up to 100 numbers, else "conv".
        latent: length of z.
        style: length of w ("stylegan2"); 0 takes `latent`.
        width: channels at the finest level; they double at each coarser one, up to `growth` times this.
            For "stylegan2" at the finest level too; up to `max_width`.
        max_width: most channels of a level ("stylegan2"); 0 takes sixteen times `width`, at most 512.
        growth: see `width` ("conv"); 1 keeps as many channels at all levels.
        blocks: residual blocks at each level ("conv"), hidden layers beyond two ("mlp").
        patch: samples along each axis that the finest level takes at once ("conv", "stylegan2"); 0 takes 1, of a "conv"
            with more than 16 samples 4.
        mapping_layers: depth of the mapping network ("stylegan2").
        clamp: limit of the generator's features ("stylegan2", official "conv_clamp"); 0 for none.
        gamma: weight of the gradient penalty at the start; None takes one that suits the objective and the event.
        gamma_end: the part of `gamma` that is left at the end, on a cosine ("relativistic" only).
        penalty_every: critic steps between penalties, each then counting that many times ("lazy").
        learning_rate: of both players; 0 takes the network's own.
        augment: "auto" (adaptive where the data set has under 30,000 events), "adaptive", "ramp" (probability grows
            with the progress to `augment_probability`, as R3GAN does), "none".
        augment_steps: which transformations: "blit", "geometric", "colour", "noise", "cutout".
        augment_target: the share of overfitting that the adaptive probability steers for.
        augment_images: images in which the adaptive probability can go from 0 to 1.
        augment_probability: the end of the ramp.
        condition_dropout: how often a condition is hidden in training, so that its "absent" value is learned.
        style_mixing: probability that two styles share a picture in training ("stylegan2").
        path_length: weight of path length regularisation ("stylegan2"); the paper has 2.
    """

    objective: Literal["relativistic", "nonsaturating", "minimax"] = "relativistic"
    network: Literal["auto", "conv", "mlp", "stylegan2", "goodfellow2014"] = "auto"
    latent: int = 64
    width: int = 32
    growth: int = 4
    blocks: int = 1
    patch: int = 0
    mapping_layers: int = 2
    gamma: float | None = None
    gamma_end: float = 0.1
    penalty_every: int = 1
    learning_rate: float = 0.0
    augment: Literal["auto", "adaptive", "ramp", "none"] = "auto"
    augment_steps: tuple[Literal["blit", "geometric", "colour", "noise", "cutout"], ...] = (
        "blit",
        "geometric",
        "colour",
    )
    augment_target: float = 0.6
    augment_images: int = 200_000
    augment_probability: float = 0.3
    condition_dropout: float = 0.1
    style_mixing: float = 0.0
    path_length: float = 0.0
    style: int = 0
    max_width: int = 0
    clamp: float = 0.0

    @classmethod
    def goodfellow2014(cls) -> "GANConfig":
        """The network and game of Goodfellow et al. 2014 on MNIST (github.com/goodfeli/adversarial, mnist.yaml)."""
        return cls("nonsaturating", "goodfellow2014", latent=100, gamma=0.0, augment="none")

    @classmethod
    def stylegan2(cls) -> "GANConfig":
        """The settings of StyleGAN2 (Karras et al. 2020) with adaptive augmentation, at 256 x 256 and 32 channels."""
        return cls(
            "nonsaturating",
            "stylegan2",
            latent=512,
            mapping_layers=8,
            gamma=1.0,
            penalty_every=16,
            augment="adaptive",
            augment_images=500_000,
            style_mixing=0.9,
            path_length=2.0,
        )

    @classmethod
    def r3gan_cifar10(cls) -> "GANConfig":
        """The settings of R3GAN (Huang et al. 2024) on CIFAR-10."""
        return cls(
            "relativistic",
            "conv",
            latent=64,
            width=768,
            growth=1,
            blocks=2,
            patch=1,
            gamma=0.05,
            learning_rate=2e-4,
            augment="ramp",
            augment_probability=0.55,
        )
