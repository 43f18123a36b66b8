"""The library of measures against what they say of themselves."""

import numpy as np
import pytest
import torch
from skimage.measure import label

from oneprior.core import AffineMap, InputError, Rows
from oneprior.evaluation.specifications import MEASURES, Judges, Outputs, measure_named
from oneprior.likelihoods import GaussianLikelihood
from oneprior.operators.identity import Identity


def value(name: str, outputs: Outputs, **parameters: object) -> torch.Tensor:
    return measure_named(name, parameters)[0](outputs)


def pictures(n: int = 5, *space: int) -> Outputs:
    return Outputs(Rows(n, seed=2).uniform(1, *(space or (12, 10))) * 2 - 1, units=AffineMap.from_range(0, 255))


@pytest.mark.parametrize("space", [(40,), (14, 11), (7, 6, 8)])
def test_connected_parts_are_those_of_scikit_image(space: tuple[int, ...]) -> None:
    outputs = pictures(6, *space)
    above = (outputs.values > 128)[:, 0].numpy()
    counts, largest = [], []
    for one in above:
        found, number = label(one, connectivity=1, return_num=True)
        counts.append(number)
        largest.append(np.bincount(found.ravel())[1:].max() / one.sum())
    assert value("parts", outputs, threshold=128).tolist() == counts
    assert value("largest_part", outputs, threshold=128).numpy() == pytest.approx(largest)


def test_an_empty_picture_has_no_part() -> None:
    outputs = Outputs(torch.full((2, 1, 5, 5), -1.0))
    assert value("parts", outputs, threshold=0.0).tolist() == [0, 0]
    assert value("largest_part", outputs, threshold=0.0).tolist() == [0, 0]


def test_values_are_told_in_the_users_units() -> None:
    outputs = pictures()
    for name, function in (("smallest", torch.amin), ("largest", torch.amax), ("mean", torch.mean)):
        assert torch.allclose(value(name, outputs), function(outputs.values.flatten(1), 1))
    assert torch.allclose(value("contrast", outputs), outputs.values.flatten(1).std(1))
    assert torch.allclose(
        value("foreground", outputs, threshold=200).float(), (outputs.values > 200).flatten(1).float().mean(1)
    )


def test_sharpness_falls_with_blur_and_is_the_same_at_any_brightness() -> None:
    from oneprior.evaluation.specifications.mutants import blurred, noisy

    outputs = blurred(Outputs(pictures(4, 24, 24).x), 1.5, Rows(1))
    for name in ("sharpness", "fine_detail"):
        plain = value(name, outputs)
        assert (value(name, blurred(outputs, 1.0, Rows(1))) < plain).all()
        assert (value(name, noisy(outputs, 0.2, Rows(1))) > plain).all()
        assert torch.allclose(value(name, Outputs(0.5 * outputs.x + 0.1)), plain, rtol=1e-5)


def test_symmetry_of_a_symmetric_picture_is_one() -> None:
    x = pictures(3).x
    assert torch.allclose(value("symmetry", Outputs(x + x.flip(-1))), torch.ones(3, dtype=torch.float64))


def test_the_border_and_the_plateau() -> None:
    x = torch.full((2, 1, 6, 6), -1.0)
    x[0, 0, 2:4, 2:4], x[1, 0, 0, 3] = 1.0, 0.5
    outputs = Outputs(x)
    assert value("border", outputs).tolist() == [-1.0, 0.5]
    assert value("plateau", outputs).tolist() == pytest.approx([4 / 36, 1 / 36])


def test_judges_see_labels_and_segments() -> None:
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 5.0]])
    judges = Judges(classify=lambda x: logits[: len(x)], segment=lambda x: (x[:, 0] > 0).long())
    outputs = Outputs(pictures(3).x, {"label": torch.tensor([0, 1, 1])}, judges=judges)
    assert value("label_probability", outputs).tolist() == pytest.approx(
        [0.5, 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-5))]
    )
    assert value("label_rank", outputs).tolist() == [1, 2, 1]
    assert torch.allclose(value("class_share", outputs), (outputs.x > 0).flatten(1).double().mean(1))
    assert float(value("class_imbalance", outputs)) == pytest.approx(abs(2 / 3 - 1 / 2))
    assert float(value("class_imbalance", outputs, condition="label")) == pytest.approx(abs(2 / 3 - 1 / 3))


def test_a_missing_judge_or_condition_says_what_to_give() -> None:
    with pytest.raises(InputError, match="--classifier FILE"):
        value("confidence", pictures())
    with pytest.raises(InputError, match="condition 'label', and the outputs were asked for nothing"):
        value("label_probability", Outputs(pictures().x, judges=Judges(classify=lambda x: x)))


def test_delivered_and_rising_amounts() -> None:
    judges = Judges(generate=lambda rows, told: told["amount"].reshape(-1, 1, 1, 1).expand(-1, 1, 3, 3) * 0.5)
    told = {"amount": torch.tensor([[0.0], [1.0]])}
    outputs = Outputs(judges.generate(torch.arange(2), told), told, judges=judges)  # type: ignore[misc]
    assert value("delivered_error", outputs, measure="mean", condition="amount").tolist() == pytest.approx([0, -0.5])
    assert value("rises_with", outputs, measure="mean", condition="amount", by=0.4).tolist() == pytest.approx(
        [0.2, 0.2]
    )
    assert value("repeat_distance", outputs).tolist() == [0, 0]


def test_misfit_is_of_the_measurement() -> None:
    x = pictures(4).x
    y = x + 0.3
    evidence = GaussianLikelihood(y, Identity(x.shape[1:]), 0.1)
    assert value("misfit", Outputs(x, judges=Judges(evidence=evidence))).tolist() == pytest.approx([3.0] * 4, rel=1e-5)
    part = Outputs(x, judges=Judges(evidence=evidence)).take(torch.tensor([2]))
    assert float(value("misfit", part)) == pytest.approx(3.0, rel=1e-5)


def test_distances_within_the_set_and_to_the_training_set() -> None:
    x = pictures(6).x
    outputs = Outputs(torch.cat([x, x[:1]]), units=AffineMap.from_range(0, 255), judges=Judges(train=x + 0.1))
    found = value("distinct", outputs)
    assert float(found[-1]) == pytest.approx(0, abs=1e-5)
    assert (found[:-1] > 1).all()
    assert (value("novel", outputs) <= 0.1 * 127.5 + 1e-3).all()


def test_the_residual_is_what_the_training_events_do_not_span() -> None:
    basis = torch.linalg.qr(Rows(30, seed=1).normal(3).double()).Q  # (30, 3)
    train = (Rows(40, seed=2).normal(3).double() @ basis.T).reshape(40, 1, 5, 6)
    inside = train[:4] * 2
    outputs = Outputs(torch.cat([inside, Rows(2, seed=3).normal(1, 5, 6).double()]), judges=Judges(train=train))
    found = value("residual", outputs, components=3)
    assert (found[:4] < 1e-5).all()
    rest = outputs.x[4:].flatten(1) - train.flatten(1).mean(0)
    left = rest - rest @ basis @ basis.T
    assert torch.allclose(found[4:], left.norm(dim=1) / rest.norm(dim=1))
    with pytest.raises(InputError, match="--train DATA"):
        value("residual", Outputs(inside))


def test_every_measure_says_what_it_is() -> None:
    for name, (function, _) in MEASURES.items():
        assert function.__doc__, name
