"""The token road against every grid counted by hand: frequencies by chi-square, evidence, mean, invariances."""

import itertools

import pytest
import torch
from torch.nn.functional import one_hot

from oneprior.core import AffineMap, DivergedError, IncompatiblePrior, InputError, Rows
from oneprior.inference import HMC, bayes
from oneprior.inference.tokens import Annealing, Enumeration, Gibbs, Informed, Lookahead
from oneprior.inference.tokens.informed import neighbours
from oneprior.inference.tokens.lookahead import draw, linear_model, measured_y, sketches
from oneprior.inference.tokens.target import Calls, Target
from oneprior.likelihoods import GaussianLikelihood, Product, Reward
from oneprior.operators import parse_operator
from oneprior.operators.base import Operator
from oneprior.priors.base import StandardNormal
from oneprior.priors.pushforward import Pushforward
from oneprior.priors.tokens import CausalTokenPrior, TabularTokens

K, GRID = 4, (2, 2)
SHAPE = (1, 3, 3)
MOVES = [Gibbs(), Informed(sketch=4, block=4, refresh=3), Informed.published()]
WEIGHT = Rows(1, seed=8).normal(K * 4, 9)[0]


def decoder(event):
    """Nonlinear, every pixel of every code, a little of their products."""
    return torch.tanh(0.7 * event.flatten(1) @ WEIGHT.to(event)).reshape(-1, *SHAPE)


def law():
    return TabularTokens(1.5 * Rows(1, seed=2).normal(*[K] * 4)[0], GRID)


def problem(n=2, noise=0.6, words="identity", operator=None, tilt=None):
    prior = Pushforward(law(), decoder, torch.Size(SHAPE))
    operator = operator or parse_operator(words, SHAPE)
    y = operator(prior.sample(Rows(n, seed=3))) + noise * Rows(n, seed=4).normal(*operator.out_shape)
    likelihood = GaussianLikelihood(y, operator, noise)
    return bayes(prior, likelihood if tilt is None else Product((likelihood, tilt)))


def counted(posterior):
    """Every grid, and log p(codes) L(codes) of each for each row, one after another; (256, 2, 2), (256, n)."""
    codes = torch.tensor(list(itertools.product(range(K), repeat=4))).reshape(-1, *GRID)
    rows = []
    for c in codes:
        event = one_hot(c, K).movedim(-1, 0).float().expand(posterior.n, K, *GRID)
        prior = law().table[tuple(c.flatten())].double()
        rows.append(prior + posterior.likelihood.log_prob(event).double())
    return codes, torch.stack(rows)


def cells(posterior, x, codes):
    """The number of the grid behind each draw, (draws, n)."""
    events = posterior.decode(one_hot(codes, K).movedim(-1, 1).float())
    apart = torch.cdist(x.flatten(0, 1).flatten(1).double(), events.flatten(1).double())
    assert float(apart.amin(1).max()) < 1e-4  # never anything but a decoded grid
    return apart.argmin(1).reshape(x.shape[:2])


def chi_square(index, share):
    """z-score of Pearson's statistic of draws (draws,) against shares (cells,), rare cells pooled."""
    draws = len(index)
    count = torch.bincount(index, minlength=len(share)).double()
    order = share.argsort(descending=True)
    common = order[share[order] * draws >= 5]
    rest = torch.ones_like(share, dtype=torch.bool)
    rest[common] = False
    observed = torch.cat([count[common], count[rest].sum()[None]])
    expected = torch.cat([share[common], share[rest].sum()[None]]) * draws
    keep = expected > 1e-9
    statistic = ((observed - expected)[keep].square() / expected[keep]).sum()
    freedom = int(keep.sum()) - 1
    assert freedom >= 1
    return float((statistic - freedom) / (2 * freedom) ** 0.5)


