"""The feature classifier learns, is reproducible, and its file is guarded by its hash."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from oneprior.core import BadRunError, InputError, Rows, ShapeError
from oneprior.evaluation import Classifier, frechet_distance, train_classifier


def _stripes(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes: horizontal and vertical stripes of random phase, with noise."""
    rows = Rows(n, seed=seed)
    labels = rows.integers(2)
    wave = torch.sin(torch.arange(8.0)[None] * 1.6 + 6.3 * rows.uniform(1))[:, None, :].expand(n, 8, 8)
    x = torch.where(labels[:, None, None].bool(), wave, wave.mT)
    return (0.7 * x + 0.3 * rows.normal(8, 8)).unsqueeze(1), labels


@pytest.fixture(scope="module")
def network() -> Classifier:
    return train_classifier(*_stripes(400, 1), Rows(32, seed=2), steps=60, width=8, label="stripes")


def test_it_learns(network):
    x, labels = _stripes(300, 3)
    accuracy = float((network.classify(x, batch=64) == labels).float().mean())
    assert accuracy > 0.9
    assert network.embed(x, batch=64).shape == (300, 32)


def test_its_features_tell_bad_samples_from_good(network):
    real, other = network.embed(_stripes(300, 4)[0]), network.embed(_stripes(300, 5)[0])
    noise = network.embed(Rows(300, seed=6).normal(1, 8, 8))
    one_class = network.embed(_stripes(600, 7)[0][_stripes(600, 7)[1] == 0][:300])
    floor = float(frechet_distance(real, other))
    assert float(frechet_distance(real, noise)) > 2 * floor
    assert float(frechet_distance(real, one_class)) > 10 * floor


def test_the_same_rows_give_the_same_network(network):
    x, labels = _stripes(40, 1)
    a, b = (train_classifier(x, labels, Rows(8, seed=2), steps=3, width=8) for _ in range(2))
    assert a.fingerprint == b.fingerprint
    assert a.fingerprint != train_classifier(x, labels, Rows(8, seed=3), steps=3, width=8).fingerprint
    assert network.name == f"stripes-{network.fingerprint[:8]}"


def test_save_and_load_are_equal_to_the_bit(network, tmp_path):
    network.save(tmp_path / "c.safetensors")
    again = Classifier.load(tmp_path / "c.safetensors")
    x = _stripes(10, 8)[0]
    assert torch.equal(network.embed(x), again.embed(x))
    assert again.name == network.name


@pytest.mark.parametrize("space", [(12,), (6, 6, 6)])
def test_one_and_three_dimensions(space):
    x = Rows(4, seed=9).normal(2, *space)
    assert Classifier((2, *space), 3, Rows(1, seed=1), width=4).embed(x).shape == (4, 16)


def test_bad_files_and_inputs_are_named(network, tmp_path):
    with pytest.raises(BadRunError, match="readable safetensors"):
        Classifier.load(tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"short")
    with pytest.raises(BadRunError, match="readable safetensors"):
        Classifier.load(tmp_path / "broken.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(BadRunError, match="holds no classifier"):
        Classifier.load(tmp_path / "foreign.safetensors")
    path = tmp_path / "changed.safetensors"
    network.save(path)
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    state = load_file(path)
    save_file({k: v + 1e-3 for k, v in state.items()}, path, metadata=metadata)
    with pytest.raises(BadRunError, match="hash"):
        Classifier.load(path)
    with pytest.raises(InputError, match="one label for each"):
        train_classifier(torch.zeros(3, 1, 8, 8), torch.zeros(2, dtype=torch.int64), Rows(2))
    with pytest.raises(InputError, match="two classes"):
        train_classifier(torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64), Rows(2))
    with pytest.raises(ShapeError, match="Up to three"):
        Classifier((1, 2, 2, 2, 2), 3)
