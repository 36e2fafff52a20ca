r"""The tail of importance weights: a Pareto plot.

Of weights above a threshold u with a generalised Pareto tail of shape k and scale s, the one with a share p of larger
ones among them is :math:`u + s (p^{-k} - 1) / k`; far out that is a line of slope :math:`-k` in logarithms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from bayesdd.numerics.pareto import KHAT_LIMIT, khat
from bayesdd.numerics.refusal import Refusal
from bayesdd.reports.style import BASELINE, DISTILLED, logarithmic, panels, styled

SHOWN = 1e-6  # of the mean weight: what lies below moves no average
FEWEST = 25  # weights: five in the tail
TINY = 1e-6  # shape that stands for 0, an exponential tail
TAIL = 3.0  # root of the number of draws times this is the tail that k-hat is fitted to (Vehtari et al. 2024)


@styled
def plot_weights(log_weight: Any) -> Any:
    """The largest importance weights over their ranks, with the line of the fitted Pareto shape.

    Args:
        log_weight: Log of unnormalised weights, nats, ``(S,)``: the log-ratio of full over distilled posterior at
            draws of the distilled one.

    Raises:
        Refusal: Fewer than 25 weights, or none of them finite.
        MissingPackage: matplotlib is not installed.

    Example:
        >>> bayesdd.plot_weights(torch.randn(500)).savefig("weights.svg")

    Source: Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", JMLR 2024.
    """
    logs = torch.as_tensor(log_weight).detach().double().flatten()
    logs = logs[torch.isfinite(logs)]
    if len(logs) < FEWEST:
        raise Refusal(f"plot_weights needs at least {FEWEST} finite log weights, got {len(logs)}: draw more")
    shape, count = khat(logs)[0], len(logs)
    tail = min(count // 5, math.ceil(TAIL * math.sqrt(count)))
    ordered = np.sort((logs - logs.logsumexp(0) + math.log(count)).exp().numpy())[::-1]
    share = np.arange(1, count + 1) / count
    figure, (axis,) = panels(1, size=(3.8, 2.3))
    axis.loglog(share, ordered, ".", color=DISTILLED, ms=3)
    even = math.isinf(shape) and shape < 0
    if math.isfinite(shape) and tail > 1:
        axis.loglog(share[:tail], _fitted(ordered[: tail + 1], shape), color=BASELINE, lw=1.4)
    logarithmic(axis.xaxis, axis.yaxis)
    verdict = "weights are even" if even else f"k-hat {shape:.2f} (usable below {KHAT_LIMIT})"
    axis.set_title(verdict)
    axis.set_ylim(bottom=max(float(ordered[-1]) / 1.05, SHOWN))
    axis.set_xlabel("share of draws with larger weights")
    axis.set_ylabel("weight over mean")
    return figure


def _fitted(largest: Any, shape: float) -> Any:
    """Weights of the fitted tail at the shares of the largest ones, whose last one is the threshold."""
    excess = largest[:-1] - largest[-1]
    shape = shape if abs(shape) > TINY else TINY
    scale = float(np.median(excess)) * shape / (2**shape - 1)  # the fitted median is theirs
    share = (np.arange(len(excess)) + 0.5) / len(excess)
    return largest[-1] + scale * (share**-shape - 1) / shape
