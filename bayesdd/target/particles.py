"""Particles of a posterior."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

ENOUGH_SHARE = 0.05  # effective share of tilted draws below which they say nothing about the other posterior


@dataclass(frozen=True, eq=False)
class Particles:
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


def first(particles: Particles, count: int) -> Particles:
    """The first particles of a particles."""
    log_weight = particles.log_weight[:count]
    log_weight = log_weight - log_weight.logsumexp(0)
    return Particles(particles.draws[:count], particles.log_likelihood[:count], log_weight, particles.own[:count])


def trusted(log_weight: Tensor, value: Tensor) -> Tensor:
    """The value, or NaN where normalised log weights ``(S,)`` leave too few effective draws behind it.

    An optimiser that sees finite numbers there goes where the weights degenerate, not where the value is small.
    """
    share = float((2 * log_weight.detach()).logsumexp(0).neg().exp()) / len(log_weight)
    return value if share >= ENOUGH_SHARE else value * float("nan")


def tilted(particles: Particles, log_likelihood: Tensor) -> Tensor:
    """Normalised log weights that turn a particles into the posterior of another log-likelihood ``(S,)``."""
    log_weight = particles.log_weight + log_likelihood - particles.own
    return log_weight - log_weight.logsumexp(0)
