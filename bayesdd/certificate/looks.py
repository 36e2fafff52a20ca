"""A second look: draws of both posteriors that no mode search and no chain of the first look has chosen.

The first look draws from the distilled posterior around the modes that it knows; mass elsewhere, of either posterior,
is invisible to its weights. Here both posteriors are drawn from a start as wide as the prior
(``bayesdd.inference.sequential``), and both KL divergences are estimated once more, with nothing of the first look but
the ratio of the evidences. Modes of both are searched for, and what they cost is counted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.certificate.modes import FAR, Found, LogRatio, cost, excess, modes_of_target
from bayesdd.certificate.proposal import Proposal
from bayesdd.density.density import Density
from bayesdd.inference.sequential import Tempered, tempered
from bayesdd.numerics.gaussian import Gaussian
from bayesdd.target.target import Target

PARTICLES, FEW = 256, 128  # of a posterior, and of one that only gives starting points
MOST_ROWS = 2048  # of usual cost in the full data, beyond which only searches for modes look at the full posterior
USUAL = 256  # bytes of intermediate tensors that a row of a regression takes at a draw; others count in proportion
ROWS_FOR_HINTS = 64  # of the full data, whose posterior is reached first: it is wide, and its particles start searches
HINTS = 12  # particles from which searches start
SWEPT = 2**22  # rows x particles up to which the log-ratio is computed at the particles of all stages
STANDARD_ERRORS = 3.0
STREAM = 2_000_003  # keeps these seeds apart from those of other draws
LINEAGE = 3.0  # particles with common ancestors tell less: variances are this many times as large


class Side(NamedTuple):
    """What the second look says of one divergence.

    Attributes:
        least: Nats that it is at least, by the second look; 0 where that cannot be said.
        far: The part of that which comes from mass where the other posterior has next to none.
        mass: How much mass that is.
        why: The same in words.
    """

    least: float
    far: float
    mass: float
    why: str

    def beside(self, other: Side) -> Side:
        """The same, with what the other divergence implies: mass m that is avoided costs ``-log(1 - m)`` at least."""
        avoided = -math.log1p(-min(other.mass, 1 - 1e-12))
        return self if avoided <= self.far else Side(avoided + self.least - self.far, avoided, self.mass, other.why)


class Look(NamedTuple):
    """What the second look found.

    Attributes:
        reverse: Of KL(distilled, full).
        forward: Of KL(full, distilled).
        modes: Distinct modes of the full posterior.
        searches: Searches for modes.
        particles: Particles of both posteriors, all stages together.
    """

    reverse: Side
    forward: Side
    modes: int
    searches: int
    particles: int


def explored(density: Density, seed: int, particles: int = PARTICLES, few: Density | None = None) -> Tempered | None:
    """Particles of a posterior, by way of that of ``few`` of its rows; None with many latents or the loop backend."""
    return tempered(density, particles=particles, seed=STREAM * (seed + 1), few=few)


def second_look(
    target: Target,
    own: Tempered | None,
    own_modes: Found,
    proposal: Proposal | None,
    log_ratio: LogRatio,
    usual: float,
    seed: int,
    known: Gaussian | None,
) -> Look:
    """Looks for mass of either posterior that the first look has not seen.

    Args:
        target: The target.
        own: Particles of the distilled posterior.
        own_modes: Its modes.
        proposal: Where the first look's draws come from; None: chains.
        log_ratio: The log-ratio at draws of the shared latents, nats.
        usual: Log of full over distilled evidence by the first look, nats.
        seed: Seed.
        known: Laplace fit of the full posterior, if at hand.
    """
    joint = target.joint
    few = target.thinned(ROWS_FOR_HINTS, weighted=False) if target.rows > 2 * ROWS_FOR_HINTS else None
    rows = math.ceil(sum(part.rows.size * max(1, part.task.bytes_per_cell / USUAL) for part in joint.parts))
    if rows <= MOST_ROWS:
        full = whole = explored(joint, seed + 1, few=few)
    else:
        full, whole = explored(few or joint, seed + 1, FEW), None
    starts = [hints(full, joint, seed)]
    if own_modes.modes and not len(target.nuisance):
        starts.append(target.joint_order(torch.stack([mode.mean for mode in own_modes.modes])))
    modes = modes_of_target(target, torch.cat(starts), known, seed, log_ratio)
    if few is not None:
        joint.count(few)
    reverse = _side(own, own_modes, None, proposal, rows, log_ratio, usual, -1.0, seed)
    forward = _side(whole, modes, target.index, proposal, rows, log_ratio, usual, 1.0, seed)
    return Look(
        reverse.beside(forward),
        forward.beside(reverse),
        len(modes.modes),
        modes.searches + own_modes.searches,
        sum(len(look.every) for look in (own, full) if look is not None),
    )


def hints(found: Tempered | None, density: Density, seed: int) -> Tensor:
    """Particles of late stages, from which searches start, ``(K, P)``: the first ones are as wide as the prior."""
    if found is None:
        return torch.zeros(0, density.dim, dtype=torch.float64, device=density.device)
    late = len(found.every) // 2
    picked = late + torch.randint(len(found.every) - late, (HINTS,), generator=torch.Generator().manual_seed(seed))
    return found.every[picked.to(found.every.device)]


def _side(
    found: Tempered | None,
    modes: Found,
    index: Tensor | None,
    proposal: Proposal | None,
    rows: int,
    log_ratio: LogRatio,
    usual: float,
    sign: float,
    seed: int,
) -> Side:
    """One divergence by a posterior's own particles and modes.

    Particles where the first look has draws enough tell nothing new: their shares of narrow modes are less certain than
    its weights. With nuisances, or where its draws are chains', all of them count.
    """
    of, other = ("full", "distilled") if sign > 0 else ("distilled", "full")
    far, near, mass, why = 0.0, 0.0, 0.0, ""
    if found is not None:
        points, log_joint, weight = _drawn(found, modes, rows, seed)
        shared = points if index is None else points[:, index]
        gap = sign * (log_ratio(shared) - usual)
        if proposal is not None and shared.shape == points.shape:
            evidence = proposal.log_evidence + (usual if sign > 0 else 0.0)
            weight = torch.where(proposal.lacks(shared, log_joint - evidence), weight, 0.0)
        terms, beyond = excess(gap), gap > FAR
        far, mass = float(weight[beyond] @ terms[beyond]), float(weight[beyond].sum())
        terms = torch.where(beyond, 0.0, terms)
        mean = float(weight @ terms)
        near = max(0.0, mean - STANDARD_ERRORS * math.sqrt(LINEAGE * float((weight * (terms - mean)).square().sum())))
        why = (
            f"about {mass:.2g} of the {of} posterior's mass lies where the {other} one has next "
            f"to none, which costs about {far:.2g} nats"
        )
    lacking, share = cost(modes, index, log_ratio, usual, sign, seed)
    mass = max(mass, share)
    if lacking > far:
        far = lacking
        why = f"the {of} posterior has a mode that the {other} one lacks, which costs about {lacking:.2g} nats"
    return Side(far + near, far, mass, why)


def _drawn(found: Tempered, modes: Found, rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Particles ``(K, P)``, log joints and weights ``(K,)``: those of all stages, or some where rows are many.

    Weights sum to one, or to less where the particles have missed modes that are known. Laplace's estimate of a mode
    that they have met is not used: where it is too large it would hide the mass elsewhere.
    """
    missed = modes.log_evidence_outside(found.points)
    scale = 1 / (1 + math.exp(min(700.0, missed - found.log_evidence)))
    if rows * len(found.every) <= SWEPT:
        return found.every, found.log_joint, scale * found.log_weight.exp()
    generator = torch.Generator().manual_seed(seed)
    picked = torch.multinomial(found.log_weight.exp().cpu(), PARTICLES, replacement=True, generator=generator)
    picked = picked.to(found.every.device)
    return found.every[picked], found.log_joint[picked], found.every.new_full((PARTICLES,), scale / PARTICLES)
