"""The codebook: nearest codes, running means in closed form, restarts, and the same on two processes as on one."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from oneprior.core import InputError, Rows, ShapeError
from oneprior.nets.quantizer import Quantizer


def _latents(n=6, d=3, *grid, seed=0):
    return torch.randn(n, d, *(grid or (4, 4)), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_the_nearest_code_by_brute_force():
    q, z = Quantizer(11, 3).eval(), _latents()
    out = q(z)
    flat = z.movedim(1, -1)
    distance = (flat[..., None, :] - q.codebook).square().sum(-1)
    assert torch.equal(out.codes, distance.argmin(-1))
    torch.testing.assert_close(out.z, q.codebook[distance.argmin(-1)].movedim(-1, 1))
    torch.testing.assert_close(out.commitment, distance.amin(-1).flatten(1).mean(1) / 3)


@torch.no_grad()
def test_half_precision_around_it_changes_no_code():
    q, z = Quantizer(64, 3).eval(), _latents(20)
    with torch.autocast("cpu", torch.bfloat16):
        inside = q(z).codes
    assert torch.equal(inside, q(z).codes)


@torch.no_grad()
def test_one_hot_mixtures_are_lookups():
    q, codes = Quantizer(5, 3), torch.randint(5, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    onehot = torch.nn.functional.one_hot(codes, 5).movedim(-1, 1).float()
    torch.testing.assert_close(q.mix(onehot), q.lookup(codes))


def test_the_gradient_goes_straight_through():
    q, z = Quantizer(5, 3).eval(), _latents().requires_grad_()
    (gradient,) = torch.autograd.grad((q(z).z * 2).sum(), z)
    assert torch.equal(gradient, torch.full_like(z, 2.0))


@torch.no_grad()
def test_one_step_of_the_running_means_in_closed_form():
    q = Quantizer(4, 2, decay=0.9, dead=0.0)
    book = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    q.adopt(book)
    z = torch.tensor([[0.1, 0.2], [0.2, -0.1], [0.9, 0.1]]).reshape(3, 2, 1)
    out = q(z, Rows(3))
    assert out.codes.flatten().tolist() == [0, 0, 1]
    counts = 0.9 * torch.ones(4) + 0.1 * torch.tensor([2.0, 1.0, 0.0, 0.0])
    sums = 0.9 * book + 0.1 * torch.tensor([[0.3, 0.1], [0.9, 0.1], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(q.codebook, sums / counts[:, None])
    assert float(out.perplexity) == pytest.approx(3 / 2 ** (2 / 3), rel=1e-5)  # exp of the entropy of (2/3, 1/3)


@torch.no_grad()
def test_nothing_moves_without_rows_or_in_evaluation():
    q = Quantizer(5, 3)
    before = q.codebook.clone()
    q(_latents())
    q.eval()(_latents(), Rows(6))
    assert torch.equal(q.codebook, before)


@torch.no_grad()
def test_dead_codes_are_restarted_at_vectors_of_the_batch():
    q = Quantizer(8, 2, decay=0.5, dead=0.1, lloyd=0)
    q.adopt(torch.cat([torch.zeros(1, 2), torch.full((7, 2), 50.0) + torch.arange(7.0)[:, None]]))
    z = _latents(16, 2, 4)
    used = []
    for step in range(12):
        used.append(float(q(z, Rows(16, seed=step)).perplexity))
    assert used[0] == pytest.approx(1.0)
    assert used[-1] > 6.0
    assert float(q.usage()) == 1.0
    assert float(q.codebook.abs().max()) < 4.0


@torch.no_grad()
def test_no_code_is_put_elsewhere_where_a_law_of_codes_is_learned():
    q = Quantizer(8, 2, decay=0.5, dead=0.1, lloyd=0)
    q.adopt(torch.cat([torch.zeros(1, 2), torch.full((7, 2), 50.0) + torch.arange(7.0)[:, None]]))
    z = _latents(16, 2, 4)
    for step in range(12):
        q(z, Rows(16, seed=step), restarts=False)
    assert len(q.nearest(z.movedim(1, -1).reshape(-1, 2)).unique()) == 1
    assert float(q.codebook[0].abs().max()) > 0.01  # it follows all the same


@torch.no_grad()
def test_where_there_are_more_codes_than_vectors_they_settle():
    """Restarted anywhere, codes would take each other's places for ever."""
    centres = 10 * _latents(12, 9, 1, seed=3)
    q = Quantizer(64, 9, decay=0.9, dead=0.1)
    found = []
    for step in range(200):
        rows = Rows(24, seed=step)
        drawn = rows.stream("which").bits(1)[:, 0] % 12
        q(centres[drawn], rows)
        found.append(q.nearest(centres[:, :, 0]))
    assert all(torch.equal(found[-1], one) for one in found[-40:])
    assert len(found[-1].unique()) == 12
    assert float((q.codebook[found[-1]] - centres[:, :, 0]).abs().max()) < 1e-3


@torch.no_grad()
def test_the_first_batch_starts_the_codes_near_the_data():
    q = Quantizer(16, 2)
    centres = 10 * _latents(4, 2, 1, seed=3)
    z = centres.repeat(16, 1, 1) + 0.01 * _latents(64, 2, 1)
    assert float(q(z, Rows(64)).commitment.max()) < 0.01


def test_errors_say_what_is_needed():
    with pytest.raises(InputError, match="codes >= 2"):
        Quantizer(1, 3)
    with pytest.raises(ShapeError, match=r"needed \(n, 3, \*grid\)"):
        Quantizer(4, 3)(_latents(2, 5))


def _train(z, index):
    """Four steps on given shares of the batches; the codebook at the end."""
    q = Quantizer(12, 3, decay=0.7, dead=0.2, lloyd=2)
    with torch.no_grad():
        perplexity = [q(z[step], Rows(index + 100 * step, seed=5)).perplexity for step in range(4)]
    return q.codebook, q.counts, torch.stack(perplexity)


def _batches():
    return [(1 + step) * _latents(8, 3, 2, seed=step) for step in range(4)]


def _process(rank, file, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    share = slice(4 * rank, 4 * rank + 4)
    book, counts, perplexity = _train([z[share] for z in _batches()], torch.arange(8)[share])
    results[rank] = (book.tolist(), counts.tolist(), perplexity.tolist())
    dist.destroy_process_group()


def test_two_processes_keep_the_codebook_of_one(tmp_path):
    book, counts, perplexity = _train(_batches(), torch.arange(8))
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_process, (str(tmp_path / "meet"), results), nprocs=2)
        both = [tuple(torch.tensor(part) for part in results[rank]) for rank in range(2)]
    for a, b in zip(*both, strict=True):
        assert torch.equal(a, b)
    for got, want in zip(both[0], (book, counts, perplexity), strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
