"""Trainable families, one file each. Imports nothing itself: `family(name)` fetches the one that is asked for."""

from importlib import import_module

from oneprior.models.configs import FAMILIES


def family(name: str) -> type:
    """The `Model` class of a family.

    Raises:
        KeyError: for a name that is not in `FAMILIES`.
    """
    module, _, attribute = FAMILIES[name][1].partition(":")
    return getattr(import_module(module), attribute)


__all__ = ["FAMILIES", "family"]
