"""Every instrument of the grammar: dense-matrix adjoint and pseudo-inverse in float64, on odd, 1-D and 3-D shapes."""

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.core import InputError, ShapeError
from oneprior.laws import check_operator
from oneprior.operators import Affine, Downsample, Identity, Mask, Matrix, compose, parse_operator
from oneprior.operators.base import LinearOperator
from oneprior.operators.mask import spell

CASES = [
    ((2, 7, 5), "identity"),
    ((2, 7, 5), "mask:left"),
    ((2, 7, 5), "mask:bottom"),
    ((2, 7, 5), "mask:box:0.4"),
    ((2, 7, 5), "mask:random:0.7:seed=3"),
    ((2, 7, 5), "downsample:2"),
    ((2, 7, 5), "downsample:3x4"),
    ((2, 7, 5), "downsample:9"),
    ((2, 7, 5), "mask:left downsample:2"),
    ((2, 7, 5), "downsample:2 mask:top"),
    ((2, 7, 5), "downsample:2 downsample:3"),
    ((1, 11), "mask:right"),
    ((1, 11), "downsample:4"),
    ((1, 11), "mask:random:.3"),
    ((1, 5, 6, 7), "mask:front"),
    ((1, 5, 6, 7), "downsample:1x1x4"),
    ((1, 5, 6, 7), "downsample:2 mask:back"),
]


@pytest.mark.parametrize(("shape", "words"), CASES, ids=lambda v: str(v))
def test_adjoint_pinv_and_words(shape, words):
    operator = parse_operator(words, shape)
    assert isinstance(operator, LinearOperator)
    check_operator(operator)
    dense = operator.dense()
    unit = torch.eye(operator.out_shape.numel(), dtype=torch.float64).reshape(-1, *operator.out_shape)
    assert (operator.adjoint(unit).flatten(1) - dense).abs().max() <= 1e-10 * dense.abs().max()
    assert (operator.pinv(unit).flatten(1).T - torch.linalg.pinv(dense)).abs().max() < 1e-10
    gram = dense @ dense.T
    assert operator.disjoint
    assert (gram - torch.diag(operator.gram(unit).flatten())).abs().max() < 1e-14
    again = parse_operator(operator.spec, shape)
    assert torch.equal(again(torch.ones(1, *shape)), operator(torch.ones(1, *shape)))
    assert torch.equal(again.dense(), dense)


def test_downsample_keeps_constants_at_any_size():
    x = torch.full((1, 1, 7, 5), 3.0)
    for factor in (1, 2, 3, 4, 9, (2, 5)):
        assert torch.allclose(Downsample((1, 7, 5), factor)(x), torch.tensor(3.0))


def test_downsample_is_the_mean_of_boxes():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    expected = torch.tensor([[[[2.5, 4.5], [8.5, 10.5]]]])
    assert torch.equal(Downsample((1, 3, 4), 2)(x), expected)  # the last row is a box of its own


def test_left_half_of_an_odd_width_is_the_smaller_half():
    keep = parse_operator("mask:left", (1, 2, 5)).keep
    assert keep[0, 0].tolist() == [False, False, True, True, True]
    keep = parse_operator("mask:right", (1, 2, 5)).keep
    assert keep[0, 0].tolist() == [True, True, True, False, False]


def test_random_mask_misses_exactly_its_share_and_depends_on_its_seed():
    masks = [parse_operator(f"mask:random:0.7:seed={seed}", (3, 10, 10)) for seed in (0, 0, 1)]
    assert masks[0].out_shape == (3 * 30,)
    assert torch.equal(masks[0].keep, masks[1].keep)
    assert not torch.equal(masks[0].keep, masks[2].keep)
    assert torch.equal(masks[0].keep[0], masks[0].keep[2])  # the channels share it


