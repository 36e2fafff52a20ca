"""Renyi divergence."""

from __future__ import annotations

from torch import Tensor

from bayesdd.numerics.refusal import Refusal


def renyi(log_ratio: Tensor, log_weight: Tensor, *, alpha: float) -> Tensor:
    r"""Renyi divergence of order alpha of the full from the distilled posterior.

    .. math:: \frac{1}{\alpha - 1} \left( \log \mathrm{E}[e^{\alpha\Delta}] - \alpha \log \mathrm{E}[e^\Delta] \right)

    Args:
        log_ratio: Delta at S draws of the distilled posterior, nats, shape ``(S,)``.
        log_weight: log of the draws' normalised weights, shape ``(S,)``.
        alpha: Order, positive and not 1 (at 1 it is ``forward_kl``).

    Returns:
        Zero-dimensional tensor, nats, at least 0.

    Raises:
        Refusal: ``alpha`` is 1 or not positive.

    Source: Li & Turner, "Renyi divergence variational inference", NeurIPS 2016.
    """
    if alpha <= 0 or alpha == 1:
        raise Refusal(f"renyi needs an order alpha > 0 other than 1, got {alpha}: use forward_kl for alpha = 1.")
    powered = (log_weight + alpha * log_ratio).logsumexp(0)
    evidence = (log_weight + log_ratio).logsumexp(0)
    return (powered - alpha * evidence) / (alpha - 1)
