"""Copies are found, honest samples are not accused, and poor samples do not hide copies."""

import pytest
import torch

from oneprior.core import Rows, ShapeError
from oneprior.evaluation import memorisation, nearest


def events(n: int, seed: int) -> torch.Tensor:
    return Rows(n, seed=seed).normal(6, dtype=torch.float64)


def test_an_honest_generator_is_rarely_accused() -> None:
    found = [memorisation(events(300, 3 * s), events(400, 3 * s + 1), events(300, 3 * s + 2)) for s in range(40)]
    z = torch.tensor([m.z for m in found])
    assert abs(float(z.mean())) < 3 / 40**0.5
    assert 0.7 < float(z.std()) < 1.35
    assert sum(m.found for m in found) <= 1


def test_copies_among_poor_samples_are_found_in_the_tail() -> None:
    train, test = events(400, 1), events(300, 2)
    samples = torch.cat([5 * events(280, 3), train[:20] + 1e-3])
    found = memorisation(samples, train, test)
    assert found.z < 0  # on the whole they lie further away than test events do
    assert found.found
    assert found.copies == pytest.approx(20 / 300)
    assert set(found.source[found.suspects[:20]].tolist()) == set(range(20))
    assert found.distance[found.suspects[0]] == pytest.approx(1e-3 * 6**0.5, rel=1e-6)


def test_slight_copying_everywhere_is_found_on_the_whole() -> None:
    train = events(400, 1)
    found = memorisation(0.7 * train[:300] + 0.5 * events(300, 3), train, events(300, 2))
    assert found.z > 3
    assert found.closer > 0.6
    assert found.ratio < found.ratio_test


def test_nearest_is_the_brute_force_one() -> None:
    x, among = events(37, 1), events(53, 2)
    distance, index = nearest(x, among, 3)
    every = (x[:, None] - among[None]).square().sum(-1).sqrt()
    assert torch.allclose(distance, every.sort(1).values[:, :3], atol=1e-12)
    assert torch.equal(index, every.argsort(1)[:, :3])


def test_sets_of_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="test events"):
        memorisation(events(3, 0), events(4, 1), torch.zeros(3, 5))


def test_too_little_variety_is_not_called_copying() -> None:
    found = memorisation(0.8 * events(300, 11), events(400, 12), events(300, 13))
    assert found.z > 3  # they lie nearer
    assert not found.found


@pytest.mark.parametrize(("n", "k"), [(100, 100), (400, 100), (300, 1000)])
def test_the_p_value_of_copies_has_its_size(n: int, k: int) -> None:
    from oneprior.evaluation.memorisation import _tail

    rows = Rows(2000, seed=4)
    values, test = rows.uniform(n, dtype=torch.float64), rows.uniform(k, dtype=torch.float64)
    found = [_tail(v, t) for v, t in zip(values, test, strict=True)]
    p = torch.tensor([f[1] for f in found])
    assert float((p <= 0.05).double().mean()) <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
    assert float((p <= 0.2).double().mean()) > 0.08  # and it is not idle
    share = torch.tensor([f[0] for f in found]).mean()
    assert float(share) == pytest.approx(found[0][2], rel=0.1)
