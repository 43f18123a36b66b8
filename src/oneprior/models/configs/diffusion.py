"""Settings of the diffusion family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DiffusionConfig:
    """See `oneprior.models.diffusion`."""
