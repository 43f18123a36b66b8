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
    """The exact posterior beats the mean face, and its own statement of its error is of the right size."""
    x = faces[:HELD_OUT]
    given = simulate(x, words, 0.1, Rows(HELD_OUT, seed=1))
    found = restore(prior, given, samples=19, seed=2)
    assert found.method == "closed form"
    mean = faces[HELD_OUT:].mean(0, keepdim=True).expand_as(x)
    gain = psnr(found.mean, x) - psnr(mean, x)
    assert float(gain.mean()) > 2 * float(gain.std() / HELD_OUT**0.5) > 0
    error = (found.mean - x).square().mean().sqrt()
    stated = found.std.square().mean().sqrt()
    assert 0.6 < float(stated / error) < 1.3
