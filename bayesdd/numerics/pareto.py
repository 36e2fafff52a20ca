"""Pareto k-hat: how heavy the upper tail of importance weights is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

KHAT_LIMIT = 0.7  # above it importance averages are not to be relied on (Vehtari et al.)


def khat(log_weight: Tensor) -> tuple[float, float]:
    """Shape of a generalised Pareto distribution fitted to the largest importance weights.

    Below 0.5 their variance is finite, below 0.7 importance averages are usable. It says that the weights can correct
    the draws, not that the two distributions are close: draws three times too wide give -0.25 at a KL of 2.25 nats.

    Args:
        log_weight: Unnormalised log weights, nats, shape ``(S,)``.

    Returns:
        k-hat and its standard error; minus infinity and 0 for constant weights.

    Source: Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", JMLR 2024; the estimator is
    Zhang & Stephens, "A new and efficient estimation method for the generalized Pareto distribution", Technometrics
    2009.
    """
    count = len(log_weight)
    tail = min(count // 5, math.ceil(3 * math.sqrt(count)))
    if tail < 5:
        return math.inf, math.inf
    ordered = torch.sort(log_weight).values
    weight = (ordered - ordered[-1]).exp()
    excess = weight[-tail:] - weight[-tail - 1]
    if float(ordered[-1] - ordered[-tail - 1]) < 1e-10:
        return -math.inf, 0.0
    if float(excess[-1]) <= 0 or float(excess[len(excess) // 4]) <= 0:
        return math.inf, math.inf
    grid = 30 + int(math.sqrt(tail))
    quartile = excess[max(0, int(tail / 4 + 0.5) - 1)]
    steps = torch.arange(1, grid + 1, dtype=excess.dtype, device=excess.device)
    theta = 1 / excess[-1] + (1 - (grid / (steps - 0.5)).sqrt()) / (3 * quartile)
    shape = torch.log1p(-theta[:, None] * excess).mean(1)
    likelihood = tail * ((-theta / shape).log() - shape - 1)
    posterior = torch.softmax(likelihood, 0)
    best = (theta * posterior).sum()
    found = float(torch.log1p(-best * excess).mean())
    # A weak prior at 0.5 worth ten tail draws, as in the reference implementation.
    shrunk = found * tail / (tail + 10) + 5 / (tail + 10)
    return shrunk, (1 + max(shrunk, 0.0)) / math.sqrt(tail)
