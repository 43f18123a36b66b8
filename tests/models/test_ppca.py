"""ppca: the closed form from streams, EM that climbs, conditions as weights, buffers as the whole state."""

import pytest
import torch
from sklearn.datasets import load_digits

from oneprior.core import ConditionSpec, InputError, Rows
from oneprior.data.batch import Batch
from oneprior.laws import check_prior
from oneprior.models import family
from oneprior.models.configs import PPCAConfig
from oneprior.models.ppca import PPCA
from oneprior.priors.gaussian import LowRankGaussian
from oneprior.priors.mixture import GaussianMixturePrior
from oneprior.priors.pushforward import NoisePushforward

LABEL = ConditionSpec("label", "class", classes=10)


@pytest.fixture(scope="module")
def digits():
    x = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    return x, torch.tensor(load_digits().target)


def fit(config, x, labels=None, present=None, conditions=(), size=128, seed=0):
    model = PPCA(config, x.shape[1:], conditions)

    def passes():
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            condition = {} if labels is None else {"label": labels[part]}
            there = {} if present is None else {"label": present[part]}
            yield Batch(x[part], condition, there)

    return model, list(model.fit_passes(passes, Rows(1, seed=seed)))


def test_one_gaussian_is_the_closed_form_in_one_pass(digits):
    x, _ = digits
    model, steps = fit(PPCAConfig(rank=20), x)
    expected = LowRankGaussian.fit([x], rank=20)
    prior = model.prior()
    assert len(steps) == 1
    assert steps[0]["rank"] == 20
    assert isinstance(prior, LowRankGaussian)
    assert torch.allclose(prior.mean, expected.mean, atol=1e-6)
    assert torch.allclose(prior.variances, expected.variances, atol=1e-5)
    assert torch.allclose(prior.log_prob(x), expected.log_prob(x), atol=1e-2)
    check_prior(prior)


def test_the_rank_is_found_and_noise_can_be_left_out(digits):
    x, _ = digits
    model, _ = fit(PPCAConfig(), x)
    prior, bare = model.prior(), model.prior(decoder_noise=False)
    assert 30 < prior.rank < 64
    assert isinstance(bare, NoisePushforward)
    u = Rows(3).normal(prior.rank)
    assert torch.allclose(bare.decode(u), prior.decode(torch.cat([u, torch.zeros(3, 64)], 1)), atol=1e-6)


def test_em_climbs_and_beats_one_gaussian(digits):
    x, _ = digits
    train, test = x[:1500], x[1500:]
    one, _ = fit(PPCAConfig(rank=10), train)
    model, steps = fit(PPCAConfig(components=6, rank=10, passes=8), train)
    levels = torch.tensor([s["log_prob"] for s in steps if "log_prob" in s])
    assert len(levels) >= 3
    assert (levels.diff() > -1e-2).all()
    prior = model.prior()
    assert isinstance(prior, GaussianMixturePrior)
    assert abs(float(prior.weights.sum()) - 1) < 1e-6
    gain = (prior.log_prob(test) - one.prior().log_prob(test)).double()
    assert gain.mean() > 5 * gain.std() / len(test) ** 0.5
    check_prior(prior)


def test_the_fit_does_not_depend_on_the_batches(digits):
    x, _ = digits
    a, _ = fit(PPCAConfig(components=3, rank=5, passes=4), x[:400], size=64)
    b, _ = fit(PPCAConfig(components=3, rank=5, passes=4), x[:400], size=400)
    assert torch.allclose(a.mean, b.mean, atol=1e-3)
    assert torch.allclose(a.weight, b.weight, atol=1e-4)


def test_classes_are_conditions(digits):
    x, labels = digits
    model, steps = fit(PPCAConfig(rank=8), x, labels, conditions=(LABEL,))
    assert len(steps) == 1  # memberships are certain
    for c in (0, 7):
        prior = model.prior({"label": torch.tensor([c])})
        expected = LowRankGaussian.fit([x[labels == c]], rank=8)
        assert isinstance(prior, LowRankGaussian)
        assert torch.allclose(prior.mean, expected.mean, atol=1e-5)
        assert torch.allclose(prior.log_prob(x[:9]), expected.log_prob(x[:9]), rtol=1e-3)
    rows = model.prior({"label": torch.tensor([3, 7])})
    density = rows.log_prob(x[:4])
    for i, c in enumerate((3, 7, 3, 7)):  # row i has condition i % n
        assert torch.allclose(
            density[i], model.prior({"label": torch.tensor([c])}).log_prob(x[i : i + 1])[0], rtol=1e-4
        )
    absent = model.prior()
    assert isinstance(absent, GaussianMixturePrior)
    counts = torch.bincount(labels).float()
    assert torch.allclose(absent.weights, counts / counts.sum(), atol=1e-6)
    shares = absent.responsibilities(x)
    assert (shares.argmax(1) == labels).float().mean() > 0.9  # a classifier by Bayes' rule


