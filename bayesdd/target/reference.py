"""What distillation needs of the full posterior, computed once per target: a Gaussian, fixed particles, the bound."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdd.inference import hmc
from bayesdd.numerics.gaussian import moment_matched
from bayesdd.numerics.pareto import khat
from bayesdd.target.bound import Bound
from bayesdd.target.particles import Particles
from bayesdd.target.second_order import SecondOrder
from bayesdd.target.target import Target

PARTICLES, HELD_OUT = 4000, 1000
KHAT_USABLE, SHARE_USABLE = 0.7, 0.1


@dataclass(frozen=True, eq=False)
class Reference:
    """The full posterior as distillation sees it.

    Attributes:
        target: The tasks and the student.
        second_order: Its Gaussian and derivatives there.
        make: Makes the particles to optimise on, which take a sweep that a closed form may do without.
        held_out: Particles to choose by.
        bound: How close M rows can come.
        policy: Particles of the distilled posterior of an earlier round; None in the first.
    """

    target: Target
    second_order: SecondOrder
    make: Callable[[], Particles]
    held_out: Particles
    bound: Bound
    policy: Particles | None = None

    @functools.cached_property
    def particles(self) -> Particles:
        """Particles to optimise on."""
        return self.make()

    def sampled(self, seed: int) -> Reference:
        """The same with particles that stand for the full posterior: HMC draws where its Laplace fit was no proposal.

        Functionals of the log-ratio do without: their rounds correct for whatever draws they are taken at.
        """
        if self.particles.own is self.particles.log_likelihood:
            return self
        draws = hmc(self.target.joint, draws=100, chains=32, seed=seed)
        return replace(self, make=lambda: _uniform(self.target, draws.flat[:, self.target.index]))


def build(target: Target, seed: int) -> Reference:
    """Laplace fit of the full posterior and importance-weighted particles from it; HMC where there is no fit.

    Raises:
        ValueError: Neither a Laplace fit nor HMC on the full data gives finite draws.
    """
    generator = torch.Generator().manual_seed(seed)
    gaussian = target.gaussian()
    if gaussian is None:
        draws = hmc(target.joint, draws=100, chains=32, seed=seed)
        flat = draws.flat[:, target.index]
        if not bool(torch.isfinite(flat).all()) or float(flat.std(0).min()) == 0:
            raise ValueError(
                "the full posterior has no Laplace fit and HMC on the full data did not move: "
                "check the priors and scales of the model."
            )
        gaussian = moment_matched(flat)
        order = torch.randperm(len(flat), generator=generator)
        held_out, particles = flat[order[:HELD_OUT]], flat[order[HELD_OUT:]]
        make = functools.partial(_uniform, target)
    else:
        particles, held_out = (gaussian.draw(n // target.draw_divisor, generator) for n in (PARTICLES, HELD_OUT))
        make = functools.partial(weighted_particles, target, log_prob=gaussian.log_prob)
    second = SecondOrder.of(gaussian, target)
    return Reference(target, second, functools.partial(make, particles), make(held_out), Bound.of(second, target))


def _uniform(target: Target, draws: Tensor) -> Particles:
    even = torch.full(
        (len(draws),), -float(torch.tensor(float(len(draws))).log()), dtype=draws.dtype, device=draws.device
    )
    full = target.log_likelihood(draws)
    return Particles(draws, full, even, full)


def weighted_particles(target: Target, draws: Tensor, log_prob: object) -> Particles:
    """Particles of an approximation, importance-weighted to the full posterior where that is possible at all."""
    particles = _uniform(target, draws)
    log_weight = particles.log_likelihood + target.prior.log_prior(draws) - log_prob(draws)  # type: ignore[operator]
    log_weight = torch.where(torch.isfinite(log_weight), log_weight, -torch.inf)
    log_weight = log_weight - log_weight.logsumexp(0)
    share = float(1 / (log_weight.exp() ** 2).sum()) / len(draws)
    if khat(log_weight)[0] < KHAT_USABLE and share > SHARE_USABLE:
        return replace(particles, log_weight=log_weight)
    # Too far from Gaussian to weight: particles still say where to look, and the on-policy rounds correct.
    finite = torch.isfinite(particles.log_likelihood)
    log_weight = particles.log_weight[finite] - particles.log_weight[finite].logsumexp(0)
    own = log_prob(draws) - target.prior.log_prior(draws)  # type: ignore[operator]
    return Particles(draws[finite], particles.log_likelihood[finite], log_weight, own[finite])
