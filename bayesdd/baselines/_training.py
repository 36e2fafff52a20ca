"""Training as the classic methods define it: gradient ascent of a log joint, on real rows or on synthetic ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.density.density import Density
from bayesdd.distillation.problem import Problem
from bayesdd.inference.mode import climb, curvature
from bayesdd.task.task import Task

Slope = Callable[[Tensor], tuple[Tensor, Tensor]]

STARTS = 8  # starting points of training, within half a unit of zero where the log joint is finite there
HALVINGS = 30
ARMIJO = 0.1  # least share of the ascent that the slope promises; without it a log scale may overshoot for good


def scales(density: Density, start: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations of the coordinates given all others, and safe step sizes of gradient ascent, ``(P,)`` each.

    Both at the mode found from a point: the inverse roots h of the diagonal curvature, and h^2 / top, where top is the
    largest eigenvalue of the curvature in units of h.
    """
    point = climb(density, start)[None]
    precision = curvature(density, point)[1].nan_to_num(0.0, 0.0, 0.0)
    diagonal = precision.diagonal().abs()
    spread = torch.where(diagonal > 1e-300, diagonal, 1.0).rsqrt()
    top = torch.linalg.eigvalsh(spread[:, None] * precision * spread).abs().max()
    return spread, spread**2 / top


def trained(slope: Slope, start: Tensor, unit: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Paths of gradient ascent: a step that gains too little is halved, the next one doubled, up to the unit.

    Args:
        slope: Points ``(S, P)`` -> log joint ``(S,)`` and its gradient ``(S, P)``.
        start: Starting points, ``(S, P)``.
        unit: Largest step sizes, ``(P,)``.
        steps: Number T of steps.

    Returns:
        Paths ``(T + 1, S, P)`` and what the steps were multiplied by, ``(T, S)``.
    """
    path, factors = [start], []
    factor = torch.ones(len(start), dtype=start.dtype)
    value, gradient = slope(start)
    for _ in range(steps):
        for _ in range(HALVINGS):
            point = path[-1] + factor[:, None] * unit * gradient
            reached, turned = slope(point)
            promised = factor * (unit * gradient**2).sum(1)
            ascended = reached - value >= ARMIJO * promised - 1e-9 * value.abs()
            ascended &= reached.isfinite() & turned.isfinite().all(1)
            if bool(ascended.all()):
                break
            factor = torch.where(ascended, factor, factor / 2)
        path.append(torch.where(ascended[:, None], point, path[-1]))
        factors.append(factor)
        value, gradient = torch.where(ascended, reached, value), torch.where(ascended[:, None], turned, gradient)
        factor = (2 * factor).clamp_max(1.0)
    return torch.stack(path), torch.stack(factors)


def own_factors(problem: Problem, start: Tensor, unit: Tensor, steps: int) -> Tensor:
    """What the steps of training on a problem's starting rows are multiplied by, ``(T, S)``; see :func:`trained`."""
    with torch.no_grad():
        rows, weight = problem.hard(problem.start)
    return trained(lambda draws: problem.student.joint_gradient(rows, weight, draws), start, unit, steps)[1]


def unrolled(task: Task, rows: Columns, weight: Tensor, start: Tensor, steps: Tensor) -> Tensor:
    """Ends of training on weighted rows, ``(S, P)``, from ``start`` ``(S, P)``; differentiable in all arguments.

    ``steps`` are the step sizes, one entry a step, ``(T, P)`` or ``(T, S, P)``.
    """
    draws = start.clone() if start.requires_grad else start.clone().requires_grad_(True)
    for step in steps:
        joint = task.log_prior(draws) + task.log_likelihood(rows, draws) @ weight
        (slope,) = torch.autograd.grad(joint.sum(), draws, create_graph=True)
        draws = draws + step * slope
    return draws


def attained(density: Density, draws: Tensor) -> Tensor:
    """Log joint at draws, nats, ``(S,)``, differentiable once; no graph over the rows is kept."""
    value, slope = density.log_joint_gradient(draws.detach())
    return value + ((draws - draws.detach()) * slope).sum(1)
