"""Forward Kullback-Leibler divergence."""

from __future__ import annotations

from torch import Tensor


def forward_kl(log_ratio: Tensor, log_weight: Tensor) -> Tensor:
    r"""KL(full, distilled) from draws of the distilled posterior, importance-weighted to the full one.

    .. math:: \sum_s \bar W_s \Delta_s - \log \mathrm{E}[e^\Delta], \quad \bar W = \mathrm{softmax}(\Delta)

    Saturates at log S where the draws miss the full posterior: trust it only with a Pareto k-hat below 0.7.

    Args:
        log_ratio: Delta at S draws of the distilled posterior, nats, shape ``(S,)``.
        log_weight: log of the draws' normalised weights, shape ``(S,)``.

    Returns:
        Zero-dimensional tensor, nats, at least 0.

    Source: Kim et al., "On divergence measures for Bayesian pseudocoresets", NeurIPS 2022 (the divergence).
    """
    evidence = (log_weight + log_ratio).logsumexp(0)
    corrected = (log_weight + log_ratio - evidence).exp()
    return (corrected * (log_ratio - evidence)).sum()