def test_a_picture_as_a_mask(tmp_path):
    keep = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    Image.fromarray((keep.numpy() * 255).astype("uint8")).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", keep.numpy())
    for name in ("mask.png", "mask.npy"):
        operator = parse_operator([f"mask:{tmp_path / name}"], (1, 6, 4))
        assert torch.equal(operator.keep[0], keep)
        again = parse_operator(operator.spec, (1, 6, 4))  # without the file
        assert torch.equal(again.keep, operator.keep)
    with pytest.raises(InputError, match=r"mask\.png' is 6 x 4 and the event is 8 x 8"):
        parse_operator([f"mask:{tmp_path / 'mask.png'}"], (1, 8, 8))
    (tmp_path / "notes.txt").write_text("a mask")
    with pytest.raises(InputError, match=r"no picture, \.npy or NIfTI"):
        parse_operator([f"mask:{tmp_path / 'notes.txt'}"], (1, 8, 8))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_as_a_mask(tmp_path, suffix):
    keep = torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(0)) > 0.5
    nib.save(nib.Nifti1Image(keep.numpy().astype("uint8"), np.eye(4)), tmp_path / f"mask{suffix}")
    operator = parse_operator([f"mask:{tmp_path / f'mask{suffix}'}"], (1, 6, 4, 3))
    assert torch.equal(operator.keep[0], keep)
    nib.save(nib.Nifti1Image(keep[..., :1].numpy().astype("uint8"), np.eye(4)), tmp_path / f"slice{suffix}")
    assert torch.equal(parse_operator([f"mask:{tmp_path / f'slice{suffix}'}"], (1, 6, 4)).keep[0], keep[..., 0])
    (tmp_path / f"mask{suffix}").write_bytes(b"no volume")
    with pytest.raises(InputError, match="cannot be read"):
        parse_operator([f"mask:{tmp_path / f'mask{suffix}'}"], (1, 6, 4, 3))


def test_people_are_told_of_a_mask_by_its_file_and_its_words_keep_its_bits(tmp_path):
    keep = torch.arange(24).reshape(6, 4) % 3 > 0
    np.save(tmp_path / "my mask.npy", keep.numpy())
    words = [f"mask:{tmp_path / 'my mask.npy'}", "downsample:2"]
    operator = parse_operator(words, (1, 6, 4))
    assert operator.title == "mask:my mask.npy downsample:2"
    again = parse_operator(operator.spec.split(" "), (1, 6, 4))  # as a measurement's file keeps them
    assert (again.spec, again.title) == (operator.spec, operator.title)
    x = torch.rand(2, 1, 6, 4)
    assert torch.equal(again(x), operator(x))
    strange = Mask(keep, (1, 6, 4), spell(keep, "a b:c=d+é.png"))
    assert parse_operator(strange.spec, (1, 6, 4)).title == strange.title == "mask:a b:c=d+é.png"
    assert Mask(keep, (1, 6, 4)).title == "mask:...:shape=6x4"
    assert Downsample((1, 4, 4), 2).title == "downsample:2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("maks:left", "did you mean 'mask'"),
        ("mask:lft", "did you mean 'left'"),
        ("mask:front", "needs 3 spatial axes"),
        ("mask:gone.png", "does not exist"),
        ("mask:box:1.5", "between 0 and 1"),
        ("mask:random:0.5:sed=1", "did you mean 'seed'"),
        ("mask:bits=!!!!:shape=2x2", "damaged"),
        ("downsample:two", "whole factor"),
        ("downsample:0", "factor >= 1"),
        ("downsample:2x2x2", "one whole factor"),
        ("identity:3", "takes no value"),
        ("", "no operator"),
    ],
)
def test_a_mistake_is_told(words, message):
    with pytest.raises(InputError, match=message):
        parse_operator(words, (1, 8, 8))


def test_compose_checks_shapes_and_linearity():
    first = Downsample((1, 8, 8), 2)
    assert (Downsample((1, 4, 4), 2) @ first).linear
    with pytest.raises(ShapeError, match="Downsample after Downsample"):
        compose(first, first)
    shifted = Affine(Identity((1, 8, 8)), torch.ones(1, 8, 8))
    assert not shifted.linear
    both = first @ shifted
    assert not both.linear
    assert torch.equal(both(torch.zeros(2, 1, 8, 8)), torch.ones(2, 1, 4, 4))


def test_matrix_real_and_complex():
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    check_operator(Matrix(real, (1, 3, 4)))
    check_operator(Matrix(torch.complex(real, real.flip(0)), (1, 3, 4)))
    assert torch.allclose(Matrix(real, (1, 3, 4)).dense(), real)


def test_mask_that_keeps_nothing_is_refused():
    with pytest.raises(InputError, match="keeps no entry"):
        Mask(torch.zeros(3, 3, dtype=torch.bool), (1, 3, 3))
