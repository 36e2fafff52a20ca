"""Reverse Kullback-Leibler divergence."""

from __future__ import annotations

from torch import Tensor


def reverse_kl(log_ratio: Tensor, log_weight: Tensor) -> Tensor:
    r"""KL(distilled, full) from draws of the distilled posterior.

    .. math:: \log \mathrm{E}[e^\Delta] - \mathrm{E}[\Delta]

    The prior and both normalisers cancel. Biased downwards at finite S by about ``Var(W) / 2 S``.

    Args:
        log_ratio: Delta at S draws of the distilled posterior, nats, shape ``(S,)``.
        log_weight: log of the draws' normalised weights, shape ``(S,)``.

    Returns:
        Zero-dimensional tensor, nats, at least 0.

    Source: Campbell & Beronov, "Sparse variational inference: Bayesian coresets from scratch", NeurIPS 2019.
    """
    mean = (log_weight.exp() * log_ratio).sum()
    return (log_weight + log_ratio - mean).logsumexp(0)
