"""Features have honest names, one grammar, and stream; bad input is told."""

import dataclasses
import hashlib
import sys

import pytest
import torch
from torch import nn

from oneprior.core import BadRunError, InputError, Rows, ShapeError
from oneprior.evaluation import Classifier, FeatureStatistics, frechet_distance
from oneprior.evaluation.embed import Features, open_features, own_features, principal_features, statistics
from oneprior.evaluation.networks import PUBLISHED, Inception, dinov2

SHAPE = (1, 6, 5)


def events(n=40, seed=1, shape=SHAPE):
    return Rows(n, seed=seed).uniform(*shape) * 2 - 1


@pytest.fixture
def own(tmp_path):
    network = Classifier(SHAPE, 3, Rows(1, seed=2), width=8, label="films")
    network.save(tmp_path / "films.safetensors")
    return network, tmp_path / "films.safetensors"


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights under the published names."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    state = Inception().state_dict()
    torch.save({name: value for name, value in state.items() if not name.endswith("tracked")}, path)
    return path


def vouch(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_own_features_by_word_path_and_object(own):
    network, path = own
    x = events()
    expected = network.embed(x)
    for features in (open_features(f"own:{path}"), open_features(str(path)), own_features(network)):
        assert features.name == network.name
        assert features.dimension == 32
        assert not features.comparable
        assert features.distance_name == f"Frechet distance ({network.name})"
        assert features.kernel_name == f"kernel distance ({network.name})"
        assert torch.equal(features(x), expected)
        assert torch.allclose(features.embed(x, batch=7), expected, atol=1e-6)
        assert features.stages is not None
        assert [stage.shape[1] for stage in features.stages(x)] == [8, 16, 32, 32]
    with pytest.raises(ShapeError, match="knows one shape only"):
        own_features(network)(events(shape=(1, 6, 6)))
    with pytest.raises(BadRunError, match="no readable safetensors file"):
        open_features("own:nowhere.safetensors")


def test_pixels():
    x = events()
    features = open_features("pixels", x)
    assert (features.name, features.dimension, features.distance_name) == ("pixels", 30, "Frechet distance (pixels)")
    assert torch.equal(features(x), x.flatten(1))
    volumes = events(3, shape=(2, 3, 4, 5))
    assert open_features("pixels", volumes)(volumes).shape == (3, 120)


@pytest.mark.parametrize("n", [200, 20])  # more events than pixels, and fewer
def test_principal_components_are_those_of_numpy(n):
    x = events(n)
    features = open_features("pca:4", x)
    assert features.dimension == 4
    assert features.name.startswith("pca4-")
    pixels = x.flatten(1).double()
    _, _, axes = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    expected = (pixels - pixels.mean(0)) @ axes[:4].T
    found = features(x).double()
    signs = (found * expected).sum(0).sign()
    assert torch.allclose(found, expected * signs, atol=1e-5)
    assert torch.equal(features(x), open_features("pca:4", x)(x))
    assert features.name != open_features("pca:4", events(n, seed=9)).name


def test_principal_components_need_enough_events():
    with pytest.raises(InputError, match="9 directions; give pca:9 or less"):
        open_features("pca:10", events(10))
    flat = events(50)
    flat[:, :, :, 1:] = 0.5
    with pytest.raises(InputError, match="vary in 6 directions"):
        open_features("pca:7", flat)
    assert open_features("pca:6", flat).dimension == 6
    many = events(9000, shape=(1, 3, 3))
    assert principal_features(many, 2).dimension == 2  # fitted on every third
    with pytest.raises(InputError, match="pca:K with the number"):
        open_features("pca:many", events())
    with pytest.raises(InputError, match="nan or infinity"):
        open_features("pca:2", torch.full((9, *SHAPE), float("nan")))


def test_functions_and_modules():
    x = events()

    def means(x):
        return x.mean((2, 3))

    features = open_features(means, x)
    assert (features.name, features.dimension) == ("means", 1)
    assert features.distance_name == "Frechet distance (means)"
    assert torch.equal(features(x), means(x))
    module = nn.Sequential(nn.Flatten(), nn.Linear(30, 4))
    with pytest.raises(InputError, match="training mode"):
        open_features(module, x)
    first = open_features(module.eval(), x)
    assert first.name.startswith("Sequential-")
    assert not first(x).requires_grad
    other = open_features(nn.Sequential(nn.Flatten(), nn.Linear(30, 4)).eval(), x)
    assert first.name != other.name
    assert next(first.to("cpu").network.parameters()).device.type == "cpu"  # pyright: ignore[reportFunctionMemberAccess]


def test_a_users_module_by_name(tmp_path, monkeypatch):
    (tmp_path / "radiology_net.py").write_text(
        "def lungs(x):\n    return x.flatten(1)[:, :3]\n\ndef flat(x):\n    return x\n"
    )
    (tmp_path / "broken_net.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    x = events()
    features = open_features("radiology_net:lungs", x)
    assert (features.name, features.dimension, features.comparable) == ("radiology_net:lungs", 3, False)
    assert torch.equal(features(x), x.flatten(1)[:, :3])
    with pytest.raises(InputError, match="no function 'lung'; it has lungs"):
        open_features("radiology_net:lung", x)
    with pytest.raises(InputError, match="No module named 'no_such_package'"):
        open_features("broken_net:lungs", x)
    with pytest.raises(InputError, match="cannot be imported.*PYTHONPATH"):
        open_features("not_there:lungs", x)
    with pytest.raises(ShapeError, match="returns for one event: got shape"):
        open_features("radiology_net:flat", x)
    sys.modules.pop("radiology_net", None)


def test_unknown_words_list_the_near_ones():
    for word, near in (
        ("incepton:w.pth", "inception:FILE"),
        ("pixel", "did you mean pixels"),
        ("pca", "pca:COMPONENTS"),
    ):
        with pytest.raises(InputError, match=near):
            open_features(word, events())
    with pytest.raises(InputError, match="no features are called 'vgg'.*own:FILE, pixels, pca:COMPONENTS"):
        open_features("vgg", events())
    with pytest.raises(InputError, match="pixels need real events"):
        open_features("pixels")


def test_an_unknown_file_is_refused_then_vouched_for(inception_file, monkeypatch):
    sha256 = vouch(inception_file)
    with pytest.raises(InputError, match=f"#sha256={sha256[:16]}"):
        open_features(f"inception:{inception_file}")
    features = open_features(f"inception:{inception_file}#sha256={sha256[:16]}")
    assert features.name == f"inception-tensorflow-{sha256[:8]}"
    assert not features.comparable
    assert "FID" not in features.distance_name
    assert features.dimension == 2048
    torch_way = open_features(f"inception:{inception_file}#resize=torch,sha256={sha256}")
    assert torch_way.name == f"inception-torch-{sha256[:8]}"

    entry = next(entry for entry in PUBLISHED.values() if entry.kind == "inception")
    monkeypatch.setitem(PUBLISHED, sha256, entry)
    known = open_features(f"inception:{inception_file}")
    assert known.comparable
    assert (known.distance_name, known.kernel_name) == ("FID", "KID")
    assert known.name == features.name
    assert known(events(2, shape=(1, 16, 16))).shape == (2, 2048)
    with pytest.raises(ShapeError, match="pictures only"):
        known(events(2, shape=(1, 4, 4, 4)))


def test_options_of_files_are_checked(inception_file):
    with pytest.raises(InputError, match="inception has no option 'size'; it has resize and sha256"):
        open_features(f"inception:{inception_file}#size=3")
    with pytest.raises(InputError, match="tensorflow or torch"):
        open_features(f"inception:{inception_file}#resize=no,sha256={vouch(inception_file)}")
    with pytest.raises(InputError, match="name=value"):
        open_features(f"inception:{inception_file}#resize=torch,x")
    with pytest.raises(InputError, match="no file"):
        open_features("inception:weights#1.pth")  # a path may hold a #


def test_a_vision_transformer_by_word(tmp_path, monkeypatch):
    from oneprior.evaluation.networks.vision import Plan, VisionTransformer

    network = VisionTransformer(Plan("DINOv2", 64, 1, 128, 14, 5, 224, scaled=True))
    with torch.no_grad():
        for i, (_, value) in enumerate(sorted(network.named_parameters())):
            value.copy_(0.1 * Rows(1, seed=i).normal(*value.shape)[0])
    path = tmp_path / "dinov2_small.pth"
    torch.save(network.state_dict(), path)
    sha256, x = vouch(path), events(2, shape=(3, 20, 20))
    features = open_features(f"dinov2:{path}#sha256={sha256}")
    assert features.name == f"dinov2-{sha256[:8]}"
    assert torch.equal(features(x), dinov2(network.state_dict())(x))
    assert features.stages is None
    monkeypatch.setitem(PUBLISHED, sha256, next(e for e in PUBLISHED.values() if e.label == "dinov2-vits14"))
    known = open_features(f"dinov2:{path}")
    assert (known.distance_name, known.kernel_name, known.comparable) == ("FD-DINOv2", "KD-DINOv2", True)
    unusual = open_features(f"dinov2:{path}#positions=transformers")
    assert not unusual.comparable
    assert unusual.name == f"dinov2-vits14-transformers-{sha256[:8]}"
    with pytest.raises(InputError, match="not clip weights; write dinov2:"):
        open_features(f"clip:{path}")


def test_statistics_stream_to_the_whole(own):
    features, x = own_features(own[0]), events(101)
    whole = FeatureStatistics.of(features.embed(x))
    for sizes in ([101], [1, 50, 50], [7] * 14 + [3]):
        found = statistics(features, iter(x.split(sizes)), batch=13)
        assert found.count == 101
        assert torch.allclose(found.mean, whole.mean, rtol=1e-6, atol=1e-8)  # float32 features move with the batch
        assert torch.allclose(found.scatter, whole.scatter, rtol=1e-5, atol=1e-6)
    exact = Features("pixels64", 30, lambda x: x.flatten(1).double())  # no rounding of its own: only the sums differ
    whole = FeatureStatistics.of(exact.embed(x.double()))
    found = statistics(exact, (part for part in x.double().split(9)), batch=4)
    assert float((found.mean - whole.mean).abs().max() / whole.mean.abs().max()) < 1e-10
    assert float((found.scatter - whole.scatter).abs().max() / whole.scatter.abs().max()) < 1e-10
    other = FeatureStatistics.of(exact.embed(events(90, seed=3).double()))
    assert float(frechet_distance(found, other)) == pytest.approx(float(frechet_distance(whole, other)), rel=1e-9)
    with pytest.raises(InputError, match="no events"):
        statistics(features, [])


def test_bad_events_and_bad_functions():
    x = events()
    features = open_features("pixels", x)
    broken = x.clone()
    broken[3, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="1 of 40 events hold nan"):
        features(broken)
    with pytest.raises(ShapeError, match="n, channels, \\*space"):
        features(x[0, 0])
    with pytest.raises(ShapeError, match="knows one shape only"):
        features(events(shape=(3, 6, 5)))
    with pytest.raises(InputError, match="at least one event"):
        features.embed(x, 0)
    assert features.embed(x[:0]).shape == (0, 30)
    with pytest.raises(InputError, match="returned nan"):
        open_features(lambda x: x.flatten(1) / 0, x)(x)
    with pytest.raises(InputError, match="fails on one event.*RuntimeError"):
        open_features(nn.Linear(3, 2).eval(), x)
    with pytest.raises(ShapeError, match="returns for one event: got shape list"):
        open_features(lambda x: [x], x)
    with pytest.raises(dataclasses.FrozenInstanceError):
        features.name = "FID"  # pyright: ignore[reportAttributeAccessIssue]
