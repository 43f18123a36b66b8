"""Methods that ask nothing but draws of the prior."""

from oneprior.inference.search.resampling import Resampling

__all__ = ["Resampling"]
