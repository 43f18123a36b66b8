"""Instruments that are partly known: adjoints and gradients, rows of their own, nominal = known, words and mistakes."""

import pytest
import torch
from torch.autograd import gradcheck

from oneprior.core import AffineMap, InputError, Rows, ShapeError
from oneprior.laws import check_operator
from oneprior.operators import (
    Affine,
    Downsample,
    LinearOperator,
    UncertainOperator,
    gaussian_blur,
    motion_blur,
    parse_operator,
)
from oneprior.operators.fields import cosine_basis
from oneprior.operators.uncertain import Joined
from oneprior.tasks.measurement import simulate

CASES = [
    ((1, 11), "unknown-blur:0.6:boundary=zero"),
    ((2, 7, 5), "unknown-blur:0.6"),
    ((1, 3, 4, 5), "unknown-blur:0.5:boundary=circular"),
    ((2, 7, 5), "unknown-blur:0.6:shape=ellipse"),
    ((1, 7, 6), "unknown-motion:2:angle=30"),
    ((1, 9), "unknown-kernel:3:sigma=0.6:spread=0.5"),
    ((2, 5, 6), "unknown-kernel:3:sigma=0.6:spread=0.5:boundary=circular"),
    ((2, 7, 5), "unknown-bias:0.3"),
    ((1, 3, 4, 5), "unknown-bias:0.3:order=2"),
    ((1, 6, 5), "unknown-mri:random:1.5:coils=3"),
    ((2, 6, 5), "unknown-mri:full:coils=2:spread=0.1:degree=1"),
    ((3, 6, 7), "unknown-page:0.4:stains=1"),
    ((1, 6, 7), "unknown-page:0.4:stains=2:bleed=0.5:range=-1..1"),
    ((1, 8, 6), "unknown-blur:0.6 downsample:2"),
    ((1, 8, 6), "unknown-bias:0.2 unknown-blur:0.6 mask:left"),
]


def pair(operator, n=2):
    rows = Rows(n, seed=1)
    x = rows.normal(*operator.in_shape, dtype=torch.float64)
    return x, 0.3 * rows.normal(*operator.theta_shape, dtype=torch.float64)


@pytest.mark.parametrize(("shape", "words"), CASES, ids=lambda v: str(v))
def test_laws_gradients_and_rows_of_their_own(shape, words):
    operator = parse_operator(words, shape)
    assert isinstance(operator, UncertainOperator)
    check_operator(operator)
    again = parse_operator(operator.spec, shape)
    x, theta = pair(operator)
    y = operator.evaluate(x, theta)
    assert torch.allclose(again.evaluate(x, theta), y)
    assert torch.equal(operator(x), operator.evaluate(x, 0 * theta))
    for i in range(2):
        assert torch.allclose(operator.at(theta[i : i + 1])(x[i : i + 1]), y[i : i + 1], atol=1e-12)
    both = operator.at(theta)
    assert torch.allclose(both(torch.cat([x, x])), torch.cat([y, y]), atol=1e-12)  # draw-major
    assert torch.allclose(Joined(operator)(torch.cat([x.flatten(1), theta], 1)), y, atol=1e-12)
    real = (lambda a, b: torch.view_as_real(operator.evaluate(a, b))) if y.is_complex() else operator.evaluate
    assert gradcheck(real, (x.requires_grad_(), theta.requires_grad_()), atol=1e-5)
    for value in operator.physical(theta.detach()).values():
        assert len(value) == 2
        assert torch.isfinite(value).all()


@pytest.mark.parametrize(("shape", "words"), CASES, ids=lambda v: str(v))
def test_with_theta_given_a_linear_instrument_has_an_exact_adjoint(shape, words):
    operator = parse_operator(words, shape)
    _, theta = pair(operator)
    bound = operator.at(theta[:1])
    check_operator(bound)
    if operator.form == "general":
        assert not bound.linear
        return
    part = bound.part if isinstance(bound, Affine) else bound
    assert isinstance(bound, Affine) == (operator.form == "affine")
    assert isinstance(part, LinearOperator)
    dense = part.dense()
    unit = torch.eye(part.out_shape.numel(), dtype=dense.dtype).reshape(-1, *part.out_shape)
    back = part.adjoint(unit).flatten(1)
    if dense.is_complex():  # over pairs of reals: the real part of A^H
        assert (back - dense.real).abs().max() < 1e-10
        assert (part.adjoint(1j * unit).flatten(1) - dense.imag).abs().max() < 1e-10
    else:
        assert (back - dense).abs().max() < 1e-10
    assert not operator.at(theta).linear  # rows of their own have no one matrix


