"""Trained ensembles of other libraries, read into one `Forest`; what a sum of trees cannot say is refused by name."""

from oneprior.inference.search.ensembles.read import read_forest

__all__ = ["read_forest"]
