"""Rows: the same numbers in any batch, and numbers that are what they claim to be."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oneprior.core import InputError, Rows
from oneprior.core.rows import _normal_quantile, _philox, _tail_quantile


def test_philox_known_answers():
    """The vectors of the Random123 distribution (kat_vectors, philox4x32 10 rounds)."""

    def run(counter, key):
        words = _philox(tuple(torch.tensor(c) for c in counter), key)
        return [int(w) for w in words]

    assert run((0, 0, 0, 0), (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    assert run((ones,) * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert run((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)) == [
        0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(-(2**70), 2**70),
    index=st.lists(st.integers(0, 2**45), min_size=1, max_size=20),
    size=st.integers(1, 300),
)
def test_a_row_does_not_depend_on_its_batch(seed, index, size):
    together = Rows(index, seed)
    first, second = together.normal(size), together.uniform(size)
    for place in {0, len(index) // 2, len(index) - 1}:
        alone = Rows([index[place]], seed)
        assert torch.equal(alone.normal(size)[0], first[place])
        assert torch.equal(alone.uniform(size)[0], second[place])


def test_large_batches_and_chunk_borders_are_bit_equal():
    large = Rows(3000, seed=5).normal(784)
    assert torch.equal(Rows(range(1111, 1500), seed=5).normal(784), large[1111:1500])
    assert torch.equal(Rows([2999], seed=5).normal(28, 28)[0], large[2999].reshape(28, 28))


def test_draws_streams_and_calls_differ_and_repeat():
    rows = Rows(4, seed=0)
    a, b = rows.normal(8), rows.normal(8)
    assert not torch.equal(a, b)
    assert torch.equal(Rows(4, seed=0).normal(8), a)
    assert not torch.equal(Rows(4, seed=1).normal(8), a)
    assert not torch.equal(rows.stream("other").normal(8), a)
    few, many = Rows(4).repeat(3).normal(8).reshape(3, 4, 8), Rows(4).repeat(7).normal(8).reshape(7, 4, 8)
    assert torch.equal(few, many[:3])
    assert torch.equal(Rows(4).repeat(3).take(torch.tensor([5])).normal(8)[0], few[1, 1])
    assert torch.equal(Rows(9).repeat(3).normal(8).reshape(3, 9, 8)[:, :4], few)


def test_quantile_agrees_with_a_library():
    p = torch.cat(
        [
            torch.linspace(1e-9, 1 - 1e-9, 10001, dtype=torch.float64),
            torch.tensor([2**-33, 1 - 2**-33], dtype=torch.float64),
        ]
    )
    exact = torch.special.ndtri(p)
    assert torch.allclose(_normal_quantile(p), exact, rtol=1e-13, atol=1e-14)


def test_moments_and_independence():
    n = 400_000
    x = Rows(1000, seed=11).normal(n // 1000, dtype=torch.float64).flatten()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = math.sqrt(variance / n)
        assert abs(float((x**power).mean()) - moment) < 4 * error
    grid = x.reshape(1000, -1)
    across_rows = (grid[1:] * grid[:-1]).mean()
    across_positions = (grid[:, 1:] * grid[:, :-1]).mean()
    assert abs(float(across_rows)) < 4 / math.sqrt(n)
    assert abs(float(across_positions)) < 4 / math.sqrt(n)


def test_uniform_integers_and_categorical_follow_their_laws():
    rows = Rows(20_000, seed=2)
    counts = torch.bincount(rows.integers(7), minlength=7).double()
    assert float(((counts - 20_000 / 7) ** 2 / (20_000 / 7)).sum()) < 24.3  # chi-square, 6 df, p = 5e-4
    u = rows.uniform(3)
    assert u.min() > 0
    assert u.max() < 1
    p = torch.tensor([0.5, 0.0, 0.2, 0.3])
    draws = rows.categorical(p.log().expand(20_000, 4))
    counts = torch.bincount(draws, minlength=4).double()
    assert counts[1] == 0
    expected = p[[0, 2, 3]].double() * 20_000
    assert float(((counts[[0, 2, 3]] - expected) ** 2 / expected).sum()) < 15.2  # 2 df, p = 5e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_bits_on_a_gpu():
    cpu, gpu = Rows(64, seed=3).normal(784), Rows(64, seed=3, device="cuda").normal(784)
    assert torch.equal(cpu, gpu.cpu())


def test_mirrored_draws_are_turned_over_in_pairs_whatever_stands_beside_them():
    a, b, c = Rows(4, seed=2).repeat(3, mirrored=True).normal(9, dtype=torch.float64).reshape(3, 4, 9)
    assert torch.equal(b, -a)
    assert not torch.equal(c, a)
    plain = Rows(4, seed=2).repeat(2).normal(9, dtype=torch.float64).reshape(2, 4, 9)
    assert torch.equal(torch.stack([a, c]), plain)
    u = Rows(4, seed=2).stream("x").repeat(2, mirrored=True).uniform(9, dtype=torch.float64).reshape(2, 4, 9)
    assert torch.allclose(u.sum(0), torch.ones(4, 9).double(), atol=1e-12)
    alone = Rows([3], seed=2).repeat(2, mirrored=True).to("cpu").normal(9, dtype=torch.float64)
    assert torch.equal(alone[1], b[3])


def test_draws_are_not_repeated_again():
    rows = Rows(2).repeat(3)
    assert len(rows.repeat(1)) == 6
    with pytest.raises(InputError, match="draws of others already"):
        rows.repeat(2)


def test_the_tail_is_the_same_number_whether_it_is_picked_or_masked():
    p = (torch.arange(0, 2**32, 2**20 + 7, dtype=torch.float64) + 0.5) * 2.0**-32
    q = p - 0.5
    masked = torch.where(0.180625 - q * q < 0, _tail_quantile(p, q), _normal_quantile(p))
    assert torch.equal(masked, _normal_quantile(p))
