"""Laws of noise as words: what parses, what does not, and that the words come back."""

import pytest
import torch

from oneprior.core import AffineMap, InputError
from oneprior.likelihoods import Noise, parse_noise_law
from oneprior.likelihoods.noise import (
    GaussianNoise,
    LaplaceNoise,
    OutlierNoise,
    PoissonNoise,
    RicianNoise,
    UnknownNoise,
)
from oneprior.likelihoods.noise_words import noise_grammar

GREY = AffineMap.from_range(0.0, 200.0)


@pytest.mark.parametrize(
    ("words", "law"),
    [
        ("0.05", GaussianNoise(0.05)),
        (0.05, GaussianNoise(0.05)),
        (0, GaussianNoise(0.0)),
        ("5%", GaussianNoise(10.0)),
        ("5 %", GaussianNoise(10.0)),
        ("gaussian:5%", GaussianNoise(10.0)),
        ("gaussian:0", GaussianNoise(0.0)),
        ("rician:5%", RicianNoise(10.0)),
        ("laplace:3", LaplaceNoise(3.0)),
        ("outliers:5%", OutlierNoise(10.0, 0.1, 100.0)),
        ("outliers:5%:share=2%:spread=300", OutlierNoise(10.0, 0.02, 300.0)),
        ("unknown", UnknownNoise(0.2, 200.0)),
        ("unknown:1%:20%", UnknownNoise(2.0, 40.0)),
        ("poisson", PoissonNoise(1.0, 0.0)),
        ("poisson:50", PoissonNoise(0.25, 0.0)),
        ("poisson:gain=2:black=-3", PoissonNoise(2.0, -3.0)),
    ],
)
def test_words_and_their_law(words, law):
    got = parse_noise_law(words, GREY)
    assert got == law
    assert parse_noise_law(got.spec, AffineMap()) == got  # the words need no range to come back
    assert parse_noise_law(got, GREY) is got
    assert got.exact == (got.noise_level == 0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("gausian:5%", "did you mean 'gaussian'"),
        ("five", "or a law; 'five'; there is gaussian, unknown"),
        ("rician", "needs its level, such as rician:5%"),
        ("rician:0", "level > 0"),
        ("rician:5%:6%", "takes 1 value"),
        ("rician:5%:share=1", "has no option 'share'; it has none"),
        ("outliers:5%:shar=0.1", "did you mean 'share'"),
        ("outliers:5%:share=2", "between 0 and 1"),
        ("outliers:60%", "wider than the noise"),
        ("outliers:5%:share=x", "share is a number"),
        ("unknown:5%", "the least and the largest level"),
        ("unknown:5%:1%", "0 < low < high"),
        ("poisson:-3", "counts > 0"),
        ("poisson:x", "is a number"),
        ("poisson:50:gain=2", "not both"),
        ("laplace:-5%", "noise is a standard deviation >= 0"),
        ("-1", "noise is a standard deviation >= 0"),
        ("", "noise is a number"),
        ([0.1, 0.2], "or a tensor, one level a row"),
        (None, "noise is a number"),
    ],
)
def test_bad_words_say_what_is_near(words, says):
    with pytest.raises(InputError, match=says):
        parse_noise_law(words, GREY)


def test_counts_need_a_range_that_begins_at_zero():
    with pytest.raises(InputError, match="poisson:PEAK"):
        parse_noise_law("poisson", AffineMap())
    assert parse_noise_law("poisson:50", AffineMap()) == PoissonNoise(25.0, -1.0)


def test_levels_by_row():
    law = parse_noise_law(torch.tensor([1.0, 2.0]), GREY)
    assert isinstance(law, GaussianNoise)
    assert float(law.take(slice(1, 2)).sigma) == 2.0
    assert not law.exact
    assert parse_noise_law(torch.tensor([1.0, 0.0]), GREY).exact


def test_the_examples_of_the_help_pages_parse():
    for entry in noise_grammar():
        for example in entry.examples:
            assert isinstance(parse_noise_law(example, GREY), Noise)
