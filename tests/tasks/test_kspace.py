"""A scanner's file as a measurement: the phantom that was scanned must fit it, to the noise and no better."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scans import scan

from oneprior.core import AffineMap, InputError
from oneprior.data.fastmri import read_kspace, write_kspace
from oneprior.inference import bayes
from oneprior.inference.closed_form import exact_posterior
from oneprior.laws import check_operator
from oneprior.operators.fourier import centred_fft, coordinates
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.tasks.kspace import kspace_measurement, kspace_measurements


def _event(picture, channels):
    """(n, rows, columns) complex -> (n, channels, rows, columns)."""
    return (picture.abs()[:, None] if channels == 1 else torch.view_as_real(picture).movedim(-1, 1)).float()


@pytest.mark.parametrize(("coils", "channels"), [(0, 1), (0, 2), (1, 1), (5, 1)])
def test_the_phantom_fits_its_measurement(tmp_path, coils, channels):
    sigma = 0.03
    picture, magnitude, _ = scan(
        tmp_path / "a.h5", coils=coils, noise=sigma, mixed=False, recon=(48, 48), grid=(96, 60)
    )
    measurement = kspace_measurement(tmp_path / "a.h5", (channels, 48, 48), slices=1)
    assert float(measurement.noise_level) == pytest.approx(sigma, rel=0.06)
    assert measurement.units.range[1] == pytest.approx(float(magnitude[1].quantile(0.999)), rel=0.1)
    fit = float(measurement.misfit(_event(picture[1:], channels)))
    assert fit == pytest.approx(1, abs=0.08)
    assert float(measurement.misfit(_event(picture[:1], channels))) > 3  # another slice
    if channels == 1:
        assert torch.allclose(measurement.truth, magnitude[1].float()[None, None], atol=1e-5)
    baseline = measurement.baseline()
    assert baseline.shape == (1, channels, 48, 48)
    error = (baseline - _event(picture[1:], channels)).square().mean().sqrt()
    assert float(error) < 1.5 * sigma


def test_undersampling_is_read_from_the_file_or_asked_for(tmp_path):
    lines = coordinates(48).abs() < 6
    lines |= coordinates(48) % 2 == 0
    picture, _, _ = scan(tmp_path / "a.h5", noise=0.02, lines=lines, grid=(64, 48))
    zeros = kspace_measurement(tmp_path / "a.h5", (1, 32, 32), slices=0)
    assert zeros.operator.out_shape == (4, 32 * int(lines.sum()))
    assert float(zeros.misfit(_event(picture[:1], 1))) == pytest.approx(1, abs=0.1)
    scan(tmp_path / "b.h5", noise=0.02, grid=(64, 48))
    asked = kspace_measurement(tmp_path / "b.h5", (1, 32, 32), slices=0, pattern="equispaced:2:center=0.23")
    assert asked.operator.out_shape == zeros.operator.out_shape
    assert asked.truth is not None
    for pattern in ("radial:5", "random:2:center=2"):
        with pytest.raises(InputError):
            kspace_measurement(tmp_path / "b.h5", (1, 32, 32), slices=0, pattern=pattern)


def test_correlated_coils_are_whitened(tmp_path):
    _, magnitude, factor = scan(tmp_path / "a.h5", coils=4, noise=0.05, recon=(48, 48), grid=(96, 56))
    measurement = kspace_measurement(tmp_path / "a.h5", (1, 48, 48), slices=0)
    expected = 0.05 * float(factor.diagonal().abs().log().mean().exp())
    assert float(measurement.noise_level) == pytest.approx(expected, rel=0.05)
    x = magnitude[:1, None].float()
    assert float(measurement.misfit(x)) == pytest.approx(1, abs=0.08)
    residual = (measurement.y - measurement.operator(x))[0]
    covariance = residual @ residual.conj().T / (2 * residual.shape[1]) / float(measurement.noise_level) ** 2
    assert float((covariance - torch.eye(4)).abs().max()) < 0.15  # 0.4 and more before it
    plain = kspace_measurement(tmp_path / "a.h5", (1, 48, 48), slices=0, noise=0.05)
    assert plain.noise_level == 0.05
    rest = (plain.y - plain.operator(x))[0]
    mixed = rest @ rest.conj().T / (2 * rest.shape[1]) / 0.05**2
    assert float((mixed - torch.eye(4)).abs().max()) > 0.4


def test_a_coarser_prior_gets_the_middle_of_k_space(tmp_path):
    """A picture without detail, so that its pixels' means are its samples on the coarse grid."""
    n, grid = 48, (96, 60)
    r = [coordinates(m, dtype=torch.float64) for m in grid]
    picture = 2 * torch.exp(-((r[0][:, None] / 9).square() + ((r[1] - 3) / 7).square()))
    kspace = centred_fft(picture[None].to(torch.complex128), (1, 2)).numpy()
    target = picture[24:72, 6:54].numpy()[None]
    path = write_kspace(tmp_path / "a.h5", kspace, target=target)
    for size in (24, 16, 20):
        measurement = kspace_measurement(path, (2, size, size), noise=1e-3)
        at = [coordinates(size, dtype=torch.float64) * (n / size) for _ in range(2)]
        coarse = 2 * torch.exp(-((at[0][:, None] / 9).square() + ((at[1] - 3) / 7).square()))
        x = torch.stack([coarse, torch.zeros_like(coarse)])[None].float()
        gap = (measurement.y - measurement.operator(x)).abs().max() / measurement.y.abs().max()
        assert float(gap) < 2e-3, size  # what the phantom has beyond the coarse grid, and beside the picture
        assert measurement.truth is None
        assert measurement.units.range[1] == pytest.approx(2, rel=0.05)
    check_operator(measurement.operator)