def test_enumeration_is_brute_force():
    posterior = problem()
    codes, log = counted(posterior)
    draws = Enumeration(batch=37)(posterior, 4000, Rows(2, seed=1))
    share = log.softmax(0)
    events = posterior.decode(one_hot(codes, K).movedim(-1, 1).float()).double()
    mean = torch.einsum("gn,gchw->nchw", share, events)
    second = torch.einsum("gn,gchw->nchw", share, events.square())
    assert draws.exact
    assert torch.allclose(draws.diagnostics["log_evidence"], log.logsumexp(0), atol=1e-5)
    assert torch.allclose(draws.mean().double(), mean, atol=1e-5)
    assert torch.allclose(draws.std().double(), (second - mean.square()).clamp_min(0).sqrt(), atol=1e-4)
    assert torch.equal(draws.diagnostics["map_codes"], codes[log.argmax(0)])
    assert draws.network_calls >= 2 * 256 * 2
    index = cells(posterior, draws.x, codes)
    for i in range(2):
        assert abs(chi_square(index[:, i], share[:, i])) < 4


class Rounded(Operator):
    """An instrument that cannot be differentiated."""

    differentiable = False

    def __init__(self):
        super().__init__()
        self.in_shape = self.out_shape = torch.Size(SHAPE)

    def apply(self, x):
        return (4 * x.detach()).round() / 4


def given(kind):
    """Evidence with a curvature, without one, without a gradient; two problems."""
    if kind == "gaussian":
        return problem()
    if kind == "reward":
        tilt = Reward(lambda x: x.flatten(1).sum(1), 2.0)
        return bayes(Pushforward(law(), decoder, torch.Size(SHAPE)), tilt, n=2)
    return problem(operator=Rounded())


@pytest.mark.parametrize("power", [1.0, 0.3])
@pytest.mark.parametrize("kind", ["gaussian", "reward", "rounded"])
@pytest.mark.parametrize("move", MOVES, ids=["gibbs", "informed", "published"])
def test_moves_leave_their_law_invariant(move, kind, power):
    """3,000 independent exact draws stay independent exact draws, after any number of moves."""
    posterior = given(kind)
    codes, log = counted(posterior)
    prior = law().table.reshape(-1, 1).double()
    share = (prior + power * (log - prior)).softmax(0)
    copies = 3000
    target = Target.of(posterior, copies, Calls())
    start = Rows(copies * 2, seed=21).categorical(share.log().T.repeat(copies, 1))
    chains = move.chains(target, codes.flatten(1)[start], Rows(2, seed=22).repeat(copies))
    for _ in range(2 if isinstance(move, Gibbs) else 8):
        chains.step(torch.full((copies * 2,), power, dtype=torch.float64))
    assert (chains.codes != codes.flatten(1)[start]).any(1).double().mean() > 0.05
    number = (chains.codes * torch.tensor([64, 16, 4, 1])).sum(1).reshape(copies, 2)
    for i in range(2):
        assert abs(chi_square(number[:, i], share[:, i])) < 4
    value = posterior.repeat(copies).likelihood.log_prob(target.onehot(chains.codes))
    assert torch.allclose(chains.value, value.double(), atol=1e-4)
    assert torch.allclose(chains.log_prior, law().log_prob(chains.codes.reshape(-1, *GRID)).double(), atol=1e-4)


@pytest.mark.parametrize("move", MOVES[:2], ids=["gibbs", "informed"])
def test_annealed_draws_come_as_often_as_they_should(move):
    """One draw of each of 100 copies of a problem, so that draws are independent; 8 particles behind each."""
    posterior = problem(noise=1.2)  # sharper ones mix slowly here, moved by less than all K candidates
    codes, log = counted(posterior)
    many = posterior.repeat(100)
    sampler = Annealing(particles=8, levels=6, moves=1, thin=20 if isinstance(move, Gibbs) else 60, move=move)
    draws = sampler(many, 1, Rows(200, seed=5))
    assert draws.exact
    index = cells(many, draws.x, codes).reshape(100, 2)
    best = draws.diagnostics["map_codes"].reshape(100, 2, *GRID)
    for i in range(2):
        assert abs(chi_square(index[:, i], log.softmax(0)[:, i])) < 4
        assert (best[:, i] == codes[log[:, i].argmax()]).all((1, 2)).double().mean() > 0.5


def test_lookahead_draws_come_as_often_as_they_should():
    posterior = problem()
    codes, log = counted(posterior)
    many = posterior.repeat(100)
    draws = Lookahead(chains=4, rounds=4, warmup=60, thin=20, move=MOVES[1])(many, 1, Rows(200, seed=5))
    assert draws.exact
    index = cells(many, draws.x, codes).reshape(100, 2)
    for i in range(2):
        assert abs(chi_square(index[:, i], log.softmax(0)[:, i])) < 4


