"""Evidence about x: log L(x), one number per row. It knows no prior."""

from oneprior.likelihoods.base import Likelihood
from oneprior.likelihoods.fixed import Fixed
from oneprior.likelihoods.gaussian import GaussianLikelihood
from oneprior.likelihoods.product import Product
from oneprior.likelihoods.reward import Reward

__all__ = ["Fixed", "GaussianLikelihood", "Likelihood", "Product", "Reward"]
