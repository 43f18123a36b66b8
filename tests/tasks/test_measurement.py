"""Measurements: noise in its units, files that round-trip and never surprise."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from oneprior.core import AffineMap, Geometry, InputError, Rows, ShapeError
from oneprior.likelihoods import parse_noise_law
from oneprior.likelihoods.noise import PoissonNoise, RicianNoise, UnknownNoise
from oneprior.operators import Matrix
from oneprior.tasks import Measurement, measured, parse_noise, simulate

GREY = AffineMap.from_range(0.0, 255.0, "grey level")
SHAPE = (1, 5, 6)


def test_noise_is_in_units_or_a_share_of_the_range():
    assert parse_noise("0.05", GREY) == 0.05
    assert parse_noise(0.05, GREY) == 0.05
    assert parse_noise("5%", GREY) == pytest.approx(12.75)
    assert parse_noise("5 %", AffineMap()) == pytest.approx(0.1)
    assert parse_noise("0", GREY) == 0.0
    for bad in ("five", "-1", "-5%", "nan", "inf", "%", ""):
        with pytest.raises(InputError, match="noise is"):
            parse_noise(bad, GREY)


def test_simulated_noise_has_its_level_and_its_rows():
    x = Rows(50, seed=0).normal(1, 20, 20)
    got = simulate(x, "identity", "5%", Rows(50, seed=1), units=GREY)
    noise = got.y - got.truth
    assert torch.equal(got.truth, GREY.to_units(x))
    assert abs(float(noise.std()) / 12.75 - 1) < 4 / (2 * noise.numel()) ** 0.5
    part = simulate(x[7:9], "identity", "5%", Rows([7, 8], seed=1), units=GREY)
    assert torch.equal(part.y, got.y[7:9])
    each = simulate(x, "identity", torch.linspace(1, 50, 50), Rows(50, seed=1), units=GREY)
    assert float((each.y - each.truth)[-1].std()) > 10 * float((each.y - each.truth)[0].std())
    with pytest.raises(ShapeError, match="one row for each event"):
        simulate(x, "identity", 0.1, Rows(3))


@pytest.mark.parametrize(
    "words", ["mask:left", "mask:random:0.5:seed=4", "downsample:2x3", ["mask:top", "downsample:2"]]
)
@pytest.mark.parametrize("level", ["5%", torch.tensor([1.0, 2.0])], ids=["shared", "rows"])
def test_a_file_gives_everything_back(tmp_path, words, level):
    x, geometry = Rows(2, seed=0).normal(*SHAPE), Geometry("uint8", (1.0, 2.0), format="png")
    made = simulate(x, words, level, Rows(2, seed=1), units=GREY, geometry=geometry)
    path = made.save(tmp_path / "deep" / "y")
    assert path == tmp_path / "deep" / "y.npz"
    assert [p.name for p in path.parent.iterdir()] == ["y.npz"]  # nothing half-written stays
    got = Measurement.load(path)
    assert torch.equal(got.y, made.y)
    assert torch.equal(got.truth, made.truth)
    assert torch.equal(got.operator.dense(), made.operator.dense())
    assert torch.allclose(torch.as_tensor(got.noise_level).double(), torch.as_tensor(made.noise_level).double())
    assert (got.units, got.geometry, got.event_shape) == (GREY, geometry, SHAPE)
    assert torch.allclose(got.likelihood.log_prob(x), made.likelihood.log_prob(x))
    assert torch.equal(got.take(slice(1, 2)).y, made.y[1:])


def test_files_that_are_no_measurement(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Measurement.load(tmp_path / "no.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    made = simulate(torch.zeros(1, *SHAPE), "identity", 0.1, Rows(1)).save(tmp_path / "y.npz")
    (tmp_path / "cut.npz").write_bytes(made.read_bytes()[:-60])
    np.savez(tmp_path / "pickled.npz", y=np.array([{}], dtype=object))
    for name in ("other", "text", "cut", "pickled"):
        with pytest.raises(InputError, match="no measurement written by"):
            Measurement.load(tmp_path / f"{name}.npz")


def test_an_operator_without_words_is_not_saved(tmp_path):
    operator = Matrix(torch.eye(4), (1, 2, 2))
    with pytest.raises(InputError, match="has no words"):
        Measurement(torch.zeros(1, 4), operator, 0.1).save(tmp_path / "y.npz")


def test_baseline_puts_the_middle_of_the_range_where_nothing_is_known():
    x = Rows(1, seed=0).normal(*SHAPE)
    made = simulate(x, "mask:left", 0, Rows(1), units=GREY)
    picture = made.picture()
    assert picture.shape == (1, *SHAPE)
    assert torch.allclose(picture[..., :3], torch.tensor(127.5))
    assert torch.allclose(picture[..., 3:], made.truth[..., 3:], atol=1e-4)
    small = simulate(x, "downsample:2", 0, Rows(1), units=GREY)
    assert small.picture().shape == (1, 1, 3, 3)
    assert torch.allclose(small.operator(small.baseline()), small.y, atol=1e-3)


def test_whole_numbers_and_missing_rows_are_understood():
    y = torch.full(SHAPE, 7, dtype=torch.uint8)
    got = measured(y, "identity", "1%", SHAPE, GREY)
    assert got.y.shape == (1, *SHAPE)
    assert got.y.is_floating_point()
    with pytest.raises(ShapeError, match="measurement y"):
        measured(torch.zeros(2, 1, 9, 9), "identity", 0.1, SHAPE)


def test_a_measurement_may_be_told_otherwise():
    given = simulate(torch.zeros(2, *SHAPE), "identity", 0.1, Rows(2))
    assert given.told() is given
    again = given.told(noise=0.5)
    assert (again.noise_level, again.operator) == (0.5, given.operator)
    assert again.truth is given.truth


LAWS = ["gaussian:5%", "rician:5%", "laplace:12", "outliers:5%:share=0.2", "unknown:1%:20%", "poisson", "poisson:50"]


@pytest.mark.parametrize("words", LAWS)
def test_every_law_of_noise_is_kept_in_the_file_and_fits_the_truth(tmp_path, words):
    x = Rows(6, seed=0).uniform(1, 12, 12) * 1.8 - 0.9
    made = simulate(x, "downsample:2", words, Rows(6, seed=1), units=GREY)
    got = Measurement.load(made.save(tmp_path / "y"))
    assert got.noise == made.noise
    assert torch.equal(got.likelihood.log_prob(x), made.likelihood.log_prob(x))
    misfit, p = got.misfit(got.truth), got.misfit_p(got.truth)
    assert ((misfit > 0.7) & (misfit < 1.4)).all()
    assert p.min() > 1e-3
    if not words.startswith("unknown"):
        assert (got.misfit_p(255 - got.truth) < 1e-3).all()
        assert (got.misfit(255 - got.truth) > 1.3).all()
    assert torch.equal(got.take(slice(2, 4)).likelihood.log_prob(x[2:4]), got.likelihood.log_prob(x)[2:4])
    part = simulate(x[2:4], "downsample:2", words, Rows([2, 3], seed=1), units=GREY)
    assert torch.equal(part.y, made.y[2:4])
    assert not got.exact


def test_levels_by_row_are_kept_for_every_law_with_a_level(tmp_path):
    x, levels = torch.zeros(3, *SHAPE), torch.tensor([1.0, 2.0, 30.0])
    law = parse_noise_law("laplace:5%", GREY).with_level(levels)
    made = simulate(x, "identity", law, Rows(3), units=GREY)
    got = Measurement.load(made.save(tmp_path / "y"))
    assert torch.allclose(got.noise_level, levels.double())
    assert got.noise.name == "laplace"
    assert torch.allclose(got.take(slice(2, 3)).misfit(got.truth[2:]), made.misfit(made.truth)[2:])


def test_files_of_format_1_are_read(tmp_path):
    made = simulate(torch.zeros(2, *SHAPE), "mask:left", "5%", Rows(2), units=GREY)
    path = made.save(tmp_path / "y.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    about = json.loads(str(arrays["about"]))
    assert about.pop("noise") == "gaussian:12.75"
    np.savez(path, **arrays | {"about": np.array(json.dumps(about | {"format": 1}))})
    got = Measurement.load(path)
    assert got.noise_level == 12.75
    assert got.noise == made.noise
    np.savez(path, **arrays | {"about": np.array(json.dumps(about | {"format": 3}))})
    with pytest.raises(InputError, match="update oneprior"):
        Measurement.load(path)


def test_a_measurement_may_be_told_another_law():
    given = simulate(torch.zeros(2, *SHAPE), "identity", 0.1, Rows(2), units=GREY)
    assert given.told(noise="rician:5%").noise == RicianNoise(12.75)
    poisson = given.told(noise="poisson:255")
    assert poisson.noise == PoissonNoise(1.0, 0.0)
    assert poisson.told(operator="identity").noise is poisson.noise
    with pytest.raises(InputError, match="no one level"):
        _ = poisson.noise_level
    assert given.told(noise=0).exact
    assert measured(given.y, "identity", "unknown", SHAPE, GREY).noise == UnknownNoise(0.255, 255.0)


def test_poisson_counts_begin_at_the_black_of_the_instrument():
    """Blurs and projections of black are not black times one: counts begin at A(black)."""
    units = AffineMap.from_range(-1000.0, 1000.0)
    operator = Matrix(torch.tensor([[1.0, 1.0], [2.0, 1.0]]))
    x = torch.tensor([[-1.0, -1.0]]).expand(4, 2)
    made = simulate(x, operator, "poisson:20", Rows(4), units=units)
    assert torch.equal(made.y, torch.tensor([-2000.0, -3000.0]).expand(4, 2))
    assert torch.isfinite(made.likelihood.log_prob(x)).all()
    with pytest.raises(InputError, match="below the black"):
        _ = replace(made, y=made.y - 500).likelihood


def test_complex_and_real_numbers_are_told_apart():
    """A real list taken for k-space would count half of its numbers, a complex picture none rightly."""
    k_space = torch.randn(1, 30, dtype=torch.complex64)
    assert measured(k_space, "mri:full", 0.1, SHAPE).y.is_complex()
    assert not measured(k_space.abs(), "mri:full", "rician:0.1", SHAPE).y.is_complex()
    with pytest.raises(InputError, match="measures complex numbers, and these are real"):
        measured(k_space.abs(), "mri:full", 0.1, SHAPE)
    with pytest.raises(InputError, match="measures real numbers, and these are complex"):
        measured(k_space.reshape(1, *SHAPE), "blur:gaussian:1", 0.1, SHAPE)
