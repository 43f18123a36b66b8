"""Settings of the vqvae family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VQVAEConfig:
    """See `oneprior.models.vqvae`."""