@pytest.mark.parametrize("noise", ["1%", "unknown", "poisson:1000"])
@pytest.mark.parametrize("words", ["unknown-bias:0.5", "unknown-page:0.4", "unknown-blur:1"])
def test_rows_with_instruments_of_their_own_are_as_each_alone(words, noise):
    operator, units = parse_operator(words, (1, 8, 8)), AffineMap.from_range(0, 255)
    theta, x = Rows(3).normal(*operator.theta_shape), Rows(3).normal(1, 8, 8).sigmoid()
    measurement = simulate(2 * x - 1, operator.at(theta), noise, Rows(3), units=units)
    likelihood = measurement.noise.likelihood(measurement.y, measurement.operator)
    whole = likelihood.pullback(units).log_prob(2 * x - 1)
    swapped = likelihood.pullback(units).take(torch.tensor([2, 0])).log_prob(2 * x[[2, 0]] - 1)
    assert torch.allclose(swapped, whole[[2, 0]])
    assert torch.allclose(measurement.take(slice(1, 3)).misfit(255 * x[1:]), measurement.misfit(255 * x)[1:])
    for i in range(3):
        alone = measurement.noise.likelihood(measurement.y[i : i + 1], operator.at(theta[i : i + 1]))
        found = alone.pullback(units).log_prob(2 * x[i : i + 1] - 1)
        assert torch.allclose(found, whole[i], rtol=1e-4, atol=0.01)


def test_the_nominal_instrument_is_the_known_one():
    x = Rows(2).normal(2, 12, 9, dtype=torch.float64)
    for boundary in ("reflect", "zero", "circular"):
        words = f"unknown-blur:1.2:boundary={boundary}"
        known = gaussian_blur((2, 12, 9), 1.2, boundary)(x)
        for shape in ("", ":shape=ellipse"):
            assert torch.allclose(parse_operator(words + shape, (2, 12, 9))(x), known, atol=2e-4)
    path = motion_blur((2, 12, 9), 5.0, 30.0)(x)
    assert (parse_operator("unknown-motion:5:angle=30", (2, 12, 9))(x) - path).std() < 0.25 * path.std()
    scanner = parse_operator("mri:random:2:coils=3:seed=1", (2, 12, 9))
    uncertain = parse_operator("unknown-mri:random:2:coils=3:seed=1", (2, 12, 9))
    assert torch.allclose(uncertain(x), scanner(x))
    assert torch.equal(parse_operator("unknown-bias:0.3", (2, 12, 9))(x), x)


def test_what_theta_means():
    theta = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, -0.6]], dtype=torch.float64)
    blur = parse_operator("unknown-blur:1.5:shape=ellipse:spread=50%", (1, 41, 41))
    seen = blur.physical(theta)
    place = torch.arange(-20.0, 21.0, dtype=torch.float64)
    point = torch.zeros(3, 1, 41, 41, dtype=torch.float64)
    point[:, 0, 20, 20] = 1
    spot = blur.evaluate(point, theta)[:, 0]
    for k in range(3):  # the long axis from the moments of the spot, counter-clockwise from the right
        rows, columns = (spot[k].sum(d) @ place.square() for d in (1, 0))
        cross = place @ spot[k] @ place
        covariance = torch.stack([torch.stack([columns, -cross]), torch.stack([-cross, rows])])
        values, vectors = torch.linalg.eigh(covariance)
        assert values[1].sqrt() == pytest.approx(float(seen["long axis in pixels"][k]), rel=0.01)
        assert values[0].sqrt() == pytest.approx(float(seen["short axis in pixels"][k]), rel=0.01)
        if k:
            angle = float(torch.rad2deg(torch.atan2(vectors[1, 1], vectors[0, 1]))) % 180
            assert angle == pytest.approx(float(seen["angle in degrees"][k]), abs=0.5)
    motion = parse_operator("unknown-motion:8:angle=20:turn=10", (1, 41, 41))
    spot = motion.evaluate(point[:1], torch.tensor([[0.0, 1.0]]))[0, 0]
    rows, columns, cross = place.square() @ spot.sum(1), spot.sum(0) @ place.square(), -(place @ spot @ place)
    angle = 0.5 * torch.rad2deg(torch.atan2(2 * cross, columns - rows))
    assert float(angle) == pytest.approx(30, abs=0.5)