def test_the_noise_of_a_coarser_prior_is_what_is_said(tmp_path):
    generator = np.random.default_rng(0)
    noise = 0.1 * (generator.normal(size=(1, 96, 64)) + 1j * generator.normal(size=(1, 96, 64)))
    noise[0, 48, 32] += 3000  # a constant picture
    path = write_kspace(tmp_path / "a.h5", noise, target=np.ones((1, 48, 64)))
    measurement = kspace_measurement(path, (2, 24, 32))
    x = torch.view_as_real(measurement.operator.sampling.adjoint(measurement.y[:, 0])).movedim(-1, 1)
    assert float(measurement.noise_level) == pytest.approx(0.05, rel=0.05)
    left = measurement.y.clone()
    left[left.abs() > 1] = 0
    assert float(torch.view_as_real(left).std()) == pytest.approx(float(measurement.noise_level), rel=0.1)
    assert x.shape == (1, 2, 24, 32)


def test_numbers_stay_in_the_units_of_the_file(tmp_path):
    """Whatever the prior takes for black and white, y, noise and truth are the file's own."""
    _, magnitude, _ = scan(tmp_path / "a.h5", coils=3, noise=0.03, mixed=False)
    own = kspace_measurement(tmp_path / "a.h5", (1, 32, 32), slices=0)
    stated = kspace_measurement(tmp_path / "a.h5", (1, 32, 32), slices=0, units=AffineMap.from_range(-1, 7))
    assert stated.units.range == (-1, 7)
    x = magnitude[:1, None].float()
    for measurement in (own, stated):
        assert torch.equal(measurement.y, own.y)
        assert torch.allclose(measurement.truth, x)
        assert float(measurement.misfit(x)) == pytest.approx(1, abs=0.08)
    share = kspace_measurement(tmp_path / "a.h5", (1, 32, 32), slices=0, units=stated.units, noise="2%")
    assert float(share.noise_level) == pytest.approx(0.02 * 8)
    top = kspace_measurement(tmp_path / "a.h5", (1, 32, 32), slices=0, peak=7.5)
    assert top.units.range == (0.0, 7.5)


@pytest.mark.parametrize(
    ("low", "high", "channels", "same"),
    [
        (0, 1.5, 1, True),
        (0.1, 0.6, 1, True),
        (0, 3, 1, False),
        (0, 0.4, 1, False),
        (-1, 1, 1, False),  # no magnitudes
        (-1, 1, 2, True),
        (0, 1, 2, False),
    ],
)
def test_the_range_of_training_is_taken_where_it_fits(tmp_path, low, high, channels, same):
    _, magnitude, _ = scan(tmp_path / "a.h5", n=1, coils=1, noise=0.003)
    top = float(magnitude.max())
    trained = AffineMap.from_range(low * top, high * top)
    measurement = kspace_measurement(tmp_path / "a.h5", (channels, 32, 32), trained=trained)
    assert (measurement.units == trained) is same
    if not same:
        assert measurement.units.range[1] == pytest.approx(top, rel=0.1)


def test_the_highest_value_of_all_slices_decides_of_a_dark_one(tmp_path):
    _, magnitude, _ = scan(tmp_path / "a.h5", n=1, coils=1, noise=0.003)
    bright, top = read_kspace(tmp_path / "a.h5"), float(magnitude.max())
    dark = replace(bright, kspace=0.2 * bright.kspace)
    trained = AffineMap.from_range(0, top)
    assert kspace_measurement(dark, (1, 32, 32), trained=trained).units == trained
    unsaid = kspace_measurement(replace(dark, attributes={}), (1, 32, 32), trained=trained)
    assert unsaid.units.range == pytest.approx((0, 0.2 * top), rel=0.1)


@pytest.mark.parametrize(("coils", "noise"), [(1, 0.03), (3, 0.03), (1, "laplace:0.03")])
def test_noise_is_told_in_the_units_of_the_file(tmp_path, coils, noise):
    picture, _, _ = scan(tmp_path / "a.h5", coils=coils, noise=0.03, mixed=False)
    for units in (None, AffineMap.from_range(-1024, 3071)):
        known = kspace_measurement(tmp_path / "a.h5", (1, 32, 32), slices=0, noise=noise, units=units)
        assert float(known.misfit(_event(picture[:1], 1))) == pytest.approx(1, abs=0.08)
    for words in ("0.03", "unknown:0.03:3", "outliers:0.03:spread=3"):
        coarse = kspace_measurement(tmp_path / "a.h5", (1, 16, 16), slices=0, noise=words)
        assert coarse.noise.spec.startswith(words.partition(":")[0] if ":" in words else "gaussian")
        assert "0.015" in coarse.noise.spec  # a sample of larger pixels


