"""Renyi divergence."""

from __future__ import annotations

from torch import Tensor

from bayesdd.numerics.pareto import khat
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


def _refuse_infinite(log_ratio: Tensor, log_weight: Tensor, size: int, *, alpha: float) -> None:
    """Refuses rows at which the divergence does not exist: ``E[exp(alpha Delta)]`` is infinite.

    Asked of final rows, not in every evaluation: a search may pass through such rows. Arguments as of ``renyi``; the
    message names their number M, ``size``.

    Raises:
        Refusal: The Pareto shape of the terms is 1 or more.
    """
    shape = khat(log_weight + alpha * log_ratio)[0]
    if alpha > 1 and shape >= 1:
        raise Refusal(
            f"renyi of order {alpha:g} is infinite at the {size} rows found: the distilled posterior's tails are "
            f"lighter than the full one's (Pareto shape {shape:.2f}, and only below 1 a mean exists). "
            "Take an order below 1, or more rows."
        )


vars(renyi)["refuse_infinite"] = _refuse_infinite
