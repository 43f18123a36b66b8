"""Evidence about x: log L(x), one number per row. It knows no prior."""

from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.fixed import Fixed
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.laplace import LaplaceLikelihood
from oneprior.likelihoods.measured import MeasuredLikelihood
from oneprior.likelihoods.noise import Noise
from oneprior.likelihoods.noise_words import parse_noise_law
from oneprior.likelihoods.outliers import OutlierLikelihood
from oneprior.likelihoods.poisson import PoissonLikelihood
from oneprior.likelihoods.product import Product
from oneprior.likelihoods.reward import Reward
from oneprior.likelihoods.rician import RicianLikelihood
from oneprior.likelihoods.scale_mixture import ScaleMixture
from oneprior.likelihoods.unknown_noise import UnknownNoiseLikelihood

__all__ = [
    "Fixed",
    "GaussianLikelihood",
    "LaplaceLikelihood",
    "Likelihood",
    "MeasuredLikelihood",
    "Noise",
    "OutlierLikelihood",
    "PoissonLikelihood",
    "Product",
    "Reward",
    "RicianLikelihood",
    "ScaleMixture",
    "UnknownNoiseLikelihood",
    "parse_noise_law",
]
