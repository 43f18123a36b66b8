"""The order of the data, reading ahead, and generators that are left as they were."""

import threading
import time

import pytest
import torch
from training.toys import Blobs

from oneprior.data.batch import Batch
from oneprior.training.order import DataOrder, fetched_ahead, passes_over, seeded


@pytest.mark.parametrize("n", [1, 5, 64, 101])
def test_every_epoch_is_a_permutation_of_its_own(n):
    order = DataOrder(n, seed=3)
    stream = order(0, 4 * n).reshape(4, n)
    assert all(torch.equal(epoch.sort().values, torch.arange(n)) for epoch in stream)
    if n > 5:
        assert not torch.equal(stream[0], stream[1])
        assert not torch.equal(order(0, n), DataOrder(n, seed=4)(0, n))


def test_any_piece_of_the_stream_is_a_function_of_its_place():
    whole = DataOrder(17, seed=0)(0, 100)
    order = DataOrder(17, seed=0)
    pieces = {start: order(start, 10) for start in (90, 30, 0, 60)}
    for start, piece in pieces.items():
        assert torch.equal(piece, whole[start : start + 10])


def test_positions_are_uniform_over_the_data():
    """The first place of 2,000 epochs of 8: a chi-square with 7 degrees of freedom lies under 24.3 (p = .001)."""
    first = torch.tensor([int(DataOrder(8, seed=seed)(0, 1)) for seed in range(2000)])
    counts = first.bincount(minlength=8).double()
    assert float(((counts - 250) ** 2 / 250).sum()) < 24.3


def test_batches_come_in_order_and_ahead_of_time():
    data = Blobs(40)
    asked = []

    class Watched(Blobs):
        def batch(self, index):
            asked.append((threading.current_thread().name.startswith("oneprior-data"), index[0].item()))
            time.sleep(0.005)
            return super().batch(index)

    batches = fetched_ahead(Watched(40), torch.arange(40).split(4), depth=2)
    first = torch.cat([next(batches).x for _ in range(4)])  # three are timed, the fourth comes with two more
    time.sleep(0.2)
    assert asked == [(False, 0), (False, 4), (False, 8), (True, 12), (True, 16), (True, 20)]
    assert torch.equal(first, data.batch(torch.arange(16)).x)
    rest = torch.cat([batch.x for batch in batches])
    assert torch.equal(rest, data.batch(torch.arange(16, 40)).x)


def test_quick_batches_are_read_by_the_caller():
    asked = []

    class Watched(Blobs):
        def batch(self, index):
            asked.append(threading.current_thread() is threading.main_thread())
            return Batch(torch.zeros(len(index), 1, 4, 4))

    list(fetched_ahead(Watched(40), torch.arange(40).split(4)))
    assert asked == [True] * 10


def test_an_error_of_the_data_reaches_the_caller():
    class Broken(Blobs):
        def batch(self, index):
            raise OSError("scan.nii is cut short")

    with pytest.raises(OSError, match="cut short"):
        next(fetched_ahead(Broken(), torch.arange(8).split(4)))


def test_passes_see_everything_in_two_orders():
    passes = passes_over(Blobs(10), 4, 0, torch.device("cpu"))
    one, two = (torch.cat([b.index for b in passes()]) for _ in range(2))
    assert torch.equal(one.sort().values, torch.arange(10))
    assert torch.equal(two.sort().values, torch.arange(10))
    assert not torch.equal(one, two)


def test_seeded_is_a_function_of_its_key_and_leaves_the_generator_alone():
    before = torch.random.get_rng_state()
    with seeded(0, "init"):
        a = torch.rand(3)
    with seeded(0, "init"):
        b = torch.rand(3)
    with seeded(1, "init"):
        c = torch.rand(3)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())
