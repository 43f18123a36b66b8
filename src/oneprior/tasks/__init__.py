"""Verbs: what a person asks of a prior. Imports nothing before a name is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oneprior.tasks.draw import encode, interpolate, synthesise, truncation_sheet
    from oneprior.tasks.measurement import Measurement, measured, parse_noise, simulate
    from oneprior.tasks.methods import METHODS, choose
    from oneprior.tasks.restoration import Restoration, range_of, restore, restore_iter
    from oneprior.tasks.stress import StressTest, stress_test, stress_test_iter

_HOME = {
    "METHODS": "methods",
    "Measurement": "measurement",
    "Restoration": "restoration",
    "StressTest": "stress",
    "choose": "methods",
    "encode": "draw",
    "interpolate": "draw",
    "measured": "measurement",
    "parse_noise": "measurement",
    "range_of": "restoration",
    "restore": "restoration",
    "restore_iter": "restoration",
    "simulate": "measurement",
    "stress_test": "stress",
    "stress_test_iter": "stress",
    "synthesise": "draw",
    "truncation_sheet": "draw",
}

__all__ = [
    "METHODS",
    "Measurement",
    "Restoration",
    "StressTest",
    "choose",
    "encode",
    "interpolate",
    "measured",
    "parse_noise",
    "range_of",
    "restore",
    "restore_iter",
    "simulate",
    "stress_test",
    "stress_test_iter",
    "synthesise",
    "truncation_sheet",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"oneprior.tasks.{_HOME[name]}"), name)
    raise AttributeError(f"module 'oneprior.tasks' has no attribute {name!r}")
