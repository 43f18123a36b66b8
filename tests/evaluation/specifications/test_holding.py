"""Held generators follow the law they claim."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.evaluation.specifications import Outputs, as_reward, hold, suite_from, write_junit
from oneprior.inference import bayes
from oneprior.inference.noise.elliptical_slice import EllipticalSlice
from oneprior.priors.gaussian import LowRankGaussian

SUITE = suite_from({"checks": [{"check": "mean", "at_least": 0.3}]})


def generate(rows: torch.Tensor) -> Outputs:
    return Outputs(Rows(rows, seed=5).normal(1, 4) / 2, index=rows)


def test_rejection_keeps_the_rule_costs_what_it_says_and_is_made_again() -> None:
    held = hold(generate, SUITE, 400, batch=100)
    assert len(held.outputs) == 400
    assert (held.outputs.x.flatten(1).mean(1) >= 0.3).all()
    assert torch.equal(generate(held.outputs.rows).x, held.outputs.x)
    p = float(1 - torch.distributions.Normal(0, 0.25).cdf(torch.tensor(0.3)))  # the mean of 4 has deviation 1/4
    assert held.cost == pytest.approx(1 / p, rel=4 * ((1 - p) / 400) ** 0.5)


def test_the_kept_outputs_do_not_depend_on_the_batch() -> None:
    a, b = hold(generate, SUITE, 30, batch=7), hold(generate, SUITE, 30, batch=64)
    assert torch.equal(a.outputs.rows, b.outputs.rows)
    assert a.drawn == b.drawn


def test_an_impossible_rule_gives_up_with_a_count() -> None:
    with pytest.raises(InputError, match=r"0 of 200 draws keep"):
        hold(generate, suite_from({"checks": [{"check": "mean", "at_least": 99}]}), 4, batch=50)


def test_as_a_reward_it_tilts_the_prior_as_written() -> None:
    """N(0, 1/4) in each of 4 entries; the law of the mean m is N(0, 1/16) exp(min(m - .3, 0) / .1), by quadrature."""
    prior = LowRankGaussian(torch.zeros(1, 4), torch.zeros(4, 0), torch.zeros(0), 0.25)
    reward = as_reward(SUITE.specifications[0], temperature=0.1)
    draws = EllipticalSlice(chains=4, warmup=50, thin=5)(bayes(prior, reward, n=8), 40, Rows(8, seed=2)).x
    m = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    weight = torch.exp(-8 * m**2 + (m - 0.3).clamp_max(0) / 0.1)
    truth = float((weight * m).sum() / weight.sum())
    found = draws.double().flatten(2).mean(2)
    error = float(found.mean(0).std()) / 8**0.5
    assert float(found.mean()) == pytest.approx(truth, abs=4 * max(error, 0.01))


def test_a_rule_without_a_gradient_is_no_reward() -> None:
    suite = suite_from({"checks": [{"check": "parts", "threshold": 0, "at_most": 2}]})
    with pytest.raises(InputError, match="has no gradient"):
        as_reward(suite.specifications[0])


def test_junit_fails_where_a_specification_is_not_met(tmp_path: Path) -> None:
    suite = suite_from(
        {"checks": [{"name": "ok", "check": "mean", "at_least": -9}, {"name": "no", "check": "mean", "at_least": 0.3}]}
    )
    findings = suite.check(generate(torch.arange(300)))
    root = ElementTree.parse(write_junit(findings, tmp_path / "junit.xml", suite.name)).getroot()
    (group,) = root
    assert (group.get("tests"), group.get("failures")) == ("2", "1")
    ok, no = group
    assert ok.find("failure") is None
    failure = no.find("failure")
    assert failure is not None
    assert failure.get("type") == "broken"
    assert f"row {findings[1].worst[0].row}: " in (failure.text or "")
