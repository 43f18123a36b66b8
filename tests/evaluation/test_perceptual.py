"""The perceptual distance against plain loops, in two and three dimensions."""

import numpy as np
import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import Classifier
from oneprior.evaluation.embed import own_features, pixel_features
from oneprior.evaluation.perceptual import PerceptualTerm, open_perceptual, perceptual_distance


def network(shape):
    return own_features(Classifier(shape, 3, Rows(1, seed=1), width=8))


def pairs(shape, seed=2):
    x = Rows(3, seed=seed).uniform(*shape) * 2 - 1
    return x, x + 0.1 * Rows(3, seed=seed + 1).normal(*shape)


def by_loops(x, y, features):
    found = []
    for a, b in zip(x, y, strict=True):
        stages = []
        for p, q in zip(features.stages(a[None]), features.stages(b[None]), strict=True):
            p, q = p[0].detach().numpy().astype(float), q[0].detach().numpy().astype(float)
            places = [
                ((p[:, *at] / np.linalg.norm(p[:, *at]) - q[:, *at] / np.linalg.norm(q[:, *at])) ** 2).sum()
                for at in np.ndindex(*p.shape[1:])
            ]
            stages.append(np.mean(places))
        found.append(np.mean(stages))
    return torch.tensor(found)


@pytest.mark.parametrize("shape", [(1, 12, 10), (2, 8, 6, 7), (1, 20)])
def test_it_is_the_plain_loop(shape):
    features, (x, y) = network(shape), pairs(shape)
    found = perceptual_distance(x, y, features, batch=2)
    assert found.dtype == torch.float64
    assert torch.allclose(found, by_loops(x, y, features), rtol=1e-5)


def test_it_is_a_distance_of_rows():
    features, (x, y) = network((1, 12, 10)), pairs((1, 12, 10))
    found = perceptual_distance(x, y, features)
    assert torch.equal(perceptual_distance(x, x, features), torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(perceptual_distance(y, x, features), found)
    assert torch.allclose(perceptual_distance(x[1:2], y[1:2], features), found[1:2], rtol=1e-5)
    far = perceptual_distance(x, x + 4 * (y - x), features)
    assert bool((far > found).all())
    assert bool((far <= 4).all())
    assert perceptual_distance(x[:0], y[:0], features).shape == (0,)


def test_channels_that_are_all_off_count_nothing():
    features = network((1, 12, 10))
    zero = torch.zeros(1, 1, 12, 10)
    assert torch.isfinite(perceptual_distance(zero, zero, features)).all()


def test_bad_input():
    features, (x, y) = network((1, 12, 10)), pairs((1, 12, 10))
    with pytest.raises(ShapeError, match="Give pairs"):
        perceptual_distance(x, y[:2], features)
    with pytest.raises(InputError, match="pixels have no stages"):
        perceptual_distance(x, y, pixel_features(x))
    with pytest.raises(InputError, match="nan or infinity"):
        perceptual_distance(x, torch.full_like(y, float("nan")), features)


def test_a_term_of_an_objective_is_the_distance_with_a_gradient(tmp_path):
    features, (x, y) = network((1, 12, 12)), pairs((1, 12, 12))
    Classifier((1, 12, 12), 3, Rows(1, seed=1), width=8).save(tmp_path / "own.safetensors")
    term = open_perceptual(f"own:{tmp_path / 'own.safetensors'}", torch.Size((1, 12, 12)))
    assert term.name == features.name
    assert torch.allclose(term(x, y).double(), perceptual_distance(x, y, features), rtol=1e-4)
    moved = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(term(moved, y).sum(), moved)
    step = 1e-2 * slope / slope.norm()
    assert float((term(x - step, y) - term(x, y)).sum()) < 0
    small = torch.nn.functional.avg_pool2d(x, 2)  # what a camera of half the size measured
    assert term(small, torch.nn.functional.avg_pool2d(y, 2)).shape == (3,)


def test_a_term_of_the_user_gives_a_number_a_pair():
    with pytest.raises(ShapeError, match="One number for each pair"):
        PerceptualTerm("mine", lambda a, b: (a - b).square().mean())(*pairs((1, 4, 4)))
    with pytest.raises(InputError, match="have no stages"):
        open_perceptual("pixels", torch.Size((1, 4, 4)))
