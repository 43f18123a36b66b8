"""Restoring leaves a model as it was: the same handle serves one task after another."""

import hashlib

import pytest
import torch
from matrix.families import SHAPES, TINY, Tiny

from oneprior.core import Rows
from oneprior.tasks import restore, simulate

TASKS = ["downsample:2", "mask:left", "mri:random:2:seed=1"]
KINDS = ["ppca", "vae", "gan", "vqvae", "diffusion"]
FIRST = [[t for t in TINY if t.family == kind][-1 if kind == "diffusion" else 0] for kind in KINDS]  # the small nets


def fingerprint(model):
    """A hash of every weight and buffer, by name, type and bytes."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("tiny", FIRST, ids=lambda t: t.family)
def test_super_resolution_inpainting_and_mri_with_one_handle(tiny: Tiny):
    model = tiny.build(SHAPES[2])
    prior, before = model.prior(), fingerprint(model)
    asked = [p.requires_grad for p in model.parameters()]
    training = [m.training for m in model.modules()]
    x = prior.sample(Rows(2, seed=1))
    found = [
        restore(prior, simulate(x, words, "10%", Rows(2, seed=2)), samples=2, aim="fast").draws for words in TASKS
    ]  # fmt: skip
    assert all(bool(torch.isfinite(draws).all()) for draws in found)
    assert fingerprint(model) == before
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == asked
    assert [m.training for m in model.modules()] == training
    again = restore(prior, simulate(x, TASKS[0], "10%", Rows(2, seed=2)), samples=2, aim="fast").draws
    assert torch.equal(again, found[0])  # nor does the handle remember


def test_the_fingerprint_sees_one_bit():
    model = FIRST[1].build(SHAPES[2])
    before = fingerprint(model)
    with torch.no_grad():
        weight = next(model.parameters())
        weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))
    assert fingerprint(model) != before
