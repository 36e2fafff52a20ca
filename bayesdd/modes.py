"""Modes that a distilled posterior misses: a few optimisations of the full posterior from scattered starts.

Importance weights see only where the draws are: a mode without draws is invisible to a certificate's other numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdd.density import Density
from bayesdd.inference.laplace import Gaussian, climb, newton, scattered


def uncovered_mode(joint: Density, thinned: Density, draws: Tensor, index: Tensor, seed: int, starts: int = 6) -> bool:
    """Whether a few optimisations of the full posterior find a mode that the distilled draws do not cover.

    Args:
        joint: The full posterior.
        thinned: The same on few rows with weights: the scattered searches run there, only their ends on all rows.
        draws: Draws of the distilled posterior in the coordinates ``index`` of ``joint``, ``(S, P)``.
        index: Where the student's latents stand in the joint vector.
        seed: Seed of the starting points.
        starts: Number of searches.
    """
    centre = draws.mean(0)
    points = _wide(thinned, starts, seed)
    home_start = points[0].clone()
    home_start[index] = centre
    home = newton(joint, climb(joint, home_start, 100))
    near = joint.dim + 6 * math.sqrt(2 * joint.dim)
    for point in points:
        found = climb(thinned, point)
        if home is not None and _distance(home, found[None]) < near:
            continue
        mode = newton(joint, climb(joint, found, 100))
        if mode is None or (home is not None and _distance(home, mode.mean[None]) < near):
            continue
        if home is None or mode.log_mass > home.log_mass - 3.0:
            covered = _covers(mode, draws, index)
            if covered < 0.01:
                return True
    return False


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


def _distance(gaussian: Gaussian, points: Tensor) -> float:
    white = torch.linalg.solve_triangular(gaussian.factor, (points - gaussian.mean).T, upper=False)
    return float((white**2).sum())


def _covers(mode: Gaussian, draws: Tensor, index: Tensor) -> float:
    """Share of draws that lie in a mode's bulk."""
    covariance = mode.factor @ mode.factor.T
    factor = torch.linalg.cholesky(covariance[index[:, None], index])
    white = torch.linalg.solve_triangular(factor, (draws - mode.mean[index]).T, upper=False)
    dim = len(index)
    return float(((white**2).sum(0) < dim + 6 * math.sqrt(2 * dim)).double().mean())
