"""Augmentation: identity at p = 0, exact blits, rigid rotations, colours, gradients, and the control of p."""

import math

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.nets.augment import STEPS, Augment, _shift_axis


def at(p, shape, steps=STEPS, **settings):
    augment = Augment(shape, steps, **settings)
    augment.p.fill_(p)
    return augment


@pytest.mark.parametrize("shape", [(1, 9), (3, 8, 8), (1, 6, 10), (1, 4, 5, 6)])
def test_shapes_identity_rows_and_gradients(shape):
    x = Rows(5).normal(*shape)
    assert torch.equal(at(0.0, shape)(x, Rows(5)), x)
    augment = at(0.7, shape)
    y = augment(x, Rows(5, seed=3))
    assert y.shape == x.shape
    assert not torch.allclose(y, x)
    torch.testing.assert_close(augment(x[3:4], Rows([3], seed=3)), y[3:4])
    # the transformations are affine in x: a finite difference is exact up to rounding
    x = x.double().requires_grad_()
    direction = Rows(5, seed=4).normal(*shape, dtype=torch.float64)
    weight = Rows(5, seed=5).normal(*shape, dtype=torch.float64)
    y = augment(x, Rows(5, seed=3))
    (g,) = torch.autograd.grad((y * weight).sum(), x)
    moved = augment(x + direction, Rows(5, seed=3))
    torch.testing.assert_close(((moved - y) * weight).sum(), (g * direction).sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8), (2, 8, 8), (1, 6, 10), (1, 4, 4, 4)])
def test_blit_moves_values_and_mixes_none(shape):
    x = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape).expand(40, *shape)
    y = at(1.0, shape, ("blit",))(x, Rows(40))
    values = set(x[0].flatten().tolist())
    assert all(set(row.flatten().tolist()) <= values for row in y)
    assert len({tuple(row.flatten().tolist()) for row in y}) > 5


def test_blit_of_a_square_is_a_symmetry_of_the_square_without_shifts():
    augment = at(1.0, (1, 3, 3), ("blit",))  # shifts of round(3 / 8) = 0 places: only the eight symmetries are left
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    n = 400
    y = augment(x.expand(n, 1, 3, 3), Rows(n))
    group = [f.rot90(k, (2, 3)) for k in range(4) for f in (x, x.flip(3))]
    counts = torch.tensor([sum(torch.equal(row[None], g) for row in y) for g in group])
    assert int(counts.sum()) == n
    assert float(((counts - n / 8) / math.sqrt(n / 8 * 7 / 8)).abs().max()) < 4


def test_blit_is_equivariant_to_what_it_is_made_of():
    """Augmenting a negated or scaled picture is the negated or scaled augmented picture, and channels move together."""
    augment = at(0.9, (2, 8, 8), ("blit",))
    x = Rows(6).normal(2, 8, 8)
    y = augment(x, Rows(6, seed=1))
    assert torch.equal(augment(-2 * x, Rows(6, seed=1)), -2 * y)
    assert torch.equal(augment(x.flip(1), Rows(6, seed=1)), y.flip(1))


def test_shift_reflects_at_the_edges():
    x = torch.tensor([[[1.0, 2.0, 3.0]]]).expand(3, 1, 3)
    y = _shift_axis(x, torch.tensor([0, 1, -2]), 2)
    assert y[:, 0].tolist() == [[1, 2, 3], [1, 1, 2], [3, 3, 2]]


def test_geometry_keeps_constants_and_straight_lines():
    n, side = 32, 33
    augment = at(1.0, (1, side, side), ("geometric",))
    ones = torch.ones(n, 1, side, side)
    torch.testing.assert_close(augment(ones, Rows(n)), ones)
    wide = torch.linspace(-1, 1, 2 * side)
    ramp = wide.expand(n, 1, side, 2 * side)
    warped = at(1.0, (1, side, 2 * side), ("geometric",))(ramp, Rows(n))
    assert float(warped.abs().max()) <= 1.0 + 1e-5
    # an affine map of a linear ramp is a linear ramp inside: second differences vanish where nothing is reflected
    second = warped[:, 0, 12:20, 28:38].diff(n=2, dim=2).abs().amax((1, 2))
    assert float(second.median()) < 1e-4


