"""The token road: inference of the codes of x = decode(codes), whose law has exact conditionals."""

from oneprior.inference.tokens.annealing import Annealing
from oneprior.inference.tokens.enumeration import Enumeration
from oneprior.inference.tokens.gibbs import Gibbs
from oneprior.inference.tokens.informed import Informed
from oneprior.inference.tokens.lookahead import Lookahead

__all__ = ["Annealing", "Enumeration", "Gibbs", "Informed", "Lookahead"]
