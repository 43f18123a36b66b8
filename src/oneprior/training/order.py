"""In which order the data come, and fetching them ahead of time.

Every epoch is a permutation of its own, sorted out of counter-based random bits, so that the image at global position
p is a function of (seed, p) alone: no state to save, the same on one process or many, and on any machine. A process
takes a contiguous share of each global batch. One thread reads the next batches while the present one is worked on.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b

import torch
from torch import Tensor

from oneprior.core import Rows
from oneprior.data.batch import Batch, Dataset

_TRIALS, _QUICK = 3, 2e-3  # batches that are timed, seconds


class DataOrder:
    """position in the endless stream of epochs -> number of the image.

    Args:
        n: images in the set.
        seed: of the permutations.
        stream: a name; other names give other orders.
    """

    def __init__(self, n: int, seed: int, stream: str = "order") -> None:
        self.n, self.seed, self.stream = n, seed, stream
        self._epochs: dict[int, Tensor] = {}

    def epoch(self, number: int) -> Tensor:
        """The permutation of one epoch, (n,) int64."""
        if number not in self._epochs:
            rows = Rows(-(-self.n // 4), seed=self.seed, stream=f"{self.stream}/{number}")
            order = rows.bits(4).flatten()[: self.n].argsort(stable=True)
            self._epochs = {k: v for k, v in self._epochs.items() if k == number - 1} | {number: order}
        return self._epochs[number]

    def __call__(self, start: int, count: int) -> Tensor:
        """The images at positions start .. start + count - 1, (count,) int64."""
        pieces, stop = [], start + count
        while start < stop:
            number, offset = divmod(start, self.n)
            piece = self.epoch(number)[offset : offset + stop - start]
            pieces.append(piece)
            start += len(piece)
        return torch.cat(pieces)


def fetched_ahead(data: Dataset, indices: Iterable[Tensor], depth: int = 2, pin: bool = False) -> Iterator[Batch]:
    """The batches of these indices, in order, `depth` of them being read in a thread beforehand.

    Batches that come in under two milliseconds (arrays in memory) are read as they are needed: handing the interpreter
    from thread to thread would cost more.

    Args:
        data: where they come from.
        indices: one (n,) int64 tensor a batch; may be endless.
        depth: how many to read ahead.
        pin: page-locked memory, for copies to a GPU that do not block.
    """

    def fetch(index: Tensor) -> Batch:
        batch = data.batch(index)
        if not pin:
            return batch
        return replace(batch, x=batch.x.pin_memory())

    indices, quickest = iter(indices), float("inf")
    for index in itertools.islice(indices, _TRIALS):
        start = time.perf_counter()
        batch = fetch(index)
        quickest = min(quickest, time.perf_counter() - start)
        yield batch
    if quickest < _QUICK:
        yield from map(fetch, indices)
        return
    waiting: deque[Future[Batch]] = deque()
    reader = ThreadPoolExecutor(1, thread_name_prefix="oneprior-data")
    try:
        for index in indices:
            waiting.append(reader.submit(fetch, index))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        reader.shutdown(wait=True, cancel_futures=True)


@contextmanager
def seeded(*key: object, device: torch.device | str = "cpu") -> Iterator[None]:
    """torch's own generators (first weights, dropout) as a function of `key` inside; as they were, outside."""
    number = int.from_bytes(blake2b("/".join(map(str, key)).encode(), digest_size=7).digest(), "little")
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(number)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield


def part_of(batch: Batch, piece: slice, layout: Callable[[Tensor], Tensor]) -> Batch:
    """Some rows of a batch, x in the memory layout that `layout` gives it."""
    return replace(
        batch,
        x=layout(batch.x[piece]),
        condition={name: value[piece] for name, value in batch.condition.items()},
        present={name: value[piece] for name, value in batch.present.items()},
        index=None if batch.index is None else batch.index[piece],
        weight=None if batch.weight is None else batch.weight[piece],
    )


def passes_over(data: Dataset, batch_size: int, seed: int, device: torch.device) -> Callable[[], Iterator[Batch]]:
    """A function that starts a pass over the data, each in an order of its own."""
    started = 0

    def passes() -> Iterator[Batch]:
        nonlocal started
        order, started = DataOrder(len(data), seed, f"pass {started}").epoch(0), started + 1
        for batch in fetched_ahead(data, order.split(batch_size)):
            yield batch.to(device)

    return passes


def spread(data: Dataset, events: int) -> Tensor:
    """The rows of at most so many events of the data, evenly spread."""
    return torch.linspace(0, len(data) - 1, min(events, len(data))).round().long().unique()


def some_of(data: Dataset, events: int, device: torch.device | str = "cpu", batch_size: int = 64) -> Iterator[Batch]:
    """At most so many events of the data, evenly spread, in batches."""
    for part in spread(data, events).split(batch_size):
        yield data.batch(part).to(device)
