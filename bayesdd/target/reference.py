"""What distillation needs of the full posterior, computed once: its Gaussian, particles and the bound."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdd.inference import hmc
from bayesdd.inference.mode import scattered
from bayesdd.inference.sequential import tempered
from bayesdd.numerics.gaussian import moment_matched
from bayesdd.numerics.pareto import KHAT_LIMIT, khat
from bayesdd.numerics.refusal import Refusal
from bayesdd.target.bound import Bound
from bayesdd.target.particles import Particles, first
from bayesdd.target.second_order import SecondOrder
from bayesdd.target.target import Target
from bayesdd.target.unbounded import refuse_unbounded

PARTICLES, HELD_OUT = 4000, 1000
SHARE_USABLE = 0.1  # effective share of importance-weighted particles below which they are not weighted
CHAINS, DRAWS = 32, 100  # of HMC where there is no Laplace fit to draw from
TEMPERED, FEW_ROWS = 256, 64  # particles that these chains start from, and rows whose posterior these reach first


@dataclass(frozen=True, eq=False)
class Reference:
    """The full posterior as distillation sees it.

    Attributes:
        target: The tasks and the student.
        second_order: Its Gaussian and derivatives there.
        draws: Draws ``(S, P)`` of the particles to optimise on.
        weigh: Sweeps such draws when they are first asked for, since the closed form may do: draws -> particles.
        held_out: Particles to choose by.
        bound: How close M rows can come.
        policy: Particles of the distilled posterior of an earlier round; None in the first.
    """

    target: Target
    second_order: SecondOrder
    draws: Tensor
    weigh: Callable[[Tensor], Particles]
    held_out: Particles
    bound: Bound
    policy: Particles | None = None

    @functools.cached_property
    def particles(self) -> Particles:
        """Particles to optimise on."""
        return self.weigh(self.draws)

    def some(self, count: int) -> Particles:
        """The first of them, swept alone where not all have been."""
        if count >= len(self.draws) or "particles" in vars(self):
            return first(self.particles, min(count, len(self.draws)))
        return self.weigh(self.draws[:count])

    @property
    def trusted(self) -> bool:
        """Whether the particles' weights make them draws of the full posterior, so that held-out ones can judge."""
        return self.held_out.own is self.held_out.log_likelihood

    def sampled(self, seed: int) -> Reference:
        """The same with particles that stand for the full posterior: HMC draws if its Laplace fit was a poor proposal.

        Functionals of the log-ratio need no such draws, because their rounds correct for any proposal.
        """
        if self.particles.own is self.particles.log_likelihood:
            return self
        draws = _hmc(self.target, seed)
        return replace(self, draws=draws, weigh=functools.partial(_equally_weighted, self.target))


def build(target: Target, seed: int) -> Reference:
    """Laplace fit of the full posterior and importance-weighted particles from it; HMC where there is no fit.

    Raises:
        Refusal: The log-likelihood has no maximum, or neither a Laplace fit nor HMC on all rows gives finite draws.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = target.gaussian()
    if gaussian is None:
        refuse_unbounded(target.joint, scattered(target.joint, 1, seed)[0])
        draws = _tempered(target, seed)
        if not bool(torch.isfinite(draws).all()) or float(draws.std(0).min()) == 0:
            raise Refusal(
                "the full posterior has no Laplace fit and HMC on the full data did not move: "
                "check the priors and scales of the model."
            )
        gaussian = moment_matched(draws)
        order = torch.randperm(len(draws), generator=generator)
        held_out, particles = draws[order[:HELD_OUT]], draws[order[HELD_OUT:]]
        target = target.with_control_variate(held_out)
        make = functools.partial(_equally_weighted, target)
    else:
        particles, held_out = (gaussian.draw(n // target.draw_divisor, generator) for n in (PARTICLES, HELD_OUT))
        target = target.with_control_variate(held_out)
        make = functools.partial(weighted_particles, target, log_prob=gaussian.log_prob)
    second = SecondOrder.of(gaussian, target)
    return Reference(target, second, particles, make, make(held_out), Bound.of(second, target))


def weighted_particles(target: Target, draws: Tensor, log_prob: Callable[[Tensor], Tensor]) -> Particles:
    """Draws ``(S, P)`` of an approximation with density ``log_prob``, weighted to the full posterior if it is near."""
    particles = _equally_weighted(target, draws)
    prior, proposal = target.prior.log_prior(draws), log_prob(draws)
    log_weight = particles.log_likelihood + prior - proposal
    log_weight = torch.where(torch.isfinite(log_weight), log_weight, -torch.inf)
    log_weight = log_weight - log_weight.logsumexp(0)
    share = float(1 / (log_weight.exp() ** 2).sum()) / len(draws)
    if khat(log_weight)[0] < KHAT_LIMIT and share > SHARE_USABLE:
        return replace(particles, log_weight=log_weight)
    # Too far from Gaussian to weight: the draws still say where to look, and the on-policy rounds correct.
    finite = torch.isfinite(particles.log_likelihood)
    log_weight = particles.log_weight[finite] - particles.log_weight[finite].logsumexp(0)
    own = (proposal - prior)[finite]
    return Particles(draws[finite], particles.log_likelihood[finite], log_weight, own, particles.error)


def _equally_weighted(target: Target, draws: Tensor) -> Particles:
    log_weight = draws.new_full((len(draws),), -float(torch.tensor(float(len(draws))).log()))
    full, error = target.log_likelihood(draws)
    return Particles(draws, full, log_weight, full, error)


def _tempered(target: Target, seed: int) -> Tensor:
    """The same by chains that start from tempered particles, which need no mode and a fifth of the warm-up."""
    few = target.thinned(FEW_ROWS, weighted=False) if target.rows > 2 * FEW_ROWS else None
    found = tempered(target.joint, particles=TEMPERED, seed=seed, few=few)
    if found is None:
        return _hmc(target, seed)
    begin = found.points[:: TEMPERED // CHAINS]
    around = moment_matched(found.points)
    return hmc(target.joint, draws=DRAWS, chains=CHAINS, seed=seed, gaussian=around, start=begin).flat[:, target.index]


def _hmc(target: Target, seed: int) -> Tensor:
    """Draws of the shared latents' full posterior, ``(S, P)``."""
    return hmc(target.joint, draws=DRAWS, chains=CHAINS, seed=seed).flat[:, target.index]
