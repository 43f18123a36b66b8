"""YAML to rules, and every mistake by its name."""

from pathlib import Path

import pytest
import torch
import yaml

from oneprior.core import InputError, Rows
from oneprior.evaluation.specifications import (
    AllOf,
    AnyOf,
    Implies,
    Outputs,
    fit_bounds,
    halves,
    read_suite,
    suite_from,
    validate,
)

TEXT = """
suite: squares
required: 0.9
checks:
  - {name: dark ground, check: smallest, at_most: -0.5}
  - name: combined
    required: 0.95
    all:
      - {check: parts, threshold: 0.0, at_most: 40}
      - any: [{check: mean, at_least: 0.5}, {check: contrast, at_least: 0.2}]
  - name: implied
    if: {check: mean, at_least: 5}
    then: {check: largest, at_least: 9}
"""


def test_a_file_becomes_a_suite(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(TEXT)
    suite = read_suite(tmp_path / "s.yaml")
    assert suite.name == "squares"
    assert [s.required for s in suite.specifications] == [0.9, 0.95, 0.9]
    assert isinstance(suite.specifications[1].rule, AllOf)
    assert isinstance(suite.specifications[1].rule.parts[1], AnyOf)
    assert isinstance(suite.specifications[2].rule, Implies)
    found = suite.check(Outputs(Rows(100, seed=1).uniform(1, 8, 8) * 2 - 1))
    assert [f.state for f in found] == ["met", "met", "met"]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"check": "sharpnes", "at_least": 0}, r"unknown check 'sharpnes' \(did you mean sharpness"),
        ({"check": "parts", "at_most": 1}, "parts needs threshold"),
        ({"check": "parts", "treshold": 1, "at_most": 1}, r"no parameter 'treshold' \(did you mean threshold\?\)"),
        ({"check": "mean"}, "forbids nothing"),
        ({"check": "mean", "at_least": "much"}, "at_least is a number or auto, got 'much'"),
        ({"all": {"check": "mean"}}, "needs a list of rules"),
        ({"if": {"check": "mean", "at_least": 0}}, "belong together"),
        ({"at_least": 0}, "no `check:`, `all:`, `any:` or `if:`"),
        ({"check": "no.such.module:f", "at_least": 0}, "is looked for in this folder"),
        ({"check": "math:nothing", "at_least": 0}, "module math has no nothing"),
        ({"check": "parts", "threshold": "abc", "at_most": 1}, "threshold is a number, got 'abc'"),
        ({"check": "rises_with", "measure": "parts", "of": 3, "condition": "c", "at_least": 0}, "holds the parameters"),
        ({"check": "mean", "at_least": 0, "required": 1.0}, "lies between 0 and 1"),
        ({"check": "mean", "at_least": 0, "scope": "all"}, "unknown scope 'all'"),
    ],
)
def test_a_mistake_is_named(check: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        suite_from({"checks": [{"name": "mine", **check}]})
    assert "check 1 (mine)" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "no YAML"), ("x: 1", "needs a list `checks:`"), ("checks: []\nfoo: 1", "no 'foo'")]
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_suite(tmp_path / "s.yaml")
    assert "s.yaml" in str(error.value)
    with pytest.raises(InputError, match=r"nothing\.yaml: No such file"):
        read_suite(tmp_path / "nothing.yaml")


def test_ones_own_measure_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_checks.py").write_text("def middle(outputs, at=0):\n    return outputs.x[:, 0, at]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    suite = suite_from({"checks": [{"check": "my_checks:middle", "at": 1, "at_least": 0.5}]})
    margin = suite.specifications[0].rule.margin(Outputs(torch.tensor([[[0.0, 0.7]]])))
    assert margin.tolist() == pytest.approx([0.2])


def test_auto_bounds_are_set_on_one_half_and_pass_on_the_other() -> None:
    real = Outputs(Rows(2000, seed=3).normal(1, 6, 6) * 0.2, group=torch.arange(2000) // 2)
    content = yaml.safe_load(
        "checks:\n- {check: mean, at_least: auto, at_most: auto}\n"
        "- {name: c, if: {check: mean, at_least: 0}, then: {check: contrast, at_least: auto}}"
    )
    with pytest.raises(InputError, match="still auto"):
        suite_from(content).check(real)
    first, second = halves(real, Rows(1, seed=0))
    assert not set(first.group.tolist()) & set(second.group.tolist())  # type: ignore[union-attr]
    fitted = fit_bounds(content, first)
    assert fitted.events == 500
    again = suite_from(yaml.safe_load(yaml.safe_dump(fitted.content)))
    assert again.specifications[1].rule.bounds is not None
    findings = validate(again, second)
    assert findings[-1].specification.name == "all of one output together"
    assert all(f.lower > 0.97 for f in findings)
    value = first.x.double().flatten(1).mean(1)
    bound, ordered = fitted.content["checks"][0]["at_least"], value.sort().values
    assert bound == pytest.approx(
        float(1.15 * ordered[1] - 0.15 * value.median()), rel=1e-3
    )  # 2 of 1,000 may lie beyond
