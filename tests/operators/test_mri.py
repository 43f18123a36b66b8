"""Fourier convention, masks, the operator against its sum written out, and its words."""

import math

import numpy as np
import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError, norm
from oneprior.laws import check_operator
from oneprior.operators import MRI, parse_operator
from oneprior.operators.coils import birdcage
from oneprior.operators.fourier import centred_fft, centred_ifft, coordinates, middle
from oneprior.operators.mri_masks import equispaced_encodings, random_encodings
from oneprior.operators.mri_sampling import Cartesian, Lines


def _complex(rows, *shape):
    return torch.view_as_complex(rows.normal(*shape, 2, dtype=torch.float64))


def _fourier_matrix(n):
    k = coordinates(n, dtype=torch.float64)
    return torch.polar(torch.full((n, n), n**-0.5, dtype=torch.float64), -2 * math.pi * k[:, None] * k / n)


@pytest.mark.parametrize("space", [(8, 8), (7, 9), (6, 5), (3, 4, 5)])
def test_the_transform_is_centred_and_unitary(space):
    axes = tuple(range(1, 1 + len(space)))
    z = _complex(Rows(2), *space)
    y = centred_fft(z, axes)
    assert torch.allclose(norm(y), norm(z), rtol=1e-12)
    assert torch.allclose(centred_ifft(y, axes), z, atol=1e-12)
    written_out = z
    for axis, n in zip(axes, space, strict=True):
        written_out = (written_out.movedim(axis, -1) @ _fourier_matrix(n).T).movedim(-1, axis)
    assert torch.allclose(y, written_out, atol=1e-12)
    flat = centred_fft(torch.ones(1, *space, dtype=torch.complex128), axes)[0]
    centre = tuple(n // 2 for n in space)
    assert flat[centre].real == pytest.approx(math.sqrt(math.prod(space)))  # zero frequency at n // 2
    flat[centre] = 0
    assert flat.abs().max() < 1e-12


@pytest.mark.parametrize(("n", "part"), [(8, 4), (8, 5), (9, 4), (9, 9), (7, 3)])
def test_the_middle_keeps_the_centre(n, part):
    kept = coordinates(n)[middle(n, part)]
    assert kept.tolist() == coordinates(part).tolist()


def test_random_encodings_have_their_number_a_full_centre_and_crowd_near_it():
    keep = random_encodings((16, 128), 4, 0.08, seed=3)
    lines = keep[0]
    assert torch.equal(keep, lines.expand(16, -1))  # whole readouts
    assert int(lines.sum()) == 32
    assert bool(lines[64 - 5 : 64 + 5].all())
    assert torch.equal(keep, random_encodings((16, 128), 4, 0.08, seed=3))
    assert not torch.equal(keep, random_encodings((16, 128), 4, 0.08, seed=4))
    inner = outer = 0
    for seed in range(20):
        lines = random_encodings((2, 128), 4, 0.08, seed)[0]
        inner += int(lines[32:59].sum() + lines[69:96].sum())
        outer += int(lines[:27].sum() + lines[-27:].sum())
    assert inner > 3 * outer
    volume = random_encodings((4, 12, 12), 3, 0.1)
    assert int(volume[0].sum()) == 48
    assert torch.equal(volume, volume[:1].expand(4, -1, -1))


def test_equispaced_encodings_hold_the_zero_frequency():
    for n in (31, 32, 33):
        lines = equispaced_encodings((4, n), 4, 0.0)[0]
        assert bool(lines[n // 2])
        assert set(torch.diff(lines.nonzero().squeeze()).tolist()) == {4}


def test_full_sampling_is_invertible():
    for shape in [(1, 7, 8), (2, 7, 8), (1, 3, 4, 5)]:
        operator = parse_operator("mri:full", shape)
        x = Rows(2).normal(*shape, dtype=torch.float64)
        assert torch.allclose(operator.pinv(operator(x)), x, atol=1e-10)
        assert torch.allclose(norm(operator(x)), norm(x), rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 7, 9), (2, 6, 5), (2, 3, 4, 5)])
def test_the_operator_is_its_formula(shape):
    channels, *space = shape
    rows = Rows(2)
    keep = rows.uniform(*space)[0] > 0.4
    maps = _complex(Rows(3, seed=1), *space)
    phase = rows.normal(*space, dtype=torch.float64)[0] if channels == 1 else None
    operator = MRI(shape, Cartesian(keep), maps, phase)
    check_operator(operator)
    x = rows.normal(*shape, dtype=torch.float64)
    z = x[:, 0] * torch.exp(1j * phase) if channels == 1 else torch.complex(x[:, 0], x[:, 1])
    full = centred_fft(maps * z[:, None], tuple(range(2, 2 + len(space))))
    assert torch.allclose(operator(x), full[:, :, keep], atol=1e-12)
    dense = operator.dense()
    unit = torch.eye(len(dense), dtype=dense.dtype).reshape(-1, *operator.out_shape)
    assert (operator.adjoint(unit).flatten(1) - dense.real).abs().max() < 1e-10
    assert (operator.adjoint(1j * unit).flatten(1) - dense.imag).abs().max() < 1e-10


def test_a_a_transposed_is_diagonal_for_complex_pictures_only():
    for channels, diagonal in ((2, True), (1, False)):
        dense = parse_operator("mri:random:2", (channels, 8, 8)).dense()
        reals = torch.cat([dense.real, dense.imag])
        gram = reals @ reals.T
        off = gram - torch.diag(gram.diagonal())
        assert (float(off.abs().max()) < 1e-12) == diagonal


@pytest.mark.parametrize("words", ["mri:random:2", "mri:equispaced:3", "mri:random:2:coils=4", "mri:radial:9"])
@pytest.mark.parametrize("shape", [(1, 9, 8), (2, 9, 8)])
def test_the_norm_is_one(words, shape):
    dense = parse_operator(words, shape).dense()
    size = float(torch.linalg.matrix_norm(torch.cat([dense.real, dense.imag]), 2))
    assert 0.8 < size <= 1 + 1e-4
    if "coils" not in words and shape[0] == 2:
        assert size == pytest.approx(1, abs=1e-4)


def test_lines_are_the_columns_of_hybrid_space_at_any_field():
    z = _complex(Rows(1), 5, 8)
    wide = torch.zeros(1, 5, 12, dtype=torch.complex128)
    wide[..., middle(12, 8)] = z
    columns = torch.tensor([0, 3, 6, 7, 11])
    lines = Lines((5, 8), columns - 6, 8 / 12)
    assert torch.allclose(lines.samples(z).reshape(5, 5), centred_fft(wide, (2,))[0][:, columns], atol=1e-12)
    check_operator(MRI((1, 5, 8), lines, birdcage((5, 8), 3)))


def test_the_event_of_a_gradient_is_that_of_the_adjoint():
    for words in ("mri:random:2:coils=3", "mri:radial:5"):
        operator = parse_operator(words, (1, 8, 7))
        x = Rows(2).normal(1, 8, 7, dtype=torch.float64).requires_grad_()
        y = operator(x)
        (gradient,) = torch.autograd.grad(0.5 * y.abs().square().sum(), x)
        assert torch.allclose(gradient, operator.adjoint(y.detach()), atol=1e-12)


def test_masks_maps_and_phases_of_files(tmp_path, monkeypatch):
    keep = random_encodings((8, 6), 2, 0.3, seed=1)
    maps, phase = birdcage((8, 6), 3).numpy(), np.full((8, 6), 0.4)
    for name, values in (("mask", keep.numpy()), ("line", keep[0].numpy()), ("maps", maps), ("phase", phase)):
        np.save(tmp_path / f"{name}.npy", values)
    x = Rows(1).normal(1, 8, 6)
    whole = parse_operator([f"mri:{tmp_path / 'mask.npy'}"], (1, 8, 6))
    lines = parse_operator([f"mri:{tmp_path / 'line.npy'}"], (1, 8, 6))
    assert torch.equal(whole(x), lines(x))
    assert str(tmp_path) not in whole.spec
    assert torch.equal(parse_operator([whole.spec], (1, 8, 6))(x), whole(x))
    words = f"mri:{tmp_path / 'line.npy'}:maps={tmp_path / 'maps.npy'}:phase={tmp_path / 'phase.npy'}"
    all_told = parse_operator([words], (1, 8, 6))
    expected = MRI((1, 8, 6), Cartesian(keep), torch.from_numpy(maps), torch.from_numpy(phase))
    assert torch.allclose(all_told(x), expected(x), atol=1e-6)
    assert torch.equal(parse_operator([all_told.spec], (1, 8, 6))(x), all_told(x))
    folder = tmp_path / "my scans: 100%20"  # blanks and colons part words
    folder.mkdir()
    np.save(folder / "maps.npy", maps)
    np.save(folder / "phase.npy", phase)
    monkeypatch.chdir(folder)
    blank = parse_operator(["mri:full:maps=maps.npy:phase=phase.npy"], (1, 8, 6))
    assert torch.equal(parse_operator(blank.spec.split(" "), (1, 8, 6))(x), blank(x))
    with pytest.raises(InputError, match="for lines along the last axis"):
        parse_operator([f"mri:{tmp_path / 'mask.npy'}"], (1, 8, 8))
    with pytest.raises(ShapeError, match="coil maps"):
        parse_operator([f"mri:full:maps={tmp_path / 'maps.npy'}"], (1, 8, 8))
    for name, values, message in (
        ("maps", np.full((3, 8, 6), np.nan), "NaN"),
        ("maps", np.array(["a"]), "no number"),
        ("phase", np.ones((8, 6), complex), "is complex: give its angle"),
    ):
        np.save(tmp_path / "wrong.npy", values)
        with pytest.raises(InputError, match=message):
            parse_operator([f"mri:full:{name}={tmp_path / 'wrong.npy'}"], (1, 8, 6))
    with pytest.raises(InputError, match="has its own phase"):
        parse_operator([f"mri:full:phase={tmp_path / 'phase.npy'}"], (2, 8, 6))
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        parse_operator([f"mri:{tmp_path / 'bad.npy'}"], (1, 8, 8))


@pytest.mark.parametrize(
    ("words", "shape", "message"),
    [
        ("mri:ramdom:4", (1, 8, 8), "did you mean 'random'"),
        ("mri", (1, 8, 8), "give the mask's file name"),
        ("mri:gone.npy", (1, 8, 8), "does not exist"),
        ("mri:random:four", (1, 8, 8), "the acceleration is a number"),
        ("mri:random:8:center=0.9", (1, 8, 8), "lower center=0.9 to 0.18, or the acceleration to 1.14"),
        ("mri:random:0.5", (1, 8, 8), "acceleration >= 1"),
        ("mri:random:4", (1, 8), "2 or 3 spatial axes"),
        ("mri:random:4", (3, 8, 8), "1 channel"),
        ("mri:equispaced:2.5", (1, 8, 8), "whole acceleration"),
        ("mri:equispaced:4:seed=1", (1, 8, 8), "has no option 'seed'"),
        ("mri:radial", (1, 8, 8), "number of spokes"),
        ("mri:radial:0", (1, 8, 8), "at least 1 spoke"),
        ("mri:radial:3:order=sideways", (1, 8, 8), "golden or uniform"),
        ("mri:radial:3", (1, 8), "2 spatial axes"),
        ("mri:full:coils=0", (1, 8, 8), "at least 1 coil"),
        ("mri:full:coils=2:maps=a.npy", (1, 8, 8), "not both"),
        ("mri:bits=AAAA:shape=8", (1, 8, 8), "damaged"),
    ],
)
def test_a_mistake_is_told(words, shape, message):
    with pytest.raises(InputError, match=message):
        parse_operator(words, shape)
