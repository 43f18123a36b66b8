"""Memory is flat as a set grows, and a batch costs little more than its bytes."""

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from oneprior.data import open_dataset
from oneprior.data.cache import cache_path
from oneprior.data.files import FolderFiles, Names

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run(code, *arguments):
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    return float(out.stdout)


@LINUX
def test_two_hundred_thousand_rows_stay_within_bounds(tmp_path):
    """A pass in random order over 600 MB of rows raises the resident size by less than a quarter of that."""
    path = tmp_path / "big.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(200_000, 32, 32, 3))  # a sparse file
    grown = run(
        """
        import re, sys, torch
        from oneprior.data import open_dataset
        torch.set_num_threads(1)
        def resident():
            return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
        dataset = open_dataset(sys.argv[1])
        assert dataset.event_shape == (3, 32, 32) and len(dataset) == 200_000
        dataset.batch(torch.arange(64))
        before, peak = resident(), 0.0
        for index in torch.randperm(200_000, generator=torch.Generator().manual_seed(0)).split(512):
            dataset.batch(index)
            peak = max(peak, resident())
        print(peak - before)
        """,
        path,
    )
    assert grown < 150


def test_names_of_many_files_are_compact():
    names = Names.of(f"class_{i % 10}/picture_{i:06d}.png" for i in range(50_000))
    assert names[49_999] == "class_9/picture_049999.png"
    assert names[-1] == names[49_999]
    assert names[1:3] == ["class_1/picture_000001.png", "class_2/picture_000002.png"]
    assert len(names.blob) + names.ends.nbytes < 50_000 * 36
    with pytest.raises(IndexError):
        names[50_000]


def test_a_folder_is_listed_in_natural_order_without_hidden_files(tmp_path):
    for name in ("b10.png", "b2.png", ".hidden.png", "a/c.png", "__MACOSX/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    files = FolderFiles.scan(tmp_path)
    assert list(files.names) == ["a/c.png", "b2.png", "b10.png"]
    before = files.digest()
    (tmp_path / "b2.png").write_bytes(b"22")
    assert FolderFiles.scan(tmp_path).digest() != before


def test_a_mapped_batch_costs_about_as_much_as_one_from_memory(tmp_path):
    """Against the same gather, conversion and scaling in memory; medians, so a busy machine does no harm."""
    values = np.random.default_rng(0).integers(0, 256, (4096, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "x.npy", values)
    dataset = open_dataset(tmp_path / "x.npy")
    indices = [torch.randint(4096, (256,), generator=torch.Generator().manual_seed(k)) for k in range(60)]

    def mapped(index):
        return dataset.batch(index).x

    def plain(index):
        return torch.from_numpy(values[index.numpy()][:, None].astype(np.float32)).sub_(127.5).div_(127.5)

    seconds = {}
    for fetch in (mapped, plain):
        taken = []
        for index in indices:
            start = time.perf_counter()
            fetch(index)
            taken.append(time.perf_counter() - start)
        seconds[fetch] = np.median(taken)
    torch.testing.assert_close(mapped(indices[0]), plain(indices[0]))
    assert seconds[mapped] < 4 * seconds[plain]


def test_the_cache_drops_what_is_stale_and_what_was_left_half(tmp_path):
    source, folder = tmp_path / "x.npz", tmp_path / "cache"
    source.write_bytes(b"1")
    old = cache_path(source, "unpack", "stamp 1", ".npy", folder)
    old.write_bytes(b"old")
    half = [folder / f".{name}.tmp.{old.name}" for name in ("aa", "bb")]
    for path in half:
        path.write_bytes(b"half")
    os.utime(half[0], (0, 0))
    assert cache_path(source, "unpack", "stamp 1", ".npy", folder) == old
    other = cache_path(source, "another", "stamp 1", ".npy", folder)
    assert old.exists()
    new = cache_path(source, "unpack", "stamp 2", ".npy", folder)
    assert len({old, other, new}) == 3
    assert not old.exists()
    assert [path.exists() for path in half] == [False, True]
    assert (folder / ".gitignore").read_text() == "*\n"


def test_data_in_a_folder_that_cannot_be_written_are_cached_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data = tmp_path / "data"
    data.mkdir()
    np.savez_compressed(data / "x.npz", x=np.zeros((3, 8, 8), np.uint8))
    data.chmod(0o555)
    assert len(open_dataset(data / "x.npz")) == 3
    assert [p.name for p in data.iterdir()] == ["x.npz"]
    assert list((tmp_path / "home" / ".cache" / "oneprior").glob("x.npz-*.npy"))
    data.chmod(0o755)
