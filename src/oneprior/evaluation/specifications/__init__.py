"""Written specifications: what every output must satisfy, tested on outputs and themselves tested.

`rules` and `measures` are what a specification is made of, `language` its YAML, `suite` its verdict, `fitting` its
bounds from real data, `mutants` its own test, `holding` a generator that is kept to it.
"""

from oneprior.evaluation.specifications.fitting import TOGETHER, Fitted, fit_bounds, halves, validate, whole
from oneprior.evaluation.specifications.holding import Held, as_reward, hold
from oneprior.evaluation.specifications.junit import write_junit
from oneprior.evaluation.specifications.language import MEASURES, measure_named, read_content, read_suite, suite_from
from oneprior.evaluation.specifications.mutants import MUTANTS, Kill, Mutant, kill_rates, kill_rates_iter, useless
from oneprior.evaluation.specifications.outputs import Judges, Outputs
from oneprior.evaluation.specifications.rules import AllOf, AnyOf, Bound, Implies, Rule
from oneprior.evaluation.specifications.suite import (
    CounterExample,
    Finding,
    Specification,
    Suite,
    check,
    clopper_pearson,
    trials_needed,
)

__all__ = [
    "MEASURES",
    "MUTANTS",
    "TOGETHER",
    "AllOf",
    "AnyOf",
    "Bound",
    "CounterExample",
    "Finding",
    "Fitted",
    "Held",
    "Implies",
    "Judges",
    "Kill",
    "Mutant",
    "Outputs",
    "Rule",
    "Specification",
    "Suite",
    "as_reward",
    "check",
    "clopper_pearson",
    "fit_bounds",
    "halves",
    "hold",
    "kill_rates",
    "kill_rates_iter",
    "measure_named",
    "read_content",
    "read_suite",
    "suite_from",
    "trials_needed",
    "useless",
    "validate",
    "whole",
    "write_junit",
]
