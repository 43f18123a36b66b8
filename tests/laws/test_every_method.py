"""Laws that every method of inference must obey, whatever it approximates.

What a method is exempt from is said beside the law, with the reason.
"""

import pytest
import torch
from laws.methods import FAST, SCHEDULE, SHAPE, decoder, law, measured

from oneprior.core import AffineMap, DivergedError, Rows
from oneprior.priors.base import StandardNormal
from oneprior.priors.diffusion.schedule import DenoisingPrior
from oneprior.priors.mixture import ClosedFormDenoiser
from oneprior.priors.pushforward import Pushforward, push
from oneprior.tasks import restore
from oneprior.tasks.methods import METHODS

every = pytest.mark.parametrize("name", FAST)


def test_no_method_is_missing():
    assert {name.partition(":")[0] for name in FAST} == set(METHODS)
    for name, sampler in FAST.items():
        method = METHODS[name.partition(":")[0]]
        made = method.published() if name.endswith(":published") else method.default
        assert type(made) is type(sampler)


@every
def test_data_and_units_times_255_change_nothing(name):
    found = []
    for high in (1.0, 255.0):
        units = AffineMap.from_range(0.0, high)
        prior, given = measured(name, units=units)
        found.append(units.to_model(restore(prior, given, samples=4, method=FAST[name]).draws))
    assert (found[0] - found[1]).abs().max() < 2e-3


@every
def test_an_image_alone_or_in_a_batch_has_the_same_draws(name):
    prior, given = measured(name)
    rows, one = Rows(3, seed=1), slice(1, 2)
    together = restore(prior, given, samples=4, method=FAST[name], rows=rows)
    alone = restore(prior, given.take(one), samples=4, method=FAST[name], rows=rows.take(one))
    assert (together.draws[:, 1] - alone.draws[:, 0]).abs().max() < 1e-4
    assert together.draws.shape == (4, 3, *prior.event_shape)


# Where the network fails --------------------------------------------------------------------------------------------

CLOSED = ("closed-form", "unknown-level", "blind-gaussian")  # no network
CODES = ("enumeration", "gibbs", "informed", "annealed-codes", "lookahead-codes")


class Failing(DenoisingPrior):
    """A denoiser that gives NaN for row 1 of 3 from its third call on."""

    def __init__(self) -> None:
        self.inner, self.fail = ClosedFormDenoiser(law(), SCHEDULE), after(3)
        self.schedule, self.event_shape, self.moments = SCHEDULE, SHAPE, self.inner.moments

    def denoise(self, x_t, t):
        return self.fail(self.inner.denoise(x_t, t))


def after(call):
    """Makes rows 1, 4, 7, ... NaN from this call on."""
    count = 0

    def fail(x):
        nonlocal count
        count += 1
        bad = (torch.arange(len(x)) % 3 == 1) & (count >= call)
        return x + torch.where(bad, torch.nan, 0.0).reshape(-1, *[1] * (x.dim() - 1))

    return fail


@pytest.mark.parametrize("name", [name for name in FAST if name not in CLOSED])
def test_nan_in_the_network_stops_with_the_step(name):
    prior, given = measured(name)
    if isinstance(prior, DenoisingPrior):
        prior = Failing()
    else:
        fail = after(1 if name == "enumeration" else 2)
        if name in CODES:
            prior = Pushforward(prior.base, lambda event: fail(decoder(event)), SHAPE)
        else:
            prior = push(StandardNormal(law().noise_shape), lambda u: fail(law().decode(u)), SHAPE)
    with pytest.raises(DivergedError, match=r"rows \[1\].*step"):
        restore(prior, given, samples=4, method=FAST[name])


@pytest.mark.parametrize("name", ["hmc", "hmc:published", "elliptical-slice", "annealed-smc", "resampling", "blind"])
def test_a_network_that_fails_far_out_is_no_rejection(name):
    """NaN where the noise is large, in a part of the posterior: chains must not leave it out in silence."""
    _, given = measured(name, sigma=5.0)

    def broken(u):
        return law().decode(u) + torch.where(u[:, 0] > 1.0, torch.nan, 0.0).reshape(-1, 1, 1, 1)

    with pytest.raises(DivergedError, match="step"):
        restore(push(StandardNormal(law().noise_shape), broken, SHAPE), given, samples=40, method=FAST[name], seed=2)
