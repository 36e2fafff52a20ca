r"""KL divergences of two posteriors from draws of both and the log-ratio of their densities, nothing else.

With draws from p and from q, :math:`\Delta = \log \tilde p - \log \tilde q` and :math:`c = \log (Z_p / Z_q)`,

.. math::
    KL(p, q) = E_m\Big[\tfrac{p}{m} (\Delta - c) - \tfrac{p}{m} + \tfrac{q}{m}\Big], \qquad m = (p + q) / 2, \quad
    \frac{p}{m} = 2 \sigma(\Delta - c),

which no draw makes negative, so that nothing cancels where the posteriors are close, and which does not saturate where
they are far apart, since the draws cover both. c solves :math:`E_m[\sigma(\Delta - c)] = 1/2` (Bennett's acceptance
ratio); close posteriors' KLs do not depend on it to first order, and the standard errors contain its own.

Sources: Bennett, "Efficient estimation of free energy differences from Monte Carlo data", 1976; Meng & Wong,
"Simulating ratios of normalizing constants via a simple identity", Statistica Sinica 1996.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from studies.shared.true_kl import Array


@dataclass(frozen=True)
class Bridge:
    """Both KLs with standard errors, and the log of the ratio of the normalisers; nats."""

    reverse: float
    reverse_se: float
    forward: float
    forward_se: float
    log_normalisers: float


def bridge(at_full: Array, at_distilled: Array) -> Bridge:
    """KL(distilled, full) and KL(full, distilled).

    Args:
        at_full: Log-ratio of the full over the distilled density at draws of the full posterior, nats, shape
            ``(chains, draws)``; any constant may be added to both.
        at_distilled: The same at draws of the distilled posterior.

    Returns:
        Both KLs; their standard errors allow for autocorrelated draws.
    """
    every = np.concatenate([at_full.ravel(), at_distilled.ravel()])
    weight = np.concatenate([np.full(a.size, 0.5 / a.size) for a in (at_full, at_distilled)])
    low, high = every.min() - 1.0, every.max() + 1.0
    ratio = float(brentq(lambda c: weight @ expit(every - c) - 0.5, low, high, xtol=1e-13))

    def divergence(*shifted: Array) -> tuple[float, float]:
        """KL of the density over which the log-ratios are, from the two sets of draws."""
        values = [2 * expit(x) * x - 2 * expit(x) + 2 * expit(-x) for x in shifted]
        # A KL's share of the error of the ratio: it matters where few draws of one density lie near the other.
        slopes = [2 * expit(x) * expit(-x) * (x - 2) + 2 * expit(x) for x in shifted]
        overlap = sum(float((expit(x) * expit(-x)).mean()) for x in shifted)
        share = sum(float(slope.mean()) for slope in slopes) / overlap
        influence = [value - share * expit(x) for value, x in zip(values, shifted, strict=True)]
        return float(np.mean([value.mean() for value in values])), math.hypot(*map(_error, influence)) / 2

    forward = divergence(at_full - ratio, at_distilled - ratio)
    reverse = divergence(ratio - at_full, ratio - at_distilled)
    return Bridge(*reverse, *forward, ratio)


def _error(values: Array) -> float:
    """Standard error of the mean of chains ``(chains, draws)``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces 1.x on import
        import arviz
    if np.ptp(values) == 0:
        return 0.0
    effective = float(arviz.ess(values, method="mean"))
    return float(values.std()) / math.sqrt(min(effective, values.size))
