"""Measure anything: pure functions of tensors and callables, in float64 where it matters. Knows no task."""

from oneprior.evaluation.accuracy import crps, mse, psnr
from oneprior.evaluation.classifier_score import ClassifierScore, classifier_accuracy_score
from oneprior.evaluation.consistency import Consistency, data_consistency
from oneprior.evaluation.coverage import Coverage, interval_coverage
from oneprior.evaluation.delivery import AmountAgreement, LabelAccuracy, amount_agreement, dice, label_accuracy
from oneprior.evaluation.extrapolation import Extrapolated, frechet_infinity
from oneprior.evaluation.features import Classifier, train_classifier
from oneprior.evaluation.frechet import FeatureStatistics, frechet_distance
from oneprior.evaluation.kernel_distance import KernelDistance, kernel_distance, squared_discrepancy
from oneprior.evaluation.memorisation import Memorisation, memorisation
from oneprior.evaluation.modes import Modes, label_modes, modes_recovered
from oneprior.evaluation.neighbours import Support, nearest, support
from oneprior.evaluation.parzen import Parzen, parzen_log_likelihood
from oneprior.evaluation.similarity import ms_ssim, ssim

__all__ = [
    "AmountAgreement",
    "Classifier",
    "ClassifierScore",
    "Consistency",
    "Coverage",
    "Extrapolated",
    "FeatureStatistics",
    "KernelDistance",
    "LabelAccuracy",
    "Memorisation",
    "Modes",
    "Parzen",
    "Support",
    "amount_agreement",
    "classifier_accuracy_score",
    "crps",
    "data_consistency",
    "dice",
    "frechet_distance",
    "frechet_infinity",
    "interval_coverage",
    "kernel_distance",
    "label_accuracy",
    "label_modes",
    "memorisation",
    "modes_recovered",
    "ms_ssim",
    "mse",
    "nearest",
    "parzen_log_likelihood",
    "psnr",
    "squared_discrepancy",
    "ssim",
    "support",
    "train_classifier",
]
