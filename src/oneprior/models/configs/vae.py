"""Settings of the vae family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VAEConfig:
    """See `oneprior.models.vae`."""
