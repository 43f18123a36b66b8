"""The VQ-VAE: codes and back, its law, its players, conditions and guidance."""

import pytest
import torch

from oneprior.core import ConditionSpec, InputError, Rows, ShapeError
from oneprior.data.batch import Batch
from oneprior.laws import check_prior
from oneprior.models.configs.vqvae import VQVAEConfig
from oneprior.models.vqvae import VQVAE
from oneprior.priors.tokens import CausalTokenPrior

TINY = {"codes": 12, "latent": 3, "width": 8, "prior_width": 16, "prior_depth": 2, "prior_heads": 2}
LABEL = ConditionSpec("label", "class", classes=2)


def _model(*conditions, shape=(1, 8, 8), **options):
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(**(TINY | options)), shape, conditions)
    with torch.no_grad():
        model(Batch(torch.randn(32, *shape)), "codec", Rows(32))  # starts the codebook
    return model


@pytest.mark.parametrize("shape", [(2, 12), (1, 8, 8), (1, 5, 8, 6)], ids=str)
@torch.no_grad()
def test_events_codes_events(shape):
    model = _model(shape=shape).eval()
    x = torch.randn(3, *shape)
    codes = model.codes(x)
    assert codes.shape == (3, *(-(-s // 4) for s in shape[1:]))
    y = model.decode_codes(codes)
    assert y.shape == x.shape
    codec = model.codec()
    torch.testing.assert_close(codec.decode(codec.encode(x)), y)
    assert model.prior().sample(Rows(2)).shape == (2, *shape)


@torch.no_grad()
def test_the_prior_is_a_decoder_over_exact_tokens():
    prior = _model().eval().prior()
    assert isinstance(prior.base, CausalTokenPrior)
    check_prior(prior.base, rows=20)
    codes = prior.base.sample_codes(Rows(4))
    torch.testing.assert_close(prior.sample(Rows(4)), _model().eval().decode_codes(codes))


def test_the_decoder_is_differentiable_in_the_one_hot_event():
    prior = _model().eval().prior()
    onehot = prior.base.sample(Rows(2)).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.decoder(onehot).sum(), onehot)
    assert bool((gradient != 0).any())


def test_a_token_that_the_decoder_holds_for_impossible_can_be_learned():
    model = _model(shape=(6, 12), one_hot=2).train()
    last = model.decoder.trunk[-1]
    with torch.no_grad():
        last.bias[0] -= 60  # its probability is 1e-26
    tokens = torch.zeros(4, 2, 12, dtype=torch.int64)
    x = torch.nn.functional.one_hot(tokens, 3).movedim(-1, 2).flatten(1, 2) * 2.0 - 1
    loss = model(Batch(x), "codec", Rows(4))["reconstruction"]
    assert 50 < float(loss.detach()) < 70  # of each place of the first voice 60, of the second about 1
    (gradient,) = torch.autograd.grad(loss, last.bias)
    torch.testing.assert_close(gradient[0], torch.tensor(-1.0), atol=1e-4, rtol=0)


def test_players_do_not_touch_each_other():
    model = _model(adversarial=0.1, adversarial_start=0.0)
    model.progress, batch = 0.9, Batch(torch.randn(8, 1, 8, 8))
    assert list(model.players) == ["critic", "codec", "prior"]
    owned = {name: {id(p) for p in parameters} for name, parameters in model.players.items()}
    assert sum(map(len, owned.values())) == len(set().union(*owned.values())) == len(list(model.parameters()))
    for player in model.players:
        model.zero_grad()
        losses = model(batch, player, Rows(8))
        sum(v for k, v in losses.items() if not k.startswith("metric/")).backward()
        moved = {id(p) for p in model.parameters() if p.grad is not None and bool((p.grad != 0).any())}
        assert moved
        assert moved <= owned[player]


def test_the_law_waits_for_its_start_and_leaves_the_codebook_alone():
    model, batch = _model(prior_start=0.3), Batch(torch.randn(8, 1, 8, 8))
    model.progress = 0.2
    loss = model(batch, "prior", Rows(8))["codes"]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is not None and not bool((p.grad != 0).any()) for p in model.players["prior"])
    model.progress, before = 0.4, model.quantizer.codebook.clone()
    loss = model(batch, "prior", Rows(8))["codes"]
    assert float(loss.detach()) == pytest.approx(
        -float(model.prior().base.log_prob(model.codes(batch.x)).mean().detach()) / 4, rel=1e-4
    )
    assert torch.equal(model.quantizer.codebook, before)


def test_training_learns_codec_and_law_together():
    """Two kinds of events: after training, draws are of the two kinds, told which where it is told."""
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(**(TINY | {"prior_start": 0.2})), (1, 8, 8), (LABEL,))
    kinds = torch.stack([torch.ones(1, 8, 8), -torch.ones(1, 8, 8)])
    optimisers = {k: torch.optim.Adam(p, 3e-3) for k, p in model.players.items()}
    for step in range(150):
        model.progress = step / 150
        label = Rows(16, seed=step).integers(2)
        batch = Batch(kinds[label] + 0.05 * Rows(16, seed=step + 999).normal(1, 8, 8), {"label": label})
        for player, optimiser in optimisers.items():
            losses = model(batch, player, Rows(16, seed=step))
            optimiser.zero_grad()
            sum(v for k, v in losses.items() if not k.startswith("metric/")).backward()
            optimiser.step()
    model.eval()
    with torch.no_grad():
        told = model.prior({"label": torch.tensor([0, 1])}, cfg_scale=1.5).sample(Rows(20)).mean((1, 2, 3))
        assert int((told[0::2] > 0.5).sum()) >= 8
        assert int((told[1::2] < -0.5).sum()) >= 8
        free = model.prior().sample(Rows(40)).mean((1, 2, 3)) > 0
        assert 8 <= int(free.sum()) <= 32


