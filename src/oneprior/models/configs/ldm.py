"""Settings of the ldm family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LDMConfig:
    """See `oneprior.models.ldm`."""
