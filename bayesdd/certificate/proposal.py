"""Importance-weighted draws of a posterior: normals around its modes, and wherever tempered particles show more mass.

Particles (``bayesdd.inference.sequential``) find mass, but a few hundred of them cannot say how much a narrow mode has:
its share is that of the few early ones that happened to lie in it. Draws of a known density can. Where particles lie
that the modes' normals do not cover, a search for a mode begins; only where none is found, a normal is put there as
wide as they are.

Source: Cappe, Guillin, Marin & Robert, "Population Monte Carlo", J. Comput. Graph. Statist. 2004.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdd.certificate.modes import Found, more_modes
from bayesdd.density.density import Density
from bayesdd.inference.draws import Draws
from bayesdd.inference.sequential import Tempered
from bayesdd.numerics.gaussian import Gaussian, log_mixture, mixture, moment_matched
from bayesdd.numerics.pareto import khat

FRESH = 1_000_003  # keeps the seeds of fresh draws apart from those of a distillation
LAPLACE_KHAT, LAPLACE_SHARE = 0.5, 0.45  # importance-corrected draws are used when both hold
DEFENCE, DEFENDED = 2.0, 0.1  # in sds, and of all draws: for exponential tails (few events, the log of their rate)
TOO_FEW = 10.0  # times denser than its draws: a posterior is not covered by them there
MISSED = 1e-4  # mass of such places from which draws are added there
SEARCHES = 12  # for modes from such places, at a time
WIDENED = 4  # most such places that are no mode's
KERNEL = 0.1  # posterior sds around such particles where they are too few to know a width
WIDER, LEAST_SHARE = 1.5, 0.05  # in sds, and of all draws: what draws added there must reach


@dataclass(frozen=True, eq=False)
class Proposal:
    """Where importance-weighted draws come from.

    Attributes:
        draws: The draws; None where their weights are too uneven.
        parts: The normals.
        log_evidence: Log of the posterior's normalising constant by the draws, nats.
        modes: The posterior's modes, those included that its particles led to.
    """

    draws: Draws | None
    parts: list[Gaussian]
    log_evidence: float
    modes: Found

    def lacks(self, points: Tensor, log_density: Tensor) -> Tensor:
        """Where a posterior with that log density, nats, ``(S,)`` at points ``(S, P)``, has too few draws, ``(S,)``."""
        lacks: Tensor = log_density - log_mixture(self.parts, points) > math.log(TOO_FEW)
        return lacks


def proposed(density: Density, modes: Found, seed: int, count: int, own: Tempered | None) -> Proposal | None:
    """Importance-weighted draws around modes, and where tempered particles show mass that these do not cover.

    Args:
        density: The posterior.
        modes: Its modes, as far as they are known.
        seed: Seed.
        count: Number of draws.
        own: Its particles, if any.

    Returns:
        The proposal; None where no mode is known.
    """
    if not modes.modes:
        return None
    # Its own stream of random numbers: the particles of a distillation of the same seed must not come back.
    generator = torch.Generator().manual_seed(FRESH * (seed + 1))
    wide = math.log(DEFENDED / (1 - DEFENDED))
    widened: list[Gaussian] = []
    while True:
        around = [_of_mass(mode.mean, DEFENCE * mode.factor, mode.log_mass + wide) for mode in modes.modes]
        parts = [*modes.modes, *around, *widened]
        values, log_density = mixture(parts, count, generator)
        log_weight = density.log_joint(values) - log_density
        log_weight = torch.where(torch.isfinite(log_weight), log_weight, -torch.inf)
        evidence = float(log_weight.logsumexp(0)) - math.log(count)
        found = Proposal(None, parts, evidence, modes)
        missed = None if own is None else _missed(own, found)
        if own is None or missed is None:
            break
        picked = torch.multinomial(missed.cpu(), min(SEARCHES, int((missed > 0).sum())), generator=generator)
        more = more_modes(density, modes, own.every[picked.to(own.every.device)])
        if len(more.modes) == len(modes.modes):
            if len(widened) == WIDENED:
                break
            widened.append(_normal_at(own, missed, evidence))
        modes = more
    weight = torch.softmax(log_weight, 0)
    uneven = khat(log_weight)[0] >= LAPLACE_KHAT or float(1 / (weight**2).sum()) <= LAPLACE_SHARE * count
    found = replace(found, modes=modes)
    return found if uneven or missed is not None else replace(found, draws=Draws(values[:, None], log_weight[:, None]))


def _missed(own: Tempered, proposal: Proposal) -> Tensor | None:
    """Weights of the particles where a posterior has too few draws, ``(T S,)``; None if these have next to no mass."""
    there = proposal.lacks(own.every, own.log_joint - proposal.log_evidence) & (own.log_weight > -math.inf)
    missed = torch.where(there, own.log_weight, -torch.inf).exp()
    return None if float(missed.sum()) < MISSED else missed


def _normal_at(own: Tempered, missed: Tensor, evidence: float) -> Gaussian:
    """A normal at particles that have too few draws: a slab, a heavy tail."""
    there, mass = missed > 0, float(missed.sum())
    at, share = own.every[there], missed[there] / mass
    if float(1 / (share**2).sum()) > 2 * at.shape[1]:
        found = moment_matched(at, share)
    else:  # too few for a spread of their own
        found = Gaussian(share @ at, KERNEL * moment_matched(own.points).factor)
    return _of_mass(found.mean, WIDER * found.factor, evidence + math.log(max(mass, LEAST_SHARE)))


def _of_mass(mean: Tensor, factor: Tensor, log_mass: float) -> Gaussian:
    """A normal of that mass, nats."""
    flat = Gaussian(mean, factor, 0.0)
    return replace(flat, height=log_mass - flat.log_mass)