def test_a_smooth_field_has_the_stated_spread():
    for space in ((40,), (12, 9), (5, 6, 7)):
        basis = cosine_basis(space, 3)
        assert basis.flatten(1).mean(1).abs().max() < 1e-12
        assert float(basis.square().flatten(1).mean(1).sum()) == pytest.approx(1)
    with pytest.raises(InputError, match="too small"):
        cosine_basis((1, 1), 2)


def test_a_page_is_affine_and_fades_to_paper():
    known = parse_operator("page:0.5:seed=3", (1, 20, 30))
    assert isinstance(known, Affine)
    x = torch.zeros(1, 1, 20, 30)
    assert float(known(x).min()) > 0
    white = known(torch.full_like(x, 229.5))  # paper stays paper but for the stains
    assert float(white.max()) <= 229.5 + 1e-3
    assert float(white.min()) < 0.8 * 229.5
    clean = parse_operator("page:0.5:stains=0:seed=3", (1, 20, 30))
    assert torch.allclose(clean(torch.full_like(x, 229.5)), torch.tensor(229.5))


def test_known_members_of_an_uncertain_family_have_words():
    one = parse_operator("bias:0.2:order=1:theta=0.5,-1", (1, 6, 5))
    field = parse_operator("unknown-bias:0.2:order=1", (1, 6, 5)).field(torch.tensor([[0.5, -1.0]]))
    assert torch.allclose(one(torch.ones(1, 1, 6, 5))[:, 0], field)
    assert one.disjoint
    y = torch.ones(1, 1, 6, 5, dtype=torch.float64)
    assert torch.allclose(one(one.pinv(y)), y)
    drawn = [parse_operator(f"bias:0.3:seed={s}", (1, 6, 5))(y) for s in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_composition_lays_parameters_end_to_end():
    bias, blur = (parse_operator(w, (1, 8, 6)) for w in ("unknown-bias:0.2", "unknown-blur:1"))
    both = blur @ bias
    assert both.theta_shape == (bias.theta_shape[0] + 1,)
    theta = Rows(2).normal(*both.theta_shape, dtype=torch.float64)
    x = Rows(2, seed=1).normal(1, 8, 6, dtype=torch.float64)
    expected = blur.evaluate(bias.evaluate(x, theta[:, :-1]), theta[:, -1:])
    assert torch.equal(both.evaluate(x, theta), expected)
    assert set(both.physical(theta)) == {"bias field", "blur width in pixels"}
    assert set((blur @ blur).physical(theta[:, :2])) == {"blur width in pixels", "second blur width in pixels"}
    assert (parse_operator("saturation:0..1", (1, 8, 6)) @ blur).form == "general"
    assert (Downsample((1, 8, 6), 2) @ parse_operator("unknown-page:0.4", (1, 8, 6))).form == "affine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("unknown-blur:0", "width > 0"),
        ("unknown-blur:1:spread=400%", "spread between 0 and 3"),
        ("unknown-blur:1:shape=square", "no shape 'square'"),
        ("unknown-blur:1:boundary=none", "no boundary"),
        ("unknown-motion:5:turn=0", "an angle and its deviation"),
        ("unknown-motion:5:angle=nan", "an angle and its deviation"),
        ("unknown-kernel:4", "odd side"),
        ("unknown-bias:0", "spread of a bias field"),
        ("bias:0.3:theta=1,2", "needs 9 finite numbers"),
        ("bias:0.3:order=1:theta=nan,0", "needs 2 finite numbers"),
        ("unknown-blur:1 + downsample:2", "beside another instrument is not inferred"),
        ("bias:0.3:theta=a", "numbers with commas"),
        ("unknown-page:1.5", "fade and strength in"),
        ("unknown-mri:random:2", "nominal maps"),
    ],
)
def test_a_mistake_is_told(words, message):
    with pytest.raises(InputError, match=message):
        parse_operator(words, (1, 16, 16))


def test_a_theta_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match="theta"):
        parse_operator("unknown-blur:1", (1, 8, 8)).at(torch.zeros(2, 3))
