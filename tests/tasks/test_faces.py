"""Faces that no prior has seen: scikit-image's 100 faces of 25 x 25, which come with it and need no network."""

from pathlib import Path

import pytest
import skimage.data
import torch

from oneprior.core import Rows
from oneprior.data import array_dataset
from oneprior.evaluation import psnr
from oneprior.models.configs.ppca import PPCAConfig
from oneprior.models.ppca import PPCA
from oneprior.tasks import restore, simulate
from oneprior.training import TrainConfig, fit

HELD_OUT = 20


@pytest.fixture(scope="module")
def faces():
    assert (Path(skimage.data.__file__).parent / "lfw_subset.npy").exists()  # nothing is downloaded
    return torch.from_numpy(skimage.data.lfw_subset()[:100, None]).float() * 2 - 1


@pytest.fixture(scope="module", params=[1, 2], ids=["ppca", "mixture"])
def prior(faces, request):
    model = PPCA(PPCAConfig(components=request.param, rank=24, passes=5), faces.shape[1:])
    for _ in fit(model, array_dataset(faces[HELD_OUT:]), TrainConfig()):
        pass
    return model.prior()


@pytest.mark.parametrize("words", ["mask:random:0.7:seed=0", "downsample:5", "mask:left"])
def test_held_out_faces_come_back_better_than_from_the_mean_face(faces, prior, words):
    """The exact posterior is nearer to the face than the mean of all others is, by two standard errors."""
    x = faces[:HELD_OUT]
    given = simulate(x, words, 0.1, Rows(HELD_OUT, seed=1))
    found = restore(prior, given, samples=19, seed=2)
    assert found.method == "closed form"
    mean = faces[HELD_OUT:].mean(0, keepdim=True).expand_as(x)
    gain = psnr(found.mean, x) - psnr(mean, x)
    assert float(gain.mean()) > 2 * float(gain.std() / HELD_OUT**0.5) > 0


def test_so_few_faces_make_a_prior_that_is_too_sure(faces):
    """Of half a face the other half is stated far more sharply than it is known: 80 faces are no prior of faces."""
    model = PPCA(PPCAConfig(), faces.shape[1:])
    for _ in fit(model, array_dataset(faces[HELD_OUT:]), TrainConfig()):
        pass
    x = faces[:HELD_OUT]
    found = restore(model.prior(), simulate(x, "mask:left", 0.1, Rows(HELD_OUT, seed=1)), samples=19, seed=2)
    assert float((found.std / (found.mean - x).square().mean().sqrt()).mean()) < 0.75
