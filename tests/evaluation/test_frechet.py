"""The Frechet distance against closed forms and against SciPy's matrix square root."""

import numpy as np
import pytest
import scipy.linalg
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.evaluation import FeatureStatistics, frechet_distance, frechet_error


def _features(n: int, d: int, seed: int) -> torch.Tensor:
    rows = Rows(n, seed=seed)
    mix = Rows(d, seed=seed, stream="mix").normal(d, dtype=torch.float64)
    return rows.normal(d, dtype=torch.float64) @ mix + seed


def test_matches_the_matrix_square_root():
    a, b = _features(400, 12, 1), _features(300, 12, 2)
    s_a, s_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = np.asarray(scipy.linalg.sqrtm(s_a @ s_b)).real
    expected = np.square(a.numpy().mean(0) - b.numpy().mean(0)).sum() + np.trace(s_a + s_b - 2 * root)
    assert float(frechet_distance(a, b)) == pytest.approx(expected, rel=1e-9)


def test_closed_forms():
    a = _features(200, 5, 3)
    assert float(frechet_distance(a, a)) < 1e-8
    assert float(frechet_distance(a, a + 2.0)) == pytest.approx(5 * 4.0, rel=1e-9)
    centred = a - a.mean(0)
    trace = float(FeatureStatistics.of(a).covariance.trace())
    assert float(frechet_distance(centred, 3 * centred)) == pytest.approx(4 * trace, rel=1e-9)


def test_fewer_events_than_features():
    """Singular covariances: the distance of a set and its rotation is known from singular values alone."""
    a, b = _features(10, 40, 4), _features(12, 40, 5)
    x, y = (f - f.mean(0) for f in (a, b))
    root = torch.linalg.svdvals((x / 9**0.5) @ (y / 11**0.5).T).sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + x.square().sum() / 9 + y.square().sum() / 11 - 2 * root
    assert float(frechet_distance(a, b)) == pytest.approx(float(expected), rel=1e-6)
    constant = torch.zeros(10, 40)
    assert float(frechet_distance(constant, constant)) == 0.0


def test_symmetric_and_positive():
    a, b = _features(100, 8, 6), _features(90, 8, 7)
    assert float(frechet_distance(a, b)) == pytest.approx(float(frechet_distance(b, a)), rel=1e-10)


def test_statistics_can_be_streamed_without_cancellation():
    f = _features(101, 6, 8) + 1e6
    whole = FeatureStatistics.of(f)
    parts = FeatureStatistics.of(f[:1])
    for piece in (f[1:40], f[40:41], f[41:]):
        parts = parts + FeatureStatistics.of(piece)
    assert parts.count == 101
    np.testing.assert_allclose(parts.covariance.numpy(), np.cov(f.numpy().T), rtol=1e-6)
    assert float(frechet_distance(parts, whole)) < 1e-6


def test_errors():
    a = _features(20, 4, 9)
    with pytest.raises(ShapeError, match="one feature network"):
        frechet_distance(a, a[:, :3])
    with pytest.raises(ShapeError, match=r"\(n, d\)"):
        frechet_distance(a[:, None], a)
    with pytest.raises(InputError, match="nan or infinity"):
        FeatureStatistics.of(a / 0)
    with pytest.raises(InputError, match="at least 2"):
        frechet_distance(a[:1], a)


def test_the_jackknife_error_is_the_spread_of_repetitions() -> None:
    found, errors = [], []
    for seed in range(40):
        a, b = (Rows(300, seed=2 * seed + k).normal(6, dtype=torch.float64) + 0.3 * k for k in range(2))
        found.append(float(frechet_distance(a, b)))
        errors.append(frechet_error(a, b, Rows(1, seed=seed)))
    spread, said = float(torch.tensor(found).std()), float(torch.tensor(errors).square().mean().sqrt())
    assert 0.65 < said / spread < 1.5
    assert torch.tensor(frechet_error(a[:10], b, Rows(1))).isnan()
