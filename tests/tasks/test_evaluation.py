"""Evaluation does not depend on how the data lie on disk, and says what it cannot say."""

from pathlib import Path

import pytest
import torch

from oneprior.core import InputError, Rows
from oneprior.data import array_dataset, digits
from oneprior.evaluation import Classifier
from oneprior.evaluation.specifications import suite_from
from oneprior.models.configs.ppca import PPCAConfig
from oneprior.models.ppca import PPCA
from oneprior.tasks.evaluation import evaluate
from oneprior.tasks.real import Real, as_stored, first_of_groups, read_real
from oneprior.training.run import Run, save


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A ppca of the first 900 digits, told the digit."""
    data = digits()
    model = PPCA(PPCAConfig(rank=8), data.event_shape, data.conditions)
    batches = lambda: iter([data.batch(torch.arange(900))])  # noqa: E731
    for _ in model.fit_passes(batches, Rows(64, seed=1)):
        pass
    return save(model, tmp_path_factory.mktemp("runs") / "digits", units=data.units, geometry=data.geometry)


def real_of(run: Run, order: torch.Tensor, most: int = 600) -> Real:
    data = digits()
    batch = data.batch(900 + order)
    pixels = data.units.to_units(batch.x).round().numpy().astype("uint8")
    again = array_dataset(pixels, batch.condition["label"].numpy(), data.units, layout="nchw")
    return read_real(run, again, most, Rows(1, seed=0))


def test_a_file_sorted_by_class_is_judged_as_a_shuffled_one(run: Run) -> None:
    labels = digits().batch(torch.arange(900, 1797)).condition["label"]
    in_order, mixed = labels.argsort(stable=True), Rows(1, seed=3).bits(897)[0].argsort()
    train = read_real(run, digits(), 800, Rows(1, seed=1))
    found = []
    for order in (in_order, mixed):
        real = real_of(run, order)
        assert len(real.condition["label"][:60].unique()) == 10  # any first part is a random one
        result = evaluate(run, real, n=150, train=train, features="pca:8", likelihoods=24)
        assert len(result.samples.condition["label"].unique()) == 10
        found.append({row.name: row for row in result.rows})
    for name in ("recall", "precision", "Parzen log-likelihood", "bits per dimension (exact)"):
        a, b = (rows[name] for rows in found)
        scale = a.error if a.error == a.error else 0.05
        assert abs(a.value - b.value) < 6 * scale, name
    assert all(rows["recall"].real > 0.5 for rows in found)  # the second column is a random part as well


def test_samples_are_those_of_the_command_line(run: Run) -> None:
    real = real_of(run, torch.arange(200))
    result = evaluate(run, real, n=30, features="pca:4", likelihoods=0)
    told = {"label": real.condition["label"][7:8]}
    again = run.prior(told).sample(Rows([7], seed=0))
    assert torch.equal(as_stored(run, again)[0], result.samples.x[7])


def test_test_events_that_were_trained_on_are_noticed(run: Run) -> None:
    train = read_real(run, digits(), 800, Rows(1, seed=1))
    result = evaluate(run, train, n=60, train=train, features="pca:4", likelihoods=0)
    assert result.copies is None
    assert any("of the real events are among the training events" in note for note in result.notes)


def test_what_cannot_be_checked_is_told_before_anything_is_drawn(run: Run) -> None:
    real = real_of(run, torch.arange(200))
    for check, message in (
        ({"check": "sharpness", "at_least": "auto"}, "still auto"),
        ({"check": "confidence", "at_least": 0.1}, "--classifier FILE"),
        ({"check": "novel", "at_least": 0.1}, "--train DATA"),
    ):
        with pytest.raises(InputError, match=message):
            next(iter_of(run, real, suite_from({"checks": [check]})))
    other = Classifier((1, 8, 8), 3, Rows(1), width=4)
    with pytest.raises(InputError, match="tells 3 classes, and the run is told 10"):
        evaluate(run, real, n=20, classifier=other)
    wrong = Classifier((1, 8, 8), 10, Rows(1), width=4, names=tuple("abcdefghij"))
    with pytest.raises(InputError, match="tells a, b, c"):
        evaluate(run, real, n=20, classifier=wrong)


def iter_of(run: Run, real: Real, suite):
    from oneprior.tasks.evaluation import evaluate_iter

    return evaluate_iter(run, real, n=20, suite=suite)


def test_few_events_get_no_precision_and_say_so(run: Run) -> None:
    result = evaluate(run, real_of(run, torch.arange(200), most=20), n=100, features="pca:4", likelihoods=0)
    assert "precision" not in [row.name for row in result.rows]
    assert any(note.startswith("No precision and recall: of 20 events") for note in result.notes)


def test_the_first_of_each_group_in_the_order_of_rows() -> None:
    assert first_of_groups(torch.tensor([7, 3, 7, 3, 9])).tolist() == [0, 1, 4]


def test_the_names_of_classes_are_kept_with_the_network(tmp_path: Path) -> None:
    Classifier((1, 8, 8), 2, Rows(1), width=4, names=("cat", "dog")).save(tmp_path / "net.safetensors")
    assert Classifier.load(tmp_path / "net.safetensors").names == ("cat", "dog")