def test_volumes_and_slices(tmp_path):
    picture, magnitude, _ = scan(tmp_path / "a.h5", n=3, coils=4, noise=0.02)
    volume = kspace_measurement(tmp_path / "a.h5", (1, 2, 32, 32), slices=slice(1, 3))
    assert volume.event_shape == (1, 2, 32, 32)
    assert float(volume.misfit(picture[1:].abs()[None, None].float())) == pytest.approx(1, abs=0.1)
    assert torch.allclose(volume.truth[0, 0], magnitude[1:].float(), atol=1e-5)
    each = list(kspace_measurements(tmp_path / "a.h5", (1, 32, 32)))
    assert len(each) == 3
    again = kspace_measurement(read_kspace(tmp_path / "a.h5", 2), (1, 32, 32))
    assert torch.equal(each[2].y, again.y)


def test_what_does_not_fit_is_refused_before_the_work(tmp_path):
    path = tmp_path / "a.h5"
    scan(path, n=2, coils=3, noise=0.02)
    for shape, slices, message in [
        ((1, 32, 32), None, "one slice at a time"),
        ((1, 5, 32, 32), None, "5 slices"),
        ((3, 32, 32), 0, "1 or 2 channels"),
        ((1, 64, 64), 0, "fewer in the same proportion"),
        ((1, 16, 32), 0, "fewer in the same proportion"),
    ]:
        with pytest.raises(InputError, match=message):
            kspace_measurement(path, shape, slices=slices)
    odd = coordinates(40) % 2 == 1
    scan(path, coils=3, noise=0.02, lines=odd)
    with pytest.raises(InputError, match=r"coil maps and phase must .* 5 columns .* of 40 columns it has 0: measure"):
        kspace_measurement(path, (1, 32, 32), slices=0)
    scan(path, coils=0, n=1, noise=0.02, lines=odd)
    assert len(kspace_measurement(path, (2, 32, 32))) == 1  # a complex picture of one coil needs neither
    with pytest.raises(InputError, match=r"the picture's phase must .* 3 columns .* it has 0: take a prior of complex"):
        kspace_measurement(path, (1, 32, 32))
    for coils, center in ((3, 0.13), (1, 0.08)):
        scan(path, coils=coils, n=1, noise=0.02)
        with pytest.raises(InputError, match=f"give center={center} or more"):
            kspace_measurement(path, (1, 32, 32), pattern="equispaced:4:center=0.03")
        kspace_measurement(path, (1, 32, 32), pattern=f"equispaced:4:center={center}")
    wide = np.zeros((1, 64, 40), np.complex64)
    wide[:, 32] = np.exp(-2j * np.pi * (np.arange(40) - 20) * 15 / 40)  # one point, right of the middle
    write_kspace(path, wide, target=np.ones((1, 32, 16)))
    with pytest.raises(InputError, match="fold into the picture"):
        kspace_measurement(path, (1, 32, 16), noise=0.1)
    write_kspace(path, np.ones((1, 64, 40), np.complex64))
    with pytest.raises(InputError, match="no noise at all"):
        kspace_measurement(path, (2, 64, 40))


def test_the_exact_posterior_of_a_scan_is_the_dense_formula(tmp_path):
    scan(tmp_path / "a.h5", coils=2, noise=0.1, recon=(16, 16), grid=(32, 20), n=1)
    measurement = kspace_measurement(tmp_path / "a.h5", (1, 8, 8), pattern="random:2:center=0.4", noise=0.4)
    assert measurement.noise_level == 0.2  # pixels of twice the size
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(64, 5, generator=generator, dtype=torch.float64)).Q
    mean = torch.randn(1, 8, 8, generator=generator, dtype=torch.float64)
    prior = LowRankGaussian(mean, basis, torch.linspace(0.5, 2, 5, dtype=torch.float64), 0.1)
    posterior = bayes(prior, measurement.likelihood)
    exact = exact_posterior(posterior.prior, posterior.likelihood)
    dense = measurement.operator.dense()
    a = measurement.units.scale * torch.cat([dense.real, dense.imag])
    y = measurement.y - measurement.operator(torch.full((1, 1, 8, 8), measurement.units.offset))
    y = torch.cat([y.flatten().real, y.flatten().imag]).double()
    s = basis @ torch.diag(prior.variances) @ basis.T + 0.1 * torch.eye(64, dtype=torch.float64)
    precision = torch.linalg.inv(s) + a.T @ a / 0.2**2
    centre = torch.linalg.solve(precision, torch.linalg.solve(s, mean.flatten()) + a.T @ y / 0.2**2)
    assert torch.allclose(exact.mean()[0].flatten().double(), centre, atol=1e-4)
    variance = torch.linalg.inv(precision).diagonal()
    assert torch.allclose(exact.covariance_diag()[0].flatten().double(), variance, rtol=1e-4)
