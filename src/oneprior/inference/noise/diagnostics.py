"""Whether chains have mixed: R-hat and effective sample size, one number for each row.

Both are for a scalar trace, such as the log density, of several chains (Gelman et al. 2013, section 11.4 and 11.5;
the sum of autocorrelations is cut at the first negative pair, Geyer 1992).
"""

from __future__ import annotations

import torch
from torch import Tensor


def split_r_hat(trace: Tensor) -> Tensor:
    """R-hat of halved chains; about 1 where they agree, and NaN for fewer than 4 states.

    Args:
        trace: (states, chains, n).

    Returns:
        (n,).
    """
    half = trace.shape[0] // 2
    if half < 2:
        return trace.new_full(trace.shape[2:], torch.nan)
    parts = torch.cat([trace[:half], trace[-half:]], dim=1).double()
    within = parts.var(0).mean(0)
    between = parts.mean(0).var(0)
    return ((half - 1) / half + between / within.clamp_min(1e-30)).sqrt().to(trace.dtype)


def effective_sample_size(trace: Tensor) -> Tensor:
    """How many independent draws the states of all chains are worth; at least 1, NaN for fewer than 4 states.

    Args:
        trace: (states, chains, n).

    Returns:
        (n,).
    """
    states, chains, _ = trace.shape
    if states < 4:
        return trace.new_full(trace.shape[2:], torch.nan)
    x = trace.double()
    within = x.var(0).mean(0)
    total = within * (states - 1) / states + (x.mean(0).var(0) if chains > 1 else 0.0)
    spectrum = torch.fft.rfft(x - x.mean(0), n=2 * states, dim=0)
    covariance = torch.fft.irfft(spectrum.abs().square(), dim=0)[:states].mean(1) / states
    correlation = 1 - (within * (states - 1) / states - covariance) / total.clamp_min(1e-30)
    pairs = correlation[: states // 2 * 2].reshape(states // 2, 2, -1).sum(1)
    positive = (pairs > 0).cummin(0).values
    time = (2 * (pairs * positive).sum(0) - 1).clamp_min(1 / torch.log10(torch.tensor(10.0 + states)))
    return (states * chains / time).clamp(1.0, float(states * chains)).to(trace.dtype)