@pytest.mark.parametrize("size", [2, 128])
def test_the_law_of_a_lookahead_draw_is_known(size):
    """E_q[p L / q] is the evidence, sketched or not: the weights of the draws are right."""
    posterior = problem()
    _, log = counted(posterior)
    target = Target.of(posterior, 4000, Calls())
    z = torch.full((2, K, *GRID), 1 / K)
    sketch = sketches(posterior.likelihood, size, Rows(2, seed=3))
    model = linear_model(target, z, sketch)
    marginal = torch.full((2, 4, K), 1 / K)
    codes, gap = draw(target, model, marginal, torch.full((2,), 30.0), Rows(2, seed=4).repeat(4000))
    ratio = ((target.log_likelihood(codes) + gap).reshape(4000, 2) - log.logsumexp(0)).exp()
    z_score = (ratio.mean(0) - 1) / (ratio.std(0) / 4000**0.5)
    assert z_score.abs().max() < 4
    assert (ratio.std(0) / 4000**0.5 < 0.1).all()


def test_lookahead_of_a_linear_decoder_in_one_position_is_exact():
    """One position and a linear decoder leave nothing to approximate: q is the posterior, the weights are equal."""
    prior = Pushforward(TabularTokens(torch.tensor([0.3, -0.2, 1.0]), (1,)),
                        lambda e: e.flatten(1) @ WEIGHT[:3].to(e), torch.Size((9,)))  # fmt: skip
    seen = GaussianLikelihood(Rows(2, seed=4).normal(9), parse_operator("identity", (9,)), 0.7)
    posterior = bayes(prior, seen)
    target = Target.of(posterior, 50, Calls())
    sketch = sketches(posterior.likelihood, 128, Rows(2))
    model = linear_model(target, torch.full((2, 3, 1), 1 / 3), sketch)
    codes, gap = draw(target, model, torch.full((2, 1, 3), 1 / 3), torch.ones(2), Rows(2, seed=4).repeat(50))
    weight = (target.log_likelihood(codes) + gap).reshape(50, 2)
    evidence = Enumeration()(posterior, 1, Rows(2)).diagnostics["log_evidence"]
    assert torch.allclose(weight, evidence.expand(50, 2), atol=1e-3)
    assert measured_y(posterior.likelihood).shape == (2, 9)


def test_chi_square_would_catch_a_wrong_power():
    posterior = problem()
    codes, log = counted(posterior)
    wrong = (log + 0.3 * (log - law().table.reshape(-1, 1).double())).softmax(0)
    draws = Enumeration()(posterior, 1500, Rows(2, seed=5))
    assert chi_square(cells(posterior, draws.x, codes)[:, 0], wrong[:, 0]) > 5


@pytest.mark.parametrize("move", MOVES[:2], ids=["gibbs", "informed"])
def test_evidence_is_unbiased(move):
    """Mean of p(y) estimates over 40 runs of each of 8 rows, against the sum over all grids."""
    posterior = problem(8)
    _, log = counted(posterior)
    sampler = Annealing(particles=8, levels=4, moves=1, thin=1, move=move)
    many = posterior.repeat(40)
    ratio = (sampler(many, 1, Rows(320, seed=2)).diagnostics["log_evidence"].reshape(40, 8) - log.logsumexp(0)).exp()
    z = (ratio.mean(0) - 1) / (ratio.std(0) / 40**0.5)
    assert z.abs().max() < 4
    assert abs(float(ratio.mean() - 1)) < 4 * float(ratio.std()) / 320**0.5
    assert ratio.std() > 1e-4


@pytest.mark.parametrize("move", MOVES[:2], ids=["gibbs", "informed"])
def test_no_information_gives_the_prior(move):
    posterior = problem(1, noise=1e4)
    codes, _ = counted(posterior)
    draws = Annealing(particles=400, levels=3, moves=1, thin=3, move=move)(posterior, 400, Rows(1, seed=6))
    index = cells(posterior, draws.x, codes)
    assert abs(chi_square(index[:, 0], law().table.exp().double().flatten())) < 4


