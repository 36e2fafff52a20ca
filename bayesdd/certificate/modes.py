"""Modes that a distilled posterior misses: a few optimisations of the full posterior from scattered starts.

Importance weights know only regions with draws: a certificate's other numbers cannot see a mode without any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bayesdd.density.density import Density
from bayesdd.inference.mode import climb, newton, scattered
from bayesdd.numerics.gaussian import Gaussian, kl, marginal
from bayesdd.target.target import LARGE, Target

SEARCHES = 6  # starting points, about half of them prior draws
SAME = 0.01  # squared Mahalanobis distance within which two searches ended in the same mode
MASS = 0.1  # nats: difference of relative heights within which two posteriors give a mode the same mass


def uncovered_mode(
    target: Target, distilled: Density, draws: Tensor, seed: int, tolerance: float, known: Gaussian | None
) -> bool:
    """Whether a few optimisations of the full posterior find a mode that the distilled posterior does not have.

    The searches run on few rows with weights, only their ends on all rows. A mode counts if it holds a twentieth of the
    draws' own mode's mass or more; the distilled posterior has it if its draws lie there, or if a mode of its own does,
    of the same relative mass and within the tolerance in KL, nats, between the two Laplace fits.

    The draws are of the distilled posterior, ``(S, P)``; ``known`` is the full posterior's Laplace fit.
    """
    thinned, centre = target.thinned(), draws[0]
    points = _wide(thinned, SEARCHES, seed)
    start = points[0].clone()
    start[target.index] = centre
    home = (
        known if known is not None and _inside(known, start) else newton(target.joint, climb(target.joint, start, 100))
    )
    found = False
    for mode in _others(target, thinned, home, points):
        shared = marginal(mode, target.index)
        covered = float(_inside(shared, draws).double().mean()) >= 0.01
        if not covered and not _matches(distilled, centre, home, shared, tolerance):
            found = True
            break
    target.joint.count(thinned)
    return found


def _others(target: Target, thinned: Density, home: Gaussian | None, points: Tensor) -> Iterator[Gaussian]:
    """Modes of the full posterior, searched for from points ``(K, P)``, that are heavy enough and not ``home``."""
    joint = target.joint
    # Ends of searches on few rows; first that from the draws' own mode, where other searches may end too.
    searched: list[Tensor] = [] if home is None or thinned.size == joint.size else [climb(thinned, home.mean)]
    for point in points:
        found = climb(thinned, point)
        if home is not None and _inside(home, found):
            continue
        # Searches on few rows that end together, in units of their wider posterior, continue as one.
        if home is not None and any(
            float(home.distance(found, other)) * thinned.size < SAME * joint.size for other in searched
        ):
            continue
        searched.append(found)
        # With many rows the mode of all is near the mode of few.
        mode = target.mode_near(found) if joint.size >= LARGE else newton(joint, climb(joint, found, 100))
        if mode is None or (home is not None and _inside(home, mode.mean)):
            continue
        if home is None or mode.log_mass >= home.log_mass - math.log(20):
            yield mode


def _matches(distilled: Density, centre: Tensor, home: Gaussian | None, mode: Gaussian, tolerance: float) -> bool:
    """Whether the distilled posterior has the same mode with the same mass relative to the draws' own mode."""
    here, there = newton(distilled, centre), newton(distilled, mode.mean)
    if home is None or here is None or there is None:
        return False
    # ``mode`` is a marginal over the nuisances, whose share of the mass cancels against that in ``home``.
    excess = (there.height - here.height) - (mode.height - home.height)
    return abs(excess) < MASS and kl(mode, there) < min(tolerance, 1.0)


def _wide(density: Density, count: int, seed: int) -> Tensor:
    """Scattered starting points with a finite log joint: prior draws and uniform ones in turn, ``(count, P)``."""
    generator = torch.Generator().manual_seed(seed)
    found = [scattered(density, 1, seed)[0]]
    for attempt in range(4 * count):
        point = 4 * torch.rand(density.dim, generator=generator, dtype=torch.float64).to(density.device) - 2
        if attempt % 2:
            for part in density.parts:
                point[part.index] = part.task.prior_draws(1, seed + attempt)[0].to(density.device)
        if bool(torch.isfinite(density.log_joint(point[None]))):
            found.append(point)
        if len(found) > count:
            break
    return torch.stack(found[-count:])


def _inside(mode: Gaussian, points: Tensor) -> Tensor:
    """Whether points ``(..., P)`` lie in a mode's bulk, ``(...)``."""
    dim = len(mode.mean)
    return mode.distance(points) < dim + 6 * math.sqrt(2 * dim)
