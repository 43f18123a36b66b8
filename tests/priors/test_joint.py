"""The joint law of an image and its instrument."""

import torch

from oneprior.core import Rows
from oneprior.laws import check_prior
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.joint import joint


def test_the_joint_law_is_a_noise_prior_of_both():
    law = LowRankGaussian(torch.ones(2, 3), torch.eye(6)[:, :2], torch.tensor([1.0, 0.5]), 0.1)
    both = joint(law, (4,))
    check_prior(both)
    assert both.event_shape == (10,)
    assert both.noise_shape == (law.noise_shape[0] + 4,)
    u = Rows(5).normal(*both.noise_shape)
    x, theta = both.parts(both.decode(u))
    assert torch.equal(x, law.decode(u[:, :-4]))
    assert torch.equal(theta, u[:, -4:])
    many, _ = both.parts(torch.zeros(3, 5, 10))
    assert many.shape == (3, 5, 2, 3)