def test_colour_of_grey_and_of_rgb():
    x = Rows(500).normal(3, 2, 2)
    y = at(1.0, (3, 2, 2), ("colour",))(x, Rows(500, seed=1))
    # every colour transformation is one affine map for all pixels of a row; hue and saturation keep grey pixels grey
    grey = torch.linspace(-1, 1, 4).reshape(1, 1, 2, 2).expand(500, 3, 2, 2)
    out = at(1.0, (3, 2, 2), ("colour",))(grey, Rows(500, seed=1))
    torch.testing.assert_close(out[:, 0], out[:, 1], rtol=1e-4, atol=1e-5)
    one = at(1.0, (1, 2, 2), ("colour",))(grey[:, :1], Rows(500, seed=1))
    torch.testing.assert_close(out[:, :1], one, rtol=1e-4, atol=1e-5)
    # hue turns at constant distance from the grey axis, up to contrast and saturation alike for all pixels
    across_x, across_y = (t - t.mean(1, keepdim=True) for t in (x, y))
    ratio = (across_y.norm(dim=1) / across_x.norm(dim=1)).flatten(1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3, atol=1e-4)
    flipped = (one.flatten(1).diff(dim=1)[:, 0] < 0).float().mean()
    assert abs(float(flipped) - 0.5) < 4 * math.sqrt(0.25 / 500)


def test_noise_and_cutout():
    x = torch.ones(300, 1, 8, 8)
    y = at(1.0, (1, 8, 8), ("noise",))(x, Rows(300)) - x
    assert float(y.var()) == pytest.approx(0.01, rel=0.3)
    cut = at(1.0, (1, 8, 8), ("cutout",))(x, Rows(300))
    assert set(cut.unique().tolist()) == {0.0, 1.0}
    assert 4 / 64 < float((cut == 0).float().mean()) <= 16 / 64
    assert float((at(0.3, (1, 8, 8), ("cutout",))(x, Rows(300)) == x).all((1, 2, 3)).float().mean()) > 0.6


def test_each_transformation_is_applied_with_probability_p():
    n, p = 2000, 0.3
    x = Rows(n).normal(1, 8, 8)
    y = at(p, (1, 8, 8), ("colour",))(x, Rows(n, seed=1))
    untouched = float((y == x).flatten(1).all(1).float().mean())
    expected = (1 - p) ** 2 * (1 - p / 2)  # brightness, contrast, and inversion which half of the time does nothing
    assert abs(untouched - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_p_follows_the_sign_of_the_critic():
    augment = Augment((1, 8, 8), target=0.6, images=100)
    augment.adapt()
    assert float(augment.p) == 0.0  # nothing seen, nothing moved
    augment.observe(torch.ones(10))
    augment.adapt()
    assert float(augment.p) == pytest.approx(0.1)
    augment.observe(torch.ones(10))
    augment.observe(torch.ones(10))
    augment.adapt()
    assert float(augment.p) == pytest.approx(0.3)
    augment.observe(torch.tensor([1.0, -1.0] * 5))
    augment.adapt()
    assert float(augment.p) == pytest.approx(0.2)
    for _ in range(5):
        augment.observe(-torch.ones(10))
        augment.adapt()
    assert float(augment.p) == 0.0
    augment.observe(torch.ones(500))
    augment.adapt()
    assert float(augment.p) == 1.0


def test_p_travels_with_the_weights():
    augment = at(0.4, (1, 8, 8))
    other = Augment((1, 8, 8))
    other.load_state_dict(augment.state_dict())
    assert float(other.p) == pytest.approx(0.4)


def test_unknown_steps_are_refused():
    with pytest.raises(InputError, match="mirror.*choose from blit"):
        Augment((1, 8, 8), ("mirror",))


def _observe(process, file, result):
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=process, world_size=2)
    augment = Augment((1, 8, 8), target=0.6, images=100)
    augment.observe(torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0]][process]))
    augment.adapt()
    result[process] = float(augment.p)
    torch.distributed.destroy_process_group()


def test_the_statistic_is_that_of_the_global_batch(tmp_path):
    """Five signs of six are positive over two processes, r = 2/3 > 0.6: p rises by 6 images, on both alike."""
    context = torch.multiprocessing.get_context("spawn")
    result = context.Array("d", 2)
    jobs = [context.Process(target=_observe, args=(k, tmp_path / "meet", result)) for k in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert list(result) == pytest.approx([0.06, 0.06])
