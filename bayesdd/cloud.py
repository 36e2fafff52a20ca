"""Particles of a posterior."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cloud:
    """Particles of a posterior, with the full log-likelihood at them.

    Attributes:
        draws: Unconstrained, in the student's coordinates, ``(S, P)``.
        log_likelihood: l_D, nats, ``(S,)``.
        log_weight: Normalised log weights, ``(S,)``.
        own: Log-likelihood of the posterior that the weighted draws stand for: l_D of the full one, l_U of a distilled.
    """

    draws: Tensor
    log_likelihood: Tensor
    log_weight: Tensor
    own: Tensor


def tilted(cloud: Cloud, log_likelihood: Tensor) -> Tensor:
    """Normalised log weights that turn a cloud into the posterior of another log-likelihood ``(S,)``."""
    log_weight = cloud.log_weight + log_likelihood - cloud.own
    return log_weight - log_weight.logsumexp(0)
