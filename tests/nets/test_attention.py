"""The kernel that learns and the kernel that draws are one function."""

import torch

from oneprior.core import Rows
from oneprior.nets.unet import denoiser


def test_learning_and_drawing_agree_and_nothing_is_saved():
    torch.manual_seed(0)
    network = denoiser((1, 8, 8), (), network="unet", width=16, multipliers=(1, 2), blocks=1, attention=(0, 1))
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x, index = Rows(2, seed=0).normal(1, 8, 8), torch.tensor([10.0, 700.0])
    with torch.no_grad():
        drawn = network(x, index)
    learned = network(x.requires_grad_(), index)
    assert learned.requires_grad
    assert float((learned.detach() - drawn).abs().max() / drawn.abs().max()) < 1e-5
    assert not [name for name in network.state_dict() if "processor" in name]
