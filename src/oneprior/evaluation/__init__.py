"""Measure anything: pure functions of tensors and callables, in float64 where it matters. Knows no task."""

from oneprior.evaluation.accuracy import crps, mse, psnr
from oneprior.evaluation.bits import Bits, bits_per_dimension, dequantise
from oneprior.evaluation.calibration import Calibration, calibrate
from oneprior.evaluation.classifier_score import ClassifierScore, classifier_accuracy_score
from oneprior.evaluation.consistency import Consistency, data_consistency
from oneprior.evaluation.coverage import Coverage, interval_coverage
from oneprior.evaluation.delivery import AmountAgreement, LabelAccuracy, amount_agreement, dice, label_accuracy
from oneprior.evaluation.embed import (
    Features,
    function_features,
    open_features,
    own_features,
    pixel_features,
    principal_features,
    published_features,
    statistics,
)
from oneprior.evaluation.energy import energy_score
from oneprior.evaluation.extrapolation import Extrapolated, frechet_infinity
from oneprior.evaluation.features import Classifier, train_classifier, train_classifier_iter
from oneprior.evaluation.flow_likelihood import flow_log_prob
from oneprior.evaluation.frechet import FeatureStatistics, frechet_distance, frechet_error
from oneprior.evaluation.importance import importance_bound
from oneprior.evaluation.kernel_distance import KernelDistance, kernel_distance, squared_discrepancy
from oneprior.evaluation.likelihood import Likelihood, likelihood_of
from oneprior.evaluation.memorisation import Memorisation, memorisation
from oneprior.evaluation.modes import Modes, label_modes, modes_recovered
from oneprior.evaluation.neighbours import Support, nearest, support
from oneprior.evaluation.parzen import Parzen, parzen_log_likelihood
from oneprior.evaluation.perceptual import perceptual_distance
from oneprior.evaluation.ranks import Ranks, rank_histogram, rank_truth
from oneprior.evaluation.self_supervised import train_self_supervised, train_self_supervised_iter
from oneprior.evaluation.similarity import ms_ssim, ssim
from oneprior.evaluation.tarp import Tarp, tarp
from oneprior.evaluation.verdict import Verdict, calibration_verdict

__all__ = [
    "AmountAgreement",
    "Bits",
    "Calibration",
    "Classifier",
    "ClassifierScore",
    "Consistency",
    "Coverage",
    "Extrapolated",
    "FeatureStatistics",
    "Features",
    "KernelDistance",
    "LabelAccuracy",
    "Likelihood",
    "Memorisation",
    "Modes",
    "Parzen",
    "Ranks",
    "Support",
    "Tarp",
    "Verdict",
    "amount_agreement",
    "bits_per_dimension",
    "calibrate",
    "calibration_verdict",
    "classifier_accuracy_score",
    "crps",
    "data_consistency",
    "dequantise",
    "dice",
    "energy_score",
    "flow_log_prob",
    "frechet_distance",
    "frechet_error",
    "frechet_infinity",
    "function_features",
    "importance_bound",
    "interval_coverage",
    "kernel_distance",
    "label_accuracy",
    "label_modes",
    "likelihood_of",
    "memorisation",
    "modes_recovered",
    "ms_ssim",
    "mse",
    "nearest",
    "open_features",
    "own_features",
    "parzen_log_likelihood",
    "perceptual_distance",
    "pixel_features",
    "principal_features",
    "psnr",
    "published_features",
    "rank_histogram",
    "rank_truth",
    "squared_discrepancy",
    "ssim",
    "statistics",
    "support",
    "tarp",
    "train_classifier",
    "train_classifier_iter",
    "train_self_supervised",
    "train_self_supervised_iter",
]
