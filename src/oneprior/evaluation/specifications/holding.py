"""A generator held to a specification: by drawing again, or by a posterior.

By rejection the law becomes p(x | the rules hold) exactly, at a cost of 1 / P(they hold) draws each, which is reported.
A rule with a gradient can instead be a factor of the posterior, L(x) = exp(min(margin(x), 0) / temperature), and any
sampler of `oneprior.inference` serves: outputs that keep the rule are as likely as before, and those that break it the
less, the further. As the temperature falls this becomes the law of rejection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from oneprior.core import InputError
from oneprior.evaluation.specifications.outputs import Outputs
from oneprior.evaluation.specifications.rules import Rule
from oneprior.evaluation.specifications.suite import Specification, Suite
from oneprior.likelihoods.reward import Reward


@dataclass(frozen=True)
class Held:
    """Outputs that keep all rules of single outputs.

    Args:
        outputs: with the row numbers that make them again.
        drawn: how many were drawn for them.
    """

    outputs: Outputs
    drawn: int

    @property
    def cost(self) -> float:
        """Draws for each output that was kept."""
        return self.drawn / max(len(self.outputs), 1)


def hold(generate: Callable[[Tensor], Outputs], suite: Suite, n: int, *, batch: int = 64, most: float = 50.0) -> Held:
    """Draw until n outputs keep the rules.

    Args:
        generate: row numbers, (b,) int64 -> outputs of these rows, in their order.
        suite: its rules of samples and of what was asked; those of pairs and sets are not looked at.
        n: how many to keep.
        batch: drawn at once.
        most: draws for each wanted output after which it gives up.

    Raises:
        InputError: where `most` draws a wanted output are not enough; says how many passed.
    """
    if n < 1 or batch < 1:
        raise InputError(f"hold needs n >= 1 and batch >= 1, got {n} and {batch}")
    kept: list[Outputs] = []
    have = drawn = 0
    while have < n:
        if drawn >= most * n:
            raise InputError(
                f"{have} of {drawn} draws keep the specification, and {n} were wanted at most {most:g} draws each: "
                "loosen the specification, take a better prior, or a Reward factor in its posterior"
            )
        rows = torch.arange(drawn, drawn + batch)
        outputs = replace(generate(rows), index=rows)
        good = (suite.margins(outputs) >= 0).all(0).nonzero()[:, 0].to(outputs.x.device)
        kept.append(outputs.take(good))
        have += len(good)
        drawn += batch
    outputs = _joined(kept).take(torch.arange(n))
    return Held(outputs, int(outputs.rows[-1]) + 1)


def as_reward(
    rule: Rule | Specification,
    temperature: float = 0.1,
    *,
    like: Outputs | None = None,
    condition: Mapping[str, Tensor] | None = None,
) -> Reward:
    """A rule with a gradient as a factor of a posterior, log L(x) = min(margin(x), 0) / temperature.

    Args:
        rule: of single outputs, whose measures are all differentiable.
        temperature: in margins: at one temperature beyond the bound an output is e times less likely.
        like: units and judges of the outputs.
        condition: what is asked of every row, first axis 1 or n.

    Raises:
        InputError: for a rule of pairs or sets, or a measure without a gradient.
    """
    rule = rule.rule if isinstance(rule, Specification) else rule
    blunt = [bound.words for bound in rule.bounds() if not bound.differentiable]
    if blunt or rule.scope not in ("sample", "conditional"):
        raise InputError(
            f"{', '.join(blunt) or rule.scope} has no gradient for single outputs: hold the generator by rejection"
        )

    def fn(x: Tensor) -> Tensor:
        told = {k: v.expand(len(x), *v.shape[1:]) if len(v) == 1 else v for k, v in (condition or {}).items()}
        base = Outputs(x, told) if like is None else replace(like, x=x, condition=told, index=None, group=None)
        return rule.margin(base).clamp_max(0).to(x.dtype)

    return Reward(fn, temperature)


def _joined(parts: list[Outputs]) -> Outputs:
    first = parts[0]
    return replace(
        first,
        x=torch.cat([p.x for p in parts]),
        condition={name: torch.cat([p.condition[name] for p in parts]) for name in first.condition},
        index=torch.cat([p.rows for p in parts]),
        group=None,
    )
