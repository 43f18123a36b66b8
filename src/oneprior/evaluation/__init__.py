"""Measure anything: pure functions of tensors and callables, in float64 where it matters. Knows no task."""

from oneprior.evaluation.accuracy import crps, mse, psnr
from oneprior.evaluation.coverage import Coverage, interval_coverage
from oneprior.evaluation.features import Classifier, train_classifier
from oneprior.evaluation.frechet import FeatureStatistics, frechet_distance
from oneprior.evaluation.modes import Modes, label_modes, modes_recovered
from oneprior.evaluation.parzen import Parzen, parzen_log_likelihood

__all__ = [
    "Classifier",
    "Coverage",
    "FeatureStatistics",
    "Modes",
    "Parzen",
    "crps",
    "frechet_distance",
    "interval_coverage",
    "label_modes",
    "modes_recovered",
    "mse",
    "parzen_log_likelihood",
    "psnr",
    "train_classifier",
]
