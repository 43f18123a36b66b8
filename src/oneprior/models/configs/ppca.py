"""Settings of the ppca family; no torch here, so that the command line starts at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PPCAConfig:
    """See `oneprior.models.ppca`."""
