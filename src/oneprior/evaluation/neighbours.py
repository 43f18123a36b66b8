"""Does one set lie where another does? Precision, recall, density and coverage by nearest neighbours.

Every real event stands in the middle of a ball that reaches to its k-th neighbour among the real ones; all balls
together stand for the support of the data, and likewise for the samples.

- precision: share of samples that lie in some real ball; recall: share of real events in some sample's ball
  (Kynkaanniemi, Karras, Laine, Lehtinen, Aila 2019);
- density: real balls around a sample, on average and over k: unlike precision it is not ruled by one outlier with a
  large ball; coverage: share of real balls that hold a sample (Naeem, Oh, Uh, Choi, Yoo 2020).

Fidelity is precision and density, diversity recall and coverage. All depend on the number of events and on the
features: compare with the figures of a second real set of the same size, never across feature networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oneprior.core import InputError, ShapeError

_CHUNK = 1 << 24  # distances held at once


@dataclass(frozen=True)
class Support:
    """The four figures, each a mean over events; density may pass 1.

    Args:
        precision, recall, density, coverage: see the module.
        k: which neighbour ends a ball.
        real, samples: how many events of each.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    real: int
    samples: int


def support(real: Tensor, samples: Tensor, k: int = 5) -> Support:
    """Precision, recall, density and coverage of samples.

    Args:
        real: features of real events, (n, d).
        samples: features of samples, (m, d).
        k: which neighbour, itself not counted; the papers take 3 (precision and recall) and 5.

    Raises:
        ShapeError: for features of different length.
        InputError: for no more than k events in a set.
    """
    if real.dim() != 2 or samples.dim() != 2 or real.shape[1] != samples.shape[1]:
        raise ShapeError("features of the samples", tuple(samples.shape), ("m", *real.shape[1:]))
    if not 1 <= k < min(len(real), len(samples)):
        raise InputError(f"the {k}th neighbour needs more than {k} events in each set: {len(real)}, {len(samples)}")
    real, samples = real.double(), samples.double()
    reach, sample_reach = radii(real, k), radii(samples, k)
    step = max(1, _CHUNK // len(real))
    inside, recalled = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    nearest = torch.full((len(real),), torch.inf, dtype=torch.float64, device=real.device)
    for start in range(0, len(samples), step):
        far = torch.cdist(samples[start : start + step], real)  # (c, n)
        inside.append((far <= reach).sum(1))
        recalled |= (far <= sample_reach[start : start + step, None]).any(0)
        nearest = torch.minimum(nearest, far.amin(0))
    balls = torch.cat(inside).double()
    return Support(
        precision=float((balls > 0).double().mean()),
        recall=float(recalled.double().mean()),
        density=float(balls.mean() / k),
        coverage=float((nearest <= reach).double().mean()),
        k=k,
        real=len(real),
        samples=len(samples),
    )


def radii(x: Tensor, k: int) -> Tensor:
    """The distance of each event to its k-th neighbour in the same set, itself not counted; (n, d) -> (n,)."""
    step = max(1, _CHUNK // len(x))
    return torch.cat([torch.cdist(part, x).kthvalue(k + 1, dim=1).values for part in x.split(step)])


def nearest(x: Tensor, among: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k nearest events of another set.

    Args:
        x: (n, ...).
        among: (m, ...), m >= k.
        k: how many.

    Returns:
        Distances, float64 and rising, and rows of `among`, int64, each (n, k).
    """
    flat, other = x.flatten(1).double(), among.flatten(1).double()
    if not 1 <= k <= len(other):
        raise InputError(f"{k} neighbours were asked of a set of {len(other)}")
    step = max(1, _CHUNK // len(other))
    found = [torch.cdist(part, other).topk(k, dim=1, largest=False) for part in flat.split(step)]
    if not found:
        return flat.new_empty(0, k), torch.empty(0, k, dtype=torch.int64, device=flat.device)
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
