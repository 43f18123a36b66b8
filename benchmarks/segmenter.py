"""A small network that finds the lateral ventricles in brain slices: the judge of what a brain prior was asked for.

Seven convolutions with growing dilation, trained on the training subjects' DLMUSE labels, once, and kept in
runs/features. `benchmarks.segmenter:ventricles` is what `--segmenter` names.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Options
from benchmarks.sets import brains
from oneprior.core import Rows
from oneprior.evaluation import dice

_DILATIONS = (1, 1, 2, 4, 8, 1)


class Segmenter(nn.Module):
    """Logit of each pixel, (n, 1, height, width) -> (n, height, width)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for dilation in _DILATIONS:
            layers += [
                nn.Conv2d(before, width, 3, padding=dilation, dilation=dilation),
                nn.GroupNorm(4, width),
                nn.SiLU(),
            ]
            before = width
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[:, 0]


@torch.enable_grad()
def segmenter(options: Options, steps: int = 500) -> Segmenter:
    """The trained network."""
    path = options.runs / "features" / ("brain-segmenter-quick" if options.quick else "brain-segmenter.safetensors")
    network = Segmenter()
    if not path.exists():
        torch.manual_seed(0)
        network = Segmenter()
        data = brains(options).train
        optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
        rows = Rows(32, seed=0)
        for step in range(20 if options.quick else steps):
            stream = rows.stream(f"batch {step}")
            index = stream.integers(len(data.x))
            x, mask = data.x[index], data.mask[index].float()
            if step % 2:
                x, mask = x.flip(-1), mask.flip(-1)
            x = x * (0.9 + 0.2 * stream.uniform(1, 1, 1)) + 0.03 * stream.normal(*x.shape[1:])
            logit = network(x)
            p = logit.sigmoid()
            overlap = 1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)
            loss = F.binary_cross_entropy_with_logits(logit, mask) + overlap
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(network.state_dict(), str(path))
    network.load_state_dict(load_file(str(path)))
    return network.eval().requires_grad_(False)


def ventricles(x: Tensor) -> Tensor:
    """1 where a pixel is ventricle, int64 (n, height, width); events in [-1, 1]."""
    network = segmenter(Options(runs=Path(__file__).resolve().parent.parent / "runs"))
    return torch.cat([(network(part) > 0).long() for part in x.split(500)])


def accuracy(options: Options) -> float:
    """Dice on the subjects that it has not seen."""
    data = brains(options).held_out
    found = torch.cat([(segmenter(options)(part) > 0).long() for part in data.x.split(500)])
    scores = dice(found, data.mask.long())[data.mask.flatten(1).sum(1) > 5]
    return float(scores[~scores.isnan()].mean())
