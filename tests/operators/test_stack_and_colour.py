"""Several measurements of one event, and colour to grey."""

import numpy as np
import pytest
import torch
from PIL import Image

from oneprior.core import InputError, Rows, ShapeError
from oneprior.laws import check_operator
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators import Affine, Downsample, Grey, Identity, Matrix, Stack, compose, parse_operator, stack
from oneprior.tasks.measurement import Measurement, simulate


def test_a_stack_is_its_parts_laid_end_to_end():
    shape = (2, 7, 5)
    operator = parse_operator("downsample:2 + mask:left downsample:3 + blur:gaussian:1", shape)
    assert isinstance(operator, Stack)
    check_operator(operator)
    parts = [parse_operator(w, shape) for w in ("downsample:2", "mask:left downsample:3", "blur:gaussian:1")]
    dense = operator.dense()
    assert torch.equal(parse_operator([operator.spec], shape).dense(), dense)  # one word of a command line
    assert torch.equal(dense, torch.cat([part.dense() for part in parts]))
    unit = torch.eye(len(dense), dtype=torch.float64)
    assert (operator.adjoint(unit).flatten(1) - dense).abs().max() < 1e-14
    assert torch.equal(parse_operator(operator.spec, shape).dense(), dense)
    y = operator(torch.ones(3, *shape))
    assert [tuple(piece.shape[1:]) for piece in operator.split(y)] == [tuple(part.out_shape) for part in parts]


def test_a_part_that_is_complex_makes_the_stack_complex():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 6, dtype=torch.complex128, generator=generator)
    operator = stack([Matrix(matrix, (1, 2, 3)), Identity((1, 2, 3))])
    check_operator(operator)
    dense = operator.dense()
    assert dense.is_complex()
    unit = torch.eye(10, dtype=torch.complex128)
    assert (operator.adjoint(unit).flatten(1) - dense.real).abs().max() < 1e-14
    assert (operator.adjoint(1j * unit).flatten(1) - dense.imag).abs().max() < 1e-14


def test_two_looks_have_the_density_of_their_product():
    x = Rows(3).normal(1, 6, 6)
    operator = parse_operator("downsample:2 + mask:left", (1, 6, 6))
    measurement = simulate(x, operator, 0.1, Rows(3, seed=1))
    together = GaussianLikelihood(measurement.y, operator, 0.1).log_prob(x)
    apart = [
        GaussianLikelihood(y, part, 0.1).log_prob(x)
        for y, part in zip(operator.split(measurement.y), operator.parts, strict=True)
    ]
    assert torch.allclose(together, sum(apart), rtol=1e-5)


def test_a_stack_is_saved_with_its_measurement(tmp_path):
    x = Rows(2).normal(1, 6, 6)
    measurement = simulate(x, "downsample:2 + blur:motion:3", 0.1, Rows(2))
    again = Measurement.load(measurement.save(tmp_path / "y"))
    assert torch.equal(again.operator(x), measurement.operator(x))


def test_words_of_compositions_with_stacks():
    both = parse_operator("downsample:2 + mask:top", (1, 4, 4))
    first = Downsample((1, 8, 8), 2)
    after = compose(both, first)
    assert after.spec == "downsample:2 downsample:2 + downsample:2 mask:top"
    assert torch.equal(parse_operator(after.spec, (1, 8, 8)).dense(), after.dense())
    assert compose(Identity(both.out_shape), both).spec == ""  # what follows a stack has no words


def test_a_stack_of_a_nonlinear_part_is_not_linear():
    operator = stack([Affine(Identity((1, 4)), torch.ones(1, 4)), Identity((1, 4))])
    assert not operator.linear
    check_operator(operator)
    assert torch.equal(operator(torch.zeros(1, 1, 4)), torch.tensor([[1.0] * 4 + [0.0] * 4]))


def test_a_wrong_stack_is_told():
    with pytest.raises(InputError, match="between operators"):
        parse_operator("downsample:2 +", (1, 4, 4))
    with pytest.raises(ShapeError, match="part of a stack"):
        stack([Identity((1, 4)), Identity((1, 5))])
    with pytest.raises(InputError, match="at least one"):
        stack([])


def test_grey_is_that_of_picture_programs():
    x = torch.randint(0, 256, (3, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    wanted = np.asarray(Image.fromarray(x.movedim(0, 2).numpy()).convert("L"))
    grey = Grey((3, 5, 4))(x[None].float())[0, 0].numpy()
    assert np.abs(grey - wanted).max() <= 0.51
    mean = parse_operator("grey:mean", (3, 5, 4))
    assert torch.allclose(mean(x[None].double()), x[None].double().mean(1, keepdim=True))
    y = torch.randn(2, 1, 5, 4, dtype=torch.float64)
    assert (
        Grey((3, 5, 4)).pinv(y).flatten(1) - y.flatten(1) @ torch.linalg.pinv(Grey((3, 5, 4)).dense()).T
    ).abs().max() < 1e-12


def test_grey_needs_colour():
    with pytest.raises(InputError, match="3 channels"):
        parse_operator("grey", (1, 5, 5))
    with pytest.raises(InputError, match="no form 'means'; did you mean 'mean'"):
        parse_operator("grey:means", (3, 5, 5))
