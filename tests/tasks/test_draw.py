"""Drawing in batches, walking between draws, finding the noise behind an event."""

import pytest
import torch

from oneprior.core import IncompatiblePrior, InputError, Rows
from oneprior.nets.codec import Codec
from oneprior.priors.base import StandardNormal
from oneprior.priors.diffusion.schedules import EDMSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import ClosedFormDenoiser, GaussianMixturePrior
from oneprior.priors.pushforward import push
from oneprior.tasks import encode, interpolate, synthesise, truncation_sheet

SHAPE = (1, 2, 3)


def law():
    basis = torch.linalg.qr(Rows(6).normal(2))[0]
    return LowRankGaussian(torch.zeros(SHAPE), basis, torch.tensor([1.0, 0.5]), 0.1)


def test_draws_do_not_depend_on_the_batch():
    whole = law().sample(Rows(10, seed=3))
    parts = list(synthesise(law(), Rows(10, seed=3), batch=4))
    assert [len(p) for p in parts] == [4, 4, 2]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
    with pytest.raises(InputError, match="bound when a prior is made"):
        next(synthesise(law(), Rows(2), steps=3))


def test_a_walk_stops_at_its_rows_and_keeps_the_norm():
    base = StandardNormal((500,))
    rows = Rows(3, seed=1)
    walk = interpolate(base, rows, steps=4)
    assert walk.shape == (9, 500)
    assert torch.allclose(walk[[0, 4, 8]], Rows(3, seed=1).normal(500), atol=1e-5)
    assert ((walk.norm(dim=1) / 500**0.5 - 1).abs() < 0.15).all()
    assert interpolate(ClosedFormDenoiser(law(), EDMSchedule()), Rows(2), 2).shape == (3, *SHAPE)
    with pytest.raises(InputError, match="at least 2 rows"):
        interpolate(base, Rows(1))
    with pytest.raises(IncompatiblePrior, match="no continuous noise"):
        interpolate(GaussianMixturePrior([law()], torch.ones(1)), Rows(2))


class Doubling(Codec):
    """z = 2 x."""

    latent_shape = torch.Size(SHAPE)

    def encode(self, x):
        return 2 * x

    def decode(self, z):
        return z / 2

    forward = decode


def test_encoding_is_undone_by_decoding():
    x = law().sample(Rows(3))
    assert torch.allclose(law().decode(encode(law(), x)), x, atol=1e-5)
    flow = ClosedFormDenoiser(law(), EDMSchedule(sigma_max=20))
    assert torch.allclose(flow.flow(64).decode(encode(flow, x)), x, atol=0.1)
    assert torch.equal(encode(push(law(), Doubling(), SHAPE), x), 2 * x)
    with pytest.raises(IncompatiblePrior, match="restore with the identity operator"):
        encode(GaussianMixturePrior([law()], torch.ones(1)), x)


def test_a_truncation_sheet_has_the_same_rows_at_each_value():
    sheet = truncation_sheet(lambda psi: push(law(), lambda x: psi * x, SHAPE), Rows(3), (0.0, 0.5, 1.0))
    assert sheet.shape == (3, 3, *SHAPE)
    assert torch.allclose(sheet[:, 1], 0.5 * sheet[:, 2])
    assert sheet[:, 0].abs().max() == 0
