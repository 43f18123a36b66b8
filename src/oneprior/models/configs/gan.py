"""Settings of the gan family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GANConfig:
    """See `oneprior.models.gan`."""
