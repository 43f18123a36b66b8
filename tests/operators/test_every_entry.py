"""Every entry of the table of words obeys the laws of operators, in 1-D, 2-D and 3-D, at odd sizes, in both precisions.

The examples of the table are tried on every shape. Where an operator does not serve a shape it must say so as an
`InputError`, and every example must serve some shape.
"""

from functools import cache

import numpy as np
import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.laws import check_operator
from oneprior.operators import Blur, LinearOperator, Operator, PhaseRetrieval, grammar, parse_operator

SHAPES = [(1, 8, 8), (2, 7, 5), (3, 9, 6), (1, 11), (1, 5, 6, 7), (3, 4, 3, 5)]
SURROGATES = ("jpeg",)  # whose gradient is not theirs but of what they smooth, and says so
EXAMPLES = [words for entry in grammar() for words in entry.examples]


@cache
def _operator(words: str, shape: tuple[int, ...]) -> Operator | None:
    """The operator, or None where it does not serve the shape."""
    try:
        return parse_operator(words, shape)
    except InputError:
        return None


def _asked(words: str, shape: tuple[int, ...]) -> Operator:
    operator = _operator(words, shape)
    if operator is None:
        pytest.skip("does not serve this shape, and says so")
    return operator


every = pytest.mark.parametrize("words", EXAMPLES)
everywhere = pytest.mark.parametrize("shape", SHAPES, ids=str)


@every
def test_an_example_serves_some_shape_and_says_its_words(words):
    served = [(shape, op) for shape in SHAPES if (op := _operator(words, shape)) is not None]
    assert served, f"{words} serves none of {SHAPES}"
    for shape, operator in served:
        assert operator.spec
        x = Rows(2).uniform(*shape)
        assert torch.equal(parse_operator(operator.spec.split(" "), shape)(x), operator(x))


@every
@everywhere
def test_the_laws_hold(words, shape):
    operator = _asked(words, shape)
    check_operator(operator)
    check_operator(operator, dtype=torch.float32)


@every
@everywhere
def test_the_adjoint_is_the_transpose_of_the_matrix(words, shape):
    operator = _asked(words, shape)
    if not isinstance(operator, LinearOperator):
        pytest.skip("not linear")
    dense = operator.dense()
    unit = torch.eye(len(dense), dtype=dense.dtype).reshape(-1, *operator.out_shape)
    scale = dense.abs().max()
    assert (operator.adjoint(unit).flatten(1) - dense.real).abs().max() <= 1e-10 * scale
    if dense.is_complex():
        assert (operator.adjoint(1j * unit).flatten(1) - dense.imag).abs().max() <= 1e-10 * scale
    if operator.disjoint:
        gram = dense @ dense.mH
        assert (gram - torch.diag(gram.diagonal())).abs().max() <= 1e-12 * scale**2


@every
@everywhere
def test_how_the_numbers_lie_in_memory_does_not_matter(words, shape):
    operator = _asked(words, shape)
    x = Rows(2).uniform(*shape, dtype=torch.float64)
    scattered = x.movedim(1, -1).contiguous().movedim(-1, 1).mT.contiguous().mT
    assert torch.allclose(operator(scattered), operator(x), rtol=1e-12, atol=1e-12)
    if isinstance(operator, LinearOperator):
        y = operator(x)
        wide = torch.stack([y, y], -1)[..., 0]
        assert not wide.is_contiguous()
        assert torch.allclose(operator.adjoint(wide), operator.adjoint(y), rtol=1e-12, atol=1e-12)


@every
@everywhere
def test_gradients_go_through_where_it_says_so(words, shape):
    operator = _asked(words, shape)
    if not operator.differentiable:
        pytest.skip("not differentiable, and says so")
    x = Rows(2).uniform(*shape, dtype=torch.float64).requires_grad_()
    y = operator(x)
    v = Rows(2, seed=1).normal(*operator.out_shape, dtype=torch.float64).to(y.dtype)
    (slope,) = torch.autograd.grad(y, x, v)
    assert bool(torch.isfinite(slope).all())
    if isinstance(operator, LinearOperator):
        assert torch.allclose(slope, operator.adjoint(v), rtol=1e-10, atol=1e-10)
        return
    if words.split(":")[0] in SURROGATES:
        return
    direction = Rows(2, seed=2).normal(*shape, dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        change = (operator(x + step * direction) - operator(x - step * direction)) / (2 * step)
        numeric = (change.conj() * v).real.sum()
        analytic = (slope * direction).sum()
    assert abs(float(numeric - analytic)) <= 1e-4 * float(slope.norm() * direction.norm()) + 1e-8


@pytest.mark.parametrize(
    "words",
    [
        "phase:1.6666666666666667",  # 50 numbers a side, and 51 of the six digits 1.66667
        "bicubic:2.142857142857143",
        "blur:gaussian:1.23456789",
        "blur:motion:3.14159265:angle=12.3456789",
        "ct:limited:120.123456789:views=3",
        "mri:random:3.33333333:center=0.123456789",
        "mask:random:0.123456789",
        "mask:box:0.123456789",
    ],
)
def test_words_keep_every_digit(words):
    operator = parse_operator(words, (1, 30, 30))
    x = Rows(2).uniform(1, 30, 30)
    assert torch.equal(parse_operator(operator.spec.split(" "), (1, 30, 30))(x), operator(x))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("downsample:4:5", "downsample takes 1 value"),
        ("bicubic:4:5", "bicubic takes 1 value"),
        ("blur:gaussian:1:2", "blur takes 2 values"),
        ("mask:left:0.5", "mask:left takes 1 value"),
        ("mask:box:0.5:1", "mask:box takes 2 values"),
        ("mri:equispaced:inf", "acceleration >= 1"),
        ("ct:parallel:3:angles=0..inf", "a range of angles"),
        ("ct:fan:3:distance=inf", "distance > 1"),
        ("ct:fan:3:distance=0", "more than 1 half diagonal"),
        ("saturation:-inf..1:soft=0.1", "soft=0, or limits"),
    ],
)
def test_what_no_instrument_is_is_told(words, message):
    with pytest.raises(InputError, match=message):
        parse_operator(words, (1, 8, 8))


def test_meanings_are_sentences():
    for entry in grammar():
        assert entry.meaning.endswith(".")


def test_wrong_kernels_and_shapes_are_told(tmp_path):
    for kernel in (torch.full((3, 3), float("nan")), torch.ones(3, 3, dtype=torch.complex64)):
        with pytest.raises(InputError, match="real and finite"):
            Blur((1, 8, 8), kernel)
    np.save(tmp_path / "kernel.npy", np.ones((3, 3), complex))
    with pytest.raises(InputError, match="is complex"):
        parse_operator([f"blur:{tmp_path / 'kernel.npy'}"], (1, 8, 8))
    with pytest.raises(InputError, match="1 to 3 spatial axes"):
        PhaseRetrieval((1, 2, 2, 2, 2))
