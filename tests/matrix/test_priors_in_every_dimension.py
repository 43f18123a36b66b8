"""Every family, in every dimension it serves: finite losses, gradients for every player, and a lawful prior."""

import pytest
import torch

from matrix.families import SHAPES, Tiny, batch_of, cases
from oneprior.core import ConditionSpec, Rows
from oneprior.laws import check_prior
from oneprior.models.base import ClosedFormModel

LABEL = ConditionSpec("label", "class", classes=3, names=("a", "b", "c"))
CASES = list(cases())
NAMES = [f"{tiny.name}-{dimension}d" for tiny, dimension in CASES]


@pytest.mark.parametrize(("tiny", "dimension"), CASES, ids=NAMES)
def test_losses_are_finite_and_every_player_learns(tiny: Tiny, dimension: int):
    model = tiny.build(SHAPES[dimension]).train()
    if isinstance(model, ClosedFormModel):
        return
    model.progress = 0.9
    batch = batch_of(SHAPES[dimension])
    for player, parameters in model.players.items():
        losses = model(batch, player, Rows(len(batch), seed=5))
        assert losses
        assert all(torch.isfinite(value) for value in losses.values()), losses
        total = sum(value for name, value in losses.items() if not name.startswith("metric/"))
        for p in parameters:
            p.grad = None
        total.backward()
        moved = [p for p in parameters if p.grad is not None and bool(p.grad.abs().sum() > 0)]
        assert moved, f"{player} has nothing to learn from"
        assert all(torch.isfinite(p.grad).all() for p in parameters if p.grad is not None)


@pytest.mark.parametrize(("tiny", "dimension"), CASES, ids=NAMES)
def test_the_prior_keeps_the_laws(tiny: Tiny, dimension: int):
    model = tiny.build(SHAPES[dimension])
    prior = model.prior()
    assert prior.event_shape == model.event_shape
    check_prior(prior)
    base = getattr(prior, "base", None)
    if base is not None:
        check_prior(base)


@pytest.mark.parametrize(("tiny", "dimension"), CASES, ids=NAMES)
def test_conditions_are_bound_in_the_prior(tiny: Tiny, dimension: int):
    model = tiny.build(SHAPES[dimension], (LABEL,))
    rows = [Rows(4, seed=1) for _ in range(3)]
    one = model.prior({"label": torch.tensor([2])}).sample(rows[0])
    each = model.prior({"label": torch.tensor([2, 2, 2, 2])}).sample(rows[1])
    assert torch.allclose(one, each, atol=1e-4)
    absent = model.prior().sample(rows[2])
    assert absent.shape == one.shape
    assert torch.isfinite(absent).all()


@pytest.mark.parametrize(("tiny", "dimension"), CASES, ids=NAMES)
def test_weights_and_buffers_are_everything(tiny: Tiny, dimension: int):
    model, twin = tiny.build(SHAPES[dimension]), tiny.build(SHAPES[dimension])
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1.0)
    twin.load_state_dict(model.state_dict())
    a, b = model.prior().sample(Rows(3, seed=2)), twin.prior().sample(Rows(3, seed=2))
    assert torch.equal(a, b)