@pytest.mark.parametrize(
    "sampler",
    [*(Annealing(levels=6, moves=1, thin=2, move=move) for move in MOVES[:2]), Lookahead(rounds=3, warmup=2, thin=2)],
    ids=["gibbs", "informed", "lookahead"],
)
def test_a_row_does_not_depend_on_its_batch(sampler):
    posterior = problem(3, noise=0.2)
    together = sampler(posterior, 4, Rows(3, seed=1))
    index = torch.tensor([1])
    one = bayes(
        Pushforward(law(), decoder, torch.Size(SHAPE)),
        GaussianLikelihood(posterior.likelihood.y[index], posterior.likelihood.operator, 0.2),
    )
    alone = sampler(one, 4, Rows(3, seed=1).take(index))
    assert torch.allclose(alone.x[:, 0], together.x[:, 1], atol=1e-5)
    gap = alone.diagnostics["log_map_density"] - together.diagnostics["log_map_density"][1]
    assert gap.abs() < 1e-3


@pytest.mark.parametrize(
    "sampler",
    [Enumeration(), Annealing(levels=5, moves=1, thin=2, move=Informed()), Lookahead(rounds=2, warmup=2, thin=2)],
    ids=["enumeration", "informed", "lookahead"],
)
def test_units_of_the_data_change_nothing(sampler):
    operator = parse_operator("mask:left", SHAPE)
    prior = Pushforward(law(), decoder, torch.Size(SHAPE))
    y = operator(prior.sample(Rows(2, seed=3))) + 0.3 * Rows(2, seed=4).normal(*operator.out_shape)
    units = AffineMap(127.5, 127.5)
    plain = GaussianLikelihood(y, operator, 0.3)
    scaled = GaussianLikelihood(units.to_units(y), operator, 0.3 * 127.5).pullback(units)
    a, b = (sampler(bayes(prior, given), 8, Rows(2, seed=1)) for given in (plain, scaled))
    assert torch.allclose(a.x, b.x, atol=1e-4)
    jump = plain.y[0].numel() * torch.tensor(127.5).log()  # the volume of the units
    gap = a.diagnostics["log_map_density"] - b.diagnostics["log_map_density"] - jump
    assert gap.abs().max() < 1e-2


def test_impossible_grids_are_never_visited():
    posterior = problem(1, tilt=Reward(lambda x: torch.where(x[:, 0, 0, 0] > 0, 0.0, -torch.inf)))
    codes, log = counted(posterior)
    share = log.softmax(0)[:, 0]
    assert (share == 0).any()
    for move in MOVES:
        draws = Annealing(particles=64, levels=4, thin=12, move=move)(posterior, 128, Rows(1, seed=3))
        assert (share[cells(posterior, draws.x, codes)[:, 0]] > 0).all()


class Causal:
    """Logits from a table of pairs: a causal network with a cheap step."""

    table = 2.0 * Rows(1, seed=11).normal(K + 1, K)[0]

    def logits(self, codes):
        before = torch.cat([torch.full_like(codes[:, :1], K), codes[:, :-1]], 1)
        return self.table[before]

    def begin(self, n):
        return self.table[K].expand(n, -1), None

    def advance(self, codes, state):
        return self.table[codes], state


def test_a_causal_network_walks_by_its_cheap_step():
    """Temperature and top-k belong to the law, in the walk as in its probability."""
    base = CausalTokenPrior(Causal(), K, GRID, temperature=1.3, top_k=3)
    y = decoder(base.sample(Rows(2, seed=3))) + 1.0 * Rows(2, seed=4).normal(*SHAPE)
    posterior = bayes(Pushforward(base, decoder, torch.Size(SHAPE)),
                      GaussianLikelihood(y, parse_operator("identity", SHAPE), 1.0))  # fmt: skip
    codes = torch.tensor(list(itertools.product(range(K), repeat=4))).reshape(-1, *GRID)
    event = one_hot(codes, K).movedim(-1, 1).float()
    log = torch.stack([base.log_prob(codes).double() + posterior.likelihood.take(torch.full((256,), i)).log_prob(event)
                       for i in range(2)], 1)  # fmt: skip
    assert (log == -torch.inf).any()
    for move in MOVES[:2]:
        many = posterior.repeat(80)
        sampler = Annealing(particles=8, levels=6, moves=1, thin=20 if isinstance(move, Gibbs) else 60, move=move)
        index = cells(many, sampler(many, 1, Rows(160, seed=7)).x, codes).reshape(80, 2)
        for i in range(2):
            assert abs(chi_square(index[:, i], log.softmax(0)[:, i])) < 4
    exact = Enumeration()(posterior, 10, Rows(2))
    assert torch.allclose(exact.diagnostics["log_evidence"], log.logsumexp(0), atol=1e-4)


