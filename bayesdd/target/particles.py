"""Particles: weighted draws that stand for a posterior, with the full log-likelihood at each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

LEAST_SHARE = 0.05  # effective share of reweighted draws below which they say nothing about the other posterior


@dataclass(frozen=True, eq=False)
class Particles:
    """Weighted draws of a posterior, and the full log-likelihood there.

    Attributes:
        draws: Unconstrained, in the student's coordinates, ``(S, P)``.
        log_likelihood: l_D, nats, ``(S,)``.
        log_weight: Normalised log weights, ``(S,)``.
        own: Log-likelihood of the posterior that the weighted draws stand for: l_D of the full one, l_U of a distilled.
        error: Largest standard error of ``log_likelihood``, nats; 0 where all rows were swept.
    """

    draws: Tensor
    log_likelihood: Tensor
    log_weight: Tensor
    own: Tensor
    error: float = 0.0


def noise(particle_sets: Sequence[Particles]) -> float:
    """The most that the errors of their sweeps can add to the sum of both KL divergences, nats."""
    return max(particles.error for particles in particle_sets) ** 2


def first(particles: Particles, count: int) -> Particles:
    """The first ``count`` particles, their weights normalised again."""
    draws, full, log_weight, own = (
        part[:count] for part in (particles.draws, particles.log_likelihood, particles.log_weight, particles.own)
    )
    own = full if particles.own is particles.log_likelihood else own
    return Particles(draws, full, log_weight - log_weight.logsumexp(0), own, particles.error)


def tilted(particles: Particles, log_likelihood: Tensor) -> Tensor:
    """Normalised log weights under which the draws stand for the posterior of another log-likelihood ``(S,)``."""
    log_weight = particles.log_weight + log_likelihood - particles.own
    return log_weight - log_weight.logsumexp(0)


def trusted(log_weight: Tensor, value: Tensor) -> Tensor:
    """The value, or NaN where normalised log weights ``(S,)`` leave too few effective draws.

    An optimiser that saw finite numbers there would go where the weights degenerate, not where the value is small.
    """
    share = float((2 * log_weight.detach()).logsumexp(0).neg().exp()) / len(log_weight)
    return value if share >= LEAST_SHARE else value * float("nan")
