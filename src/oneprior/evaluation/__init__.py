"""Measure anything: pure functions of tensors and callables, in float64 where it matters. Knows no task."""

from oneprior.evaluation.accuracy import crps, mse, psnr
from oneprior.evaluation.coverage import Coverage, interval_coverage
from oneprior.evaluation.features import Classifier, train_classifier
from oneprior.evaluation.frechet import FeatureStatistics, frechet_distance
from oneprior.evaluation.kernel_distance import KernelDistance, kernel_distance, squared_discrepancy
from oneprior.evaluation.modes import Modes, label_modes, modes_recovered
from oneprior.evaluation.neighbours import Support, support
from oneprior.evaluation.parzen import Parzen, parzen_log_likelihood
from oneprior.evaluation.similarity import ms_ssim, ssim

__all__ = [
    "Classifier",
    "Coverage",
    "FeatureStatistics",
    "KernelDistance",
    "Modes",
    "Parzen",
    "Support",
    "crps",
    "frechet_distance",
    "interval_coverage",
    "kernel_distance",
    "label_modes",
    "modes_recovered",
    "ms_ssim",
    "mse",
    "parzen_log_likelihood",
    "psnr",
    "squared_discrepancy",
    "ssim",
    "support",
    "train_classifier",
]
