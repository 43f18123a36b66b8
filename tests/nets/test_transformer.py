"""The causal transformer sees only the past, and its memory changes nothing."""

import pytest
import torch

from oneprior.core import InputError
from oneprior.nets.transformer import CausalTransformer


def _net(told=0):
    torch.manual_seed(0)
    net = CausalTransformer(7, 10, width=24, depth=3, heads=4, told=told)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


@torch.no_grad()
def test_later_codes_do_not_change_earlier_logits():
    net, codes = _net(), torch.randint(7, (2, 10), generator=torch.Generator().manual_seed(0))
    before = net(codes)
    for position in range(10):
        other = codes.clone()
        other[:, position:] = (other[:, position:] + 1) % 7
        after = net(other)
        torch.testing.assert_close(after[:, : position + 1], before[:, : position + 1], atol=1e-6, rtol=1e-5)
        if position < 9:
            assert (after[:, position + 1] - before[:, position + 1]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("told", [0, 5])
def test_the_memory_gives_the_same_logits(told):
    net, codes = _net(told), torch.randint(7, (3, 10), generator=torch.Generator().manual_seed(1))
    c = torch.randn(3, 5) if told else None
    full = net(codes, c)
    logits, cache = net.begin(3, c)
    for i in range(10):
        torch.testing.assert_close(logits, full[:, i], atol=1e-5, rtol=1e-4)
        if i < 9:
            logits, cache = net.advance(codes[:, i], cache)


@torch.no_grad()
def test_what_is_told_reaches_every_position():
    net, codes = _net(5), torch.zeros(2, 10, dtype=torch.int64)
    logits = net(codes, torch.stack([torch.zeros(5), torch.ones(5)]))
    assert ((logits[0] - logits[1]).abs().amax(-1) > 1e-4).all()


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(InputError, match="no multiple of its 3 heads"):
        CausalTransformer(7, 10, width=16, heads=3)