@torch.no_grad()
def test_guidance_multiplies_conditionals():
    model = _model(LABEL).eval()
    told = {"label": torch.tensor([1])}
    codes = model.prior().base.sample_codes(Rows(5))

    def conditionals(prior):
        return prior.base.all_logits(codes).log_softmax(-1)

    want = 2.5 * conditionals(model.prior(told)) - 1.5 * conditionals(model.prior())
    got = conditionals(model.prior(told, cfg_scale=2.5))
    torch.testing.assert_close(got, want.log_softmax(-1), atol=1e-4, rtol=1e-4)
    check_prior(model.prior(told, cfg_scale=2.5).base, rows=20)


@torch.no_grad()
def test_diffusers_round_trip():
    model = _model(network="diffusers", prior_start=1.0).eval()
    net, x = model.to_diffusers().eval(), torch.randn(2, 1, 8, 8)
    want = model.decode_codes(model.codes(x))
    torch.testing.assert_close(net(x).sample, want, atol=1e-5, rtol=1e-4)
    again = VQVAE.from_diffusers(net, (1, 8, 8)).eval()
    torch.testing.assert_close(again.decode_codes(again.codes(x)), want)


def test_errors_say_what_is_needed():
    with pytest.raises(InputError, match="codec alone"):
        _model(prior_start=1.0).prior()
    with pytest.raises(InputError, match="2-D events"):
        VQVAE(VQVAEConfig(network="diffusers"), (1, 16))
    with pytest.raises(ShapeError, match=r"needed \(n, 1, 8, 8\)"):
        _model().codes(torch.zeros(1, 8, 8))
    with pytest.raises(ShapeError, match=r"needed \(n, 2, 2\)"):
        _model().decode_codes(torch.zeros(1, 3, 2, dtype=torch.int64))
    with pytest.raises(InputError, match="top_k"):
        _model().prior(top_k=13)


def test_guidance_towards_nothing_is_refused():
    with pytest.raises(InputError, match="none is given"):
        _model(LABEL).prior(cfg_scale=2.0)


def test_codes_are_exact_under_autocast():
    model = _model().train()
    z = torch.randn(4, 3, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.quantizer(z.bfloat16())
    assert found.commitment.dtype == torch.float32
    assert torch.equal(found.z, found.z.float())
    assert torch.allclose(found.z, model.quantizer.lookup(found.codes), atol=1e-6)


def test_a_collapsed_codebook_is_told():
    model = _model()
    assert not model.doubts({"metric/perplexity": 0.5 * model.config.codes})
    assert not model.doubts({})
    (said,) = model.doubts({"metric/perplexity": 1.2})
    assert "as many as 1.2" in said
    assert model.doubts({"metric/perplexity": 1.2, "metric/codes_in_use": 0.05})
    assert not model.doubts({"metric/perplexity": 1.2, "metric/codes_in_use": 0.4})  # most tokens are an end