def test_rows_without_a_label_join_the_class_they_resemble(digits):
    x, labels = digits
    x, labels = x[:900], labels[:900]
    present = torch.arange(900) % 3 != 0
    model, steps = fit(PPCAConfig(rank=6, passes=5), x, labels, present, (LABEL,))
    assert len(steps) > 1
    held = ~present
    shares = model.prior().responsibilities(x[held])
    assert (shares.argmax(1) == labels[held]).float().mean() > 0.8


def test_buffers_are_the_whole_state(digits):
    x, _ = digits
    model, _ = fit(PPCAConfig(components=2, passes=2), x[:300])
    other = family("ppca")(PPCAConfig(components=2, passes=2), x.shape[1:])
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.prior().log_prob(x[:5]), model.prior().log_prob(x[:5]))
    assert model.players == {}


def test_volumes_and_series():
    for shape in ((1, 7), (1, 3, 4, 5)):
        x = Rows(60, seed=0).normal(*shape)
        model, _ = fit(PPCAConfig(rank=2), x)
        assert model.prior().sample(Rows(2)).shape == (2, *shape)


def test_mistakes_are_told(digits):
    x, labels = digits
    with pytest.raises(InputError, match="one class condition at most"):
        PPCA(PPCAConfig(), (1, 8, 8), (ConditionSpec("scan", "image", (1, 8, 8), via="concat"),))
    with pytest.raises(InputError, match="rank 0 .. 63"):
        PPCA(PPCAConfig(rank=64), (1, 8, 8))
    with pytest.raises(InputError, match="at least 2 rows"):
        fit(PPCAConfig(), x[:1])
    model, _ = fit(PPCAConfig(rank=3), x[labels != 4], labels[labels != 4], conditions=(LABEL,))
    with pytest.raises(InputError, match="no condition 'digit'"):
        model.prior({"digit": torch.tensor([1])})
    with pytest.raises(InputError, match=r"lie in 0 \.\. 9"):
        model.prior({"label": torch.tensor([10])})
    with pytest.raises(InputError, match="no training row"):
        model.prior({"label": torch.tensor([4])})
    with pytest.raises(InputError, match="without its decoder noise"):
        model.prior(decoder_noise=False)
    with pytest.raises(InputError, match="fit_passes"):
        model(Batch(x[:2]), "all", Rows(2))


def test_a_class_with_too_few_rows_is_named(digits):
    x, labels = digits
    rows = torch.cat([(labels == 0).nonzero()[:60, 0], (labels == 1).nonzero()[:1, 0]])
    with pytest.raises(InputError, match="class 1 has 1 rows, too few"):
        fit(PPCAConfig(components=2, rank=2), x[rows], labels[rows], conditions=(LABEL,))


def test_many_directions_of_large_events():
    x = Rows(220, seed=0).normal(1, 70, 70)
    model, _ = fit(PPCAConfig(rank=150), x)
    assert model.prior().basis.shape == (4900, 150)


def test_it_is_widened_where_others_are_farther_than_its_own_events():
    """Six groups of like events: maximum likelihood knows the groups, and others belong to none of them."""
    own = Rows(6, seed=1).normal(1, 6, 6).repeat_interleave(20, 0) + 0.05 * Rows(120, seed=2).normal(1, 6, 6)
    others = Rows(40, seed=3).normal(1, 6, 6) + 0.05 * Rows(40, seed=4).normal(1, 6, 6)
    model, _ = fit(PPCAConfig(), own)
    before = float(model.prior().log_prob(others).mean())
    assert model.widen([Batch(others)]) > 2
    assert float(model.prior().log_prob(others).mean()) > before + 1


def test_it_stays_where_others_are_alike():
    x = Rows(3000, seed=5).normal(1, 4, 4)
    model, _ = fit(PPCAConfig(), x[:2500])
    noise = model.noise_variance.clone()
    assert model.widen([Batch(x[2500:])]) < 1.1
    assert model.widen([]) == 1
    assert torch.allclose(model.noise_variance, noise, rtol=0.1)
