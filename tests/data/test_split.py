"""Splits: deterministic, disjoint, complete, and never through a subject or a file."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oneprior.core import InputError
from oneprior.data import array_dataset, digits, open_dataset, split


def numbers(n):
    return array_dataset(torch.arange(float(n)).reshape(n, 1, 1))


def rows(part):
    return part.units.to_units(part.batch(torch.arange(len(part))).x).flatten().round().int().tolist()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_a_split_is_a_partition_of_the_asked_size(n, share, seed):
    dataset = numbers(n)
    kept, out = split(dataset, share, seed=seed)
    assert sorted(rows(kept) + rows(out)) == list(range(n))
    assert len(out) == min(max(1, np.ceil(share * n - 1e-9)), n - 1)
    assert rows(split(dataset, share, seed=seed)[1]) == rows(out)
    assert len(split(dataset, 1, seed=seed)[1]) == 1


def test_seeds_differ_and_the_order_is_kept():
    dataset = numbers(100)
    parts = [rows(split(dataset, 20, seed=s)[1]) for s in range(3)]
    assert parts[0] != parts[1] != parts[2]
    assert all(part == sorted(part) and len(part) == 20 for part in parts)


def test_slices_of_a_volume_stay_together(tmp_path):
    np.save(tmp_path / "v.npy", np.random.default_rng(0).integers(0, 255, (8, 5, 6, 7), dtype=np.uint8))
    dataset = open_dataset(tmp_path / "v.npy", slices=0)
    kept, out = split(dataset, 0.25)
    assert len(out) == 10
    assert not set(kept.groups.tolist()) & set(out.groups.tolist())


def test_subjects_stay_together_and_survive_new_files(tmp_path):
    def add(subject):
        for visit in range(3):
            picture = np.random.default_rng(subject).integers(0, 255, (4, 4), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / f"sub-{subject:02d}_visit{visit}.png")

    for subject in range(12):
        add(subject)
    kept, out = split(open_dataset(tmp_path), 0.25, by="subject", subject=r"sub-(\d+)")
    sides = [{name[:6] for name in part.names} for part in (kept, out)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 3
    same = split(open_dataset(tmp_path), 0.25, by="subject", subject=lambda name: name[4:6])
    assert list(same[1].names) == list(out.names)
    for subject in range(12, 16):
        add(subject)
    grown = {name[:6] for name in split(open_dataset(tmp_path), 0.25, by="subject", subject=r"sub-(\d+)")[1].names}
    assert len(grown & sides[1]) >= 2  # nearly all of those held out before
    with pytest.raises(InputError, match=r"does not match the file name 'sub-00"):
        split(open_dataset(tmp_path), 0.25, by="subject", subject=r"patient(\d+)")
    with pytest.raises(InputError, match="regular expression"):
        split(open_dataset(tmp_path), 0.25, by="subject", subject=r"(")
    with pytest.raises(InputError, match="one subject"):
        split(open_dataset(tmp_path), 0.25, by="subject", subject="sub")


def test_labels_and_units_go_along_and_parts_of_parts():
    dataset = digits()
    kept, out = split(dataset, 200)
    again, rest = split(kept, 0.5)
    assert len(out) == 200
    assert len(again) + len(rest) == 1597
    assert rest.conditions == dataset.conditions
    batch = rest.batch(torch.tensor([0, 5]))
    parent = dataset.batch(rest.index[[0, 5]])
    assert torch.equal(batch.x, parent.x)
    assert torch.equal(batch.condition["label"], parent.condition["label"])
    assert batch.index.tolist() == [0, 5]


def test_impossible_amounts():
    for amount in (0, 1.0, 0.0, -1, 10, 1.5):
        with pytest.raises(InputError, match="held_out"):
            split(numbers(10), amount)
    with pytest.raises(InputError, match="no file names"):
        split(numbers(10), 2, by="subject", subject="a")
    with pytest.raises(InputError, match="by='subject'"):
        split(numbers(10), 2, subject="a")
