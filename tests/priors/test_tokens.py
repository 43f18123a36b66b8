"""Token priors are exact: probabilities sum to one, conditionals and draws agree with them."""

import itertools

import pytest
import torch

from oneprior.core import InputError, Rows, ShapeError
from oneprior.laws import check_prior
from oneprior.nets.transformer import CausalTransformer
from oneprior.priors.tokens import CausalTokenPrior, IndependentTokens, TabularTokens

K, GRID = 3, (2, 2)


class Bound:
    """A transformer, nothing told."""

    def __init__(self, net):
        self.net = net

    def logits(self, codes):
        return self.net(codes)

    def begin(self, n):
        return self.net.begin(n)

    def advance(self, codes, state):
        return self.net.advance(codes, state)


def _transformer(**options):
    torch.manual_seed(0)
    net = CausalTransformer(K, 4, width=16, depth=2, heads=2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.4 * torch.randn_like(p))
    return CausalTokenPrior(Bound(net), K, GRID, **options)


def _table():
    return TabularTokens(torch.randn((K,) * 4, generator=torch.Generator().manual_seed(1)), GRID)


def _independent():
    return IndependentTokens(torch.randn(*GRID, K, generator=torch.Generator().manual_seed(2)))


LAWS = {
    "causal": _transformer,
    "causal, cold": lambda: _transformer(temperature=0.5),
    "causal, top 2": lambda: _transformer(top_k=2),
    "table": _table,
    "independent": _independent,
}


def _all_codes():
    return torch.tensor(list(itertools.product(range(K), repeat=4))).reshape(-1, *GRID)


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]()


@torch.no_grad()
def test_probabilities_sum_to_one(law):
    assert float(law.log_prob(_all_codes()).double().exp().sum()) == pytest.approx(1.0, abs=1e-5)


@torch.no_grad()
def test_conditionals_are_ratios_of_marginals(law):
    codes = _all_codes()
    p = law.log_prob(codes).double().exp().reshape((K,) * 4)
    for position in range(4):
        marginal = p.flatten(position + 1).sum(-1) if position < 3 else p
        exact = marginal / marginal.sum(-1, keepdim=True)
        prefix = tuple(codes.flatten(1)[:, :position].unbind(1))
        got = law.next_logits(codes, position).double().softmax(-1)
        reached = exact[prefix].isfinite().all(-1)  # a prefix cut by top-k has no conditional
        torch.testing.assert_close(got[reached], exact[prefix].expand_as(got)[reached], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_draws_follow_the_probabilities(law):
    n = 4000
    drawn = law.sample_codes(Rows(n, seed=3)).flatten(1)
    count = torch.bincount((drawn * torch.tensor([27, 9, 3, 1])).sum(1), minlength=81).double()
    expected = n * law.log_prob(_all_codes()).double().exp()
    assert count[expected < 1e-9].sum() == 0
    big = expected > 5
    chi2 = ((count - expected).square() / expected)[big].sum()
    degrees = int(big.sum())
    assert float(chi2) < degrees + 4 * (2 * degrees) ** 0.5


def test_the_laws_of_priors(law):
    check_prior(law, rows=30)


@pytest.mark.parametrize("name", [name for name in LAWS if "top" not in name])  # the best two of those allowed
@torch.no_grad()
def test_draws_among_some_codes_have_the_restricted_conditionals(name):
    law = LAWS[name]()
    among = torch.ones(4, K, dtype=torch.bool)
    assert torch.equal(law.sample_codes(Rows(50), among=among), law.sample_codes(Rows(50)))
    among[0, 0], among[2, :] = False, torch.arange(K) == 1
    drawn = law.sample_codes(Rows(4000), among=among).flatten(1)
    assert among[torch.arange(4), drawn].all()
    logits = law.next_logits(torch.zeros(1, *GRID, dtype=torch.int64), 0)[0].double()
    expected = torch.where(among[0], logits.softmax(0), 0.0)
    share = torch.bincount(drawn[:, 0], minlength=K) / 4000
    torch.testing.assert_close(share.double(), expected / expected.sum(), atol=0.04, rtol=0)


@torch.no_grad()
def test_temperature_of_a_draw_multiplies_the_law_s_own():
    assert torch.equal(
        _transformer(temperature=0.5).sample_codes(Rows(50)), _transformer().sample_codes(Rows(50), temperature=0.5)
    )


@torch.no_grad()
def test_one_code_kept_is_the_likeliest_path():
    law = _transformer(top_k=1)
    codes = law.sample_codes(Rows(5))
    assert (codes == codes[:1]).all()
    assert torch.allclose(law.log_prob(codes), torch.zeros(5))


def test_errors_say_what_is_needed():
    with pytest.raises(InputError, match="positive"):
        _transformer(temperature=0.0)
    with pytest.raises(InputError, match=r"top_k must lie in 0 \.\. 3"):
        _transformer(top_k=4)
    with pytest.raises(ShapeError, match=r"got shape \(2, 4\), needed \(n, 2, 2\)"):
        _table().log_prob(torch.zeros(2, 4, dtype=torch.int64))
