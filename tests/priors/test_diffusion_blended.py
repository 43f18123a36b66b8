"""A network and a closed law, blended by noise level."""

import pytest
import torch
from torch import nn

from oneprior.core import Rows, ShapeError
from oneprior.priors.diffusion.blended import Blended, blend
from oneprior.priors.diffusion.prior import DiffusionPrior
from oneprior.priors.diffusion.schedules import LinearSchedule
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.tiled import TiledDenoiser
from oneprior.priors.tiles import Tiles

SHAPE = torch.Size([1, 4, 5])
SCHEDULE = LinearSchedule()


def gaussian(mean: float = 0.0, noise: float = 0.05, seed: int = 0) -> LowRankGaussian:
    basis = torch.linalg.qr(torch.randn(20, 3, generator=torch.Generator().manual_seed(seed)))[0]
    return LowRankGaussian(torch.full(SHAPE, mean), basis, torch.tensor([2.0, 1.0, 0.5]), torch.tensor(noise))


class Exact(nn.Module):
    """The exact denoiser of a law as a network that predicts the event; off by `off` where noise is above a level."""

    def __init__(self, law: LowRankGaussian, off: float = 0.0, above: float = 1e9) -> None:
        super().__init__()
        self.law, self.off, self.above = law, off, above
        self.one = nn.Parameter(torch.zeros(()))

    def forward(self, x, index, given=None):
        t = index / 1000.0
        wrong = SCHEDULE.noise_level(t).reshape(-1, 1, 1, 1) > self.above
        return self.law.denoise(x, SCHEDULE.alpha(t), SCHEDULE.sigma(t)) + self.off * wrong


def network(law: LowRankGaussian, **wrong: float) -> DiffusionPrior:
    return DiffusionPrior(Exact(law, **wrong), SCHEDULE, SHAPE, parameterisation="x0")


def test_the_better_one_is_believed_level_by_level():
    truth, rows = gaussian(), Rows(400, seed=1)
    x = truth.sample(rows.stream("x"))
    found = blend(network(truth, off=3.0, above=0.7), gaussian(mean=2.0, seed=3), x, rows)
    assert float(found.weights[found.levels < 0.4].min()) > 0.97
    # above, the least error is between two wrong ones: the network's is 3 everywhere
    assert float(found.weights[found.levels > 1.0].max()) < 0.7
    better = blend(network(gaussian(mean=2.0, seed=3)), truth, x, rows)
    assert float(better.weights.max()) < 0.05


def test_the_weights_have_the_least_error_of_all():
    truth, rows, level = gaussian(), Rows(300, seed=2), 8
    x = truth.sample(rows.stream("x"))
    found = blend(network(gaussian(mean=0.4, seed=5)), gaussian(noise=0.5, seed=0), x, rows)
    t = SCHEDULE.time(found.levels[level].float())
    x_t = SCHEDULE.alpha(t) * x + SCHEDULE.sigma(t) * rows.stream("blend").normal(*SHAPE)

    def error(weight: float) -> float:
        one = Blended(found.network, found.law, found.levels, torch.full_like(found.weights, weight))
        return float((one.denoise(x_t, t) - x).square().mean())

    own = float(found.weights[level])
    assert 0.02 < own < 0.98
    assert error(own) < min(error(own - 0.02), error(own + 0.02), error(0.0), error(1.0))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_one_of_them_alone(weight):
    law, other = gaussian(), gaussian(mean=1.0, seed=7)
    both = Blended(network(other), law, torch.tensor([0.1, 10.0]), torch.full((2,), weight))
    rows = Rows(6, seed=3)
    x_t, t = rows.normal(*SHAPE), rows.stream("t").uniform(1)[:, 0] * 0.9 + 0.05
    alone = (other if weight else law).denoise(x_t, SCHEDULE.alpha(t), SCHEDULE.sigma(t))
    assert torch.allclose(both.denoise(x_t, t), alone, atol=5e-3)  # the network's clock is in single precision


def test_the_weight_is_linear_in_the_log_of_the_level_and_level_beyond_the_ends():
    both = Blended(network(gaussian()), gaussian(), torch.tensor([0.1, 1.0, 10.0]), torch.tensor([1.0, 0.5, 0.0]))
    at = SCHEDULE.time(torch.tensor([0.02, 0.1, 10**-0.5, 1.0, 10**0.5, 10.0, 50.0]))
    assert torch.allclose(both.weight(at), torch.tensor([1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]), atol=2e-3)
    assert both.weight(at[3]).shape == ()
    x_t, times = Rows(2, seed=4).normal(*SHAPE), at[1:3]
    each = torch.cat([both.denoise(x_t[k : k + 1], times[k]) for k in range(2)])
    assert torch.allclose(both.denoise(x_t, times), each, atol=1e-5)


def test_calls_are_the_networks_own_and_in_tiles_too():
    both = Blended(network(gaussian()), gaussian(), torch.tensor([0.1, 1.0]), torch.tensor([1.0, 0.5]))
    both.denoise(torch.zeros(3, *SHAPE), torch.tensor(0.5))
    assert (both.calls.batches, both.calls.rows) == (1, 3)
    tiled = TiledDenoiser(both, Tiles(torch.Size([1, 4, 8]), SHAPE))
    tiled.denoise(torch.zeros(2, 1, 4, 8), torch.tensor(0.5))
    assert tiled.calls is both.calls
    assert both.calls.rows == 3 + 2 * len(tiled.tiles)


def test_other_shapes_are_refused():
    other = LowRankGaussian(torch.zeros(1, 4, 4), torch.zeros(16, 0), torch.zeros(0), torch.tensor(1.0))
    levels = torch.tensor([0.1, 1.0])
    with pytest.raises(ShapeError, match="closed law"):
        Blended(network(gaussian()), other, levels, levels)
    with pytest.raises(ShapeError, match="weights of a blend"):
        Blended(network(gaussian()), gaussian(), levels, levels[:1])