def test_starts_alone_are_not_called_exact():
    for warmup in (0, 1):
        assert Lookahead(rounds=2, warmup=warmup, thin=1)(problem(), 4, Rows(2)).exact == (warmup > 0)


def test_progress_and_calls():
    posterior = problem(2)
    states = list(Annealing(particles=8, levels=3, moves=1, thin=2, move=Informed()).run(posterior, 12, Rows(2)))
    assert [s.done for s in states] == sorted(s.done for s in states)
    assert states[-1].done == 1.0
    assert states[-1].x.shape[:2] == (12, 2)
    assert not states[0].exact
    assert states[-1].network_calls > 12 * 2


def test_errors_come_before_the_work():
    seen = GaussianLikelihood(torch.zeros(1, *SHAPE), parse_operator("identity", SHAPE), 0.1)
    normal = bayes(StandardNormal(SHAPE), seen)
    for sampler in (Enumeration(), Annealing(), Lookahead()):
        with pytest.raises(IncompatiblePrior, match="TokenPrior"):
            sampler(normal, 2, Rows(1))
    with pytest.raises(InputError, match="more than 100 grids"):
        Enumeration(limit=100)(problem(), 2, Rows(2))
    with pytest.raises(IncompatiblePrior, match="noise level of 0"):
        Annealing()(bayes(Pushforward(law(), decoder, torch.Size(SHAPE)), GaussianLikelihood(
            torch.zeros(1, *SHAPE), parse_operator("identity", SHAPE), 0.0)), 2, Rows(1))  # fmt: skip
    with pytest.raises(IncompatiblePrior):
        HMC()(problem(), 2, Rows(2))
    with pytest.raises(IncompatiblePrior, match="differentiated"):
        Lookahead()(given("rounded"), 2, Rows(2))
    with pytest.raises(IncompatiblePrior, match="Gaussian"):
        Lookahead()(given("reward"), 2, Rows(2))
    for bad in (
        lambda: Lookahead(rounds=0),
        lambda: Enumeration(limit=0),
        lambda: Annealing(levels=0),
        lambda: Informed(block=0),
    ):
        with pytest.raises(InputError):
            bad()


@pytest.mark.parametrize("sampler", [Enumeration(), *(Annealing(levels=2, thin=2, move=m) for m in MOVES)],
                         ids=["enumeration", "gibbs", "informed", "published"])  # fmt: skip
def test_divergence_names_the_rows(sampler):
    def cliff(x):
        value = x.flatten(1).sum(1)
        return torch.where(torch.arange(len(value)) % 2 == 1, value * torch.nan, value)

    with pytest.raises(DivergedError, match=r"rows \[1\]"):
        sampler(problem(2, tilt=Reward(cliff)), 2, Rows(2))


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-5])
def test_little_noise_is_not_lost_in_rounding(noise):
    """The sums ahead are 1e10 noise variances then, and the 1 of the noise itself is below their rounding."""
    weight = Rows(1, seed=8).normal(4 * K, 100)[0]
    prior = Pushforward(
        law(), lambda event: (event.flatten(1) @ weight).reshape(-1, 1, 10, 10), torch.Size((1, 10, 10))
    )
    y, operator = prior.sample(Rows(2, seed=3)), parse_operator("identity", (1, 10, 10))
    draws = Lookahead(rounds=3, warmup=1, thin=1)(bayes(prior, GaussianLikelihood(y, operator, noise)), 8, Rows(2))
    assert torch.equal(draws.x, y.expand_as(draws.x))


def test_neighbours_are_ordered_by_distance():
    order = neighbours((3, 3))
    assert order[4, 0] == 4
    assert set(order[4, 1:5].tolist()) == {1, 3, 5, 7}
    assert neighbours((5,))[0].tolist() == [0, 1, 2, 3, 4]
