"""The laws themselves: a prior or operator that breaks one is caught, and told which."""

import pytest
import torch

from oneprior.core import Rows
from oneprior.laws import LawBroken, check_operator, check_prior
from oneprior.operators.base import LinearOperator
from oneprior.priors.base import NoisePrior, StandardNormal


class Scale(LinearOperator):
    in_shape = out_shape = torch.Size((1, 5))

    def __init__(self, factor=2.0, wrong=1.0, offset=0.0, batch_mean=False):
        super().__init__()
        self.factor, self.wrong, self.offset, self.batch_mean = factor, wrong, offset, batch_mean

    def apply(self, x):
        y = self.factor * x + self.offset
        return y - x.mean(0) if self.batch_mean else y

    def adjoint(self, y):
        return self.factor * self.wrong * y


@pytest.mark.parametrize(
    ("operator", "law"),
    [
        (Scale(wrong=1 + 1e-8), "A' y"),
        (Scale(offset=0.1), "A \\(?2|2 x - 3"),
        (Scale(batch_mean=True), "rows do not see"),
    ],
)
def test_a_broken_operator_is_caught(operator, law):
    with pytest.raises(LawBroken, match=law):
        check_operator(operator)


def test_a_good_operator_passes():
    check_operator(Scale())
    check_operator(Scale(), dtype=torch.float32)


class Decoder(NoisePrior):
    noise_shape = torch.Size((3,))
    event_shape = torch.Size((1, 4))

    def __init__(self, flaw=""):
        self.flaw = flaw

    def decode(self, u):
        x = (u @ torch.arange(12.0).reshape(3, 4).sin()).tanh()[:, None]
        if self.flaw == "batch":
            x = x - x.mean(0)
        if self.flaw == "gradient":
            x = x + 0.5 * x.detach().square()
        if self.flaw == "nan":
            x = x / 0
        return x

    def sample(self, rows):
        if self.flaw == "seedless":
            return self.decode(Rows(len(rows), seed=0).normal(3))
        if self.flaw == "order":
            return self.decode(Rows(len(rows), seed=rows.seed).normal(3))
        return super().sample(rows)


@pytest.mark.parametrize(
    ("flaw", "law"),
    [
        ("batch", "batch"),
        ("gradient", "finite differences"),
        ("nan", "finite"),
        ("seedless", "batch|two seeds"),
        ("order", "batch|order"),
    ],
)
def test_a_broken_prior_is_caught(flaw, law):
    with pytest.raises(LawBroken, match=law):
        check_prior(Decoder(flaw))


def test_good_priors_pass():
    check_prior(Decoder())
    check_prior(StandardNormal((2, 3)))
