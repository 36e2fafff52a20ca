"""Half the variance of the log-ratio."""

from __future__ import annotations

from torch import Tensor


def half_variance(log_ratio: Tensor, log_weight: Tensor) -> Tensor:
    r"""Half the variance of the log-ratio: the KL divergence to second order, in either direction.

    .. math:: \tfrac12 \mathrm{Var}_{\theta \sim r}[\Delta(\theta)]

    Zero if and only if the two posteriors agree on the support of r.

    Args:
        log_ratio: Delta at S particles, nats, shape ``(S,)``.
        log_weight: log of the particles' normalised weights under r, shape ``(S,)``.

    Returns:
        Zero-dimensional tensor, nats.

    Source: Dehaene, "Computing the quality of the Laplace approximation", 2019; as an objective for
    coresets, Campbell & Broderick, JMLR 2019.
    """
    weight = log_weight.exp()
    centred = log_ratio - (weight * log_ratio).sum()
    return 0.5 * (weight * centred**2).sum()
