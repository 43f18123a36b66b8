"""Search: draws of a prior that are weighed, and the best point of a space for a trained ensemble, proven."""

from oneprior.inference.search.constraints import Allowed, AtLeast, Ball, Constraint, Exclude, Linear, fixed
from oneprior.inference.search.exact import Best, Effort, Search, maximise
from oneprior.inference.search.local import Climb
from oneprior.inference.search.objective import Bonus, Goal
from oneprior.inference.search.resampling import Resampling
from oneprior.inference.search.space import Categorical, Integer, Numeric, Space

__all__ = [
    "Allowed",
    "AtLeast",
    "Ball",
    "Best",
    "Bonus",
    "Categorical",
    "Climb",
    "Constraint",
    "Effort",
    "Exclude",
    "Goal",
    "Integer",
    "Linear",
    "Numeric",
    "Resampling",
    "Search",
    "Space",
    "fixed",
    "maximise",
]
