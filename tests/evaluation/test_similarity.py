"""Structural similarity against scikit-image and SciPy, in 1 to 3 dimensions."""

import numpy as np
import pytest
import torch

from oneprior.core import Rows, ShapeError
from oneprior.evaluation import ms_ssim, ssim
from oneprior.evaluation.similarity import WEIGHTS


def pair(*shape, n=2):
    x = Rows(n, seed=0).normal(*shape, dtype=torch.float64).clamp(-1, 1)
    return x, (x + 0.3 * Rows(n, seed=1).normal(*shape, dtype=torch.float64)).clamp(-1, 1)


@pytest.mark.parametrize("shape", [(1, 30), (1, 24, 31), (3, 20, 20), (1, 14, 15, 16)], ids=str)
def test_it_is_that_of_scikit_image(shape):
    from skimage.metrics import structural_similarity

    x, y = pair(*shape)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2.0}
    expected = [
        np.mean([structural_similarity(p, q, **settings) for p, q in zip(a.numpy(), b.numpy(), strict=True)])
        for a, b in zip(x, y, strict=True)
    ]
    assert ssim(x, y).numpy() == pytest.approx(np.array(expected), abs=1e-10)
    assert ssim(x, x).numpy() == pytest.approx(np.ones(2))
    assert torch.allclose(ssim(x, y), ssim(y, x))
    assert torch.allclose(ssim(127.5 * x, 127.5 * y, 255.0), ssim(x, y))


def test_several_scales_are_the_formula_of_the_paper():
    """With SciPy's filter; torchmetrics' figure differs, since it counts reflected borders at the coarsest scale."""
    from scipy.ndimage import gaussian_filter

    x, y = (z[0, 0].numpy() for z in pair(1, 180, 176, n=1))
    expected = 1.0
    for scale, weight in enumerate(WEIGHTS):
        a, b, aa, bb, ab = (gaussian_filter(z, 1.5, truncate=3.5)[5:-5, 5:-5] for z in (x, y, x * x, y * y, x * y))
        structure = (2 * (ab - a * b) + 0.0036) / (aa - a * a + bb - b * b + 0.0036)
        light = (2 * a * b + 0.0004) / (a * a + b * b + 0.0004) if scale == 4 else 1.0
        expected *= np.mean(light * structure) ** weight
        x, y = (z[: len(z) // 2 * 2, : z.shape[1] // 2 * 2] for z in (x, y))
        x, y = (z.reshape(len(z) // 2, 2, -1, 2).mean((1, 3)) for z in (x, y))
    assert float(ms_ssim(*pair(1, 180, 176, n=1))) == pytest.approx(expected, abs=1e-10)


def test_one_scale_is_the_plain_one():
    x, y = pair(1, 20, 20)
    assert torch.allclose(ms_ssim(x, y, weights=(1.0,)), ssim(x, y).clamp_min(0))


def test_small_events_are_told():
    with pytest.raises(ShapeError, match="at least 11 samples"):
        ssim(*pair(1, 8, 8))
    with pytest.raises(ShapeError, match="fewer scales"):
        ms_ssim(*pair(1, 64, 64))


def test_inside_a_region_the_windows_with_their_middle_in_it_count() -> None:
    rows = Rows(2, seed=5)
    x, y = rows.normal(1, 30, 28), rows.normal(1, 30, 28)
    mask = torch.zeros(1, 1, 30, 28, dtype=torch.bool)
    mask[..., 8:20, 7:22] = True
    assert torch.allclose(ssim(x, y, mask=mask), ssim(x[..., 3:25, 2:27], y[..., 3:25, 2:27]), atol=1e-12)
    everywhere = torch.ones_like(mask)
    assert torch.allclose(ssim(x, y, mask=everywhere), ssim(x, y), atol=1e-12)
