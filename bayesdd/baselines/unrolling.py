r"""Unrolling (dataset distillation by back-propagation through time): rows on which a few steps of training end well.

.. math:: \min_{U, a} -\log p(\theta_T) - l_D(\theta_T), \qquad
    \theta_{t+1} = \theta_t + a_t B \nabla [\log p(\theta_t) + l_U(\theta_t)], \quad t = 0, \dots, T - 1,

from scattered :math:`\theta_0`, the step sizes a learned too. It asks where training ends and no more: the width of the
posterior is left free. Cost per step: one gradient pass over the real rows, T double backward passes over the synthetic
ones, all kept in memory.

Ours and not the original's: sums instead of means; a diagonal B, the inverse curvature of the full log joint at its
mode, without which one step size does not fit parameters in different units; Adam in whitened coordinates of the rows.

Measured (logistic regression, ds1, N = 24,060, P = 11, median reverse KL of Laplace fits, seeds 0-2, M = 22 / 50):
414 / 452 nats in 6.5 s; with ``hold_labels=True``, nearest to the original, 11,100 / 15,500; uniform rows
10,200 / 17,500.

Source: Wang, Zhu, Torralba & Efros, "Dataset distillation", 2018.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.baselines.distribution_matching import descend, movable
from bayesdd.baselines.parts import synthetic
from bayesdd.density import Density
from bayesdd.distilled import Distilled
from bayesdd.finite import finite_starts
from bayesdd.inference.laplace import climb
from bayesdd.pyro_model import Columns
from bayesdd.task import Task

Slope = Callable[[Tensor], tuple[Tensor, Tensor]]

STARTS = 8  # starting points of training, within half a unit of zero where the log joint is finite there
HALVINGS = 30
ARMIJO = 0.1  # share of the ascent that the slope promises; without it a log scale may leap to where nothing is left


def unrolling(
    task: Task,
    size: int,
    *,
    seed: int,
    iterations: int = 300,
    rate: float = 0.05,
    steps: int = 20,
    starts: int = 4,
    hold_labels: bool = False,
    learn_weights: bool = False,
) -> Distilled:
    """Rows on which a few steps of gradient ascent end where the full log joint is high.

    Args:
        task: The task.
        size: Number M of rows.
        seed: Seed.
        iterations: Steps of Adam.
        rate: Adam's first step size, in whitened coordinates of the rows and logs of a; it decays as a cosine.
        steps: Steps T of training.
        starts: Starting points of training per step of Adam, drawn anew from eight.
        hold_labels: Hold the labels.
        learn_weights: Let the weights move too.

    Returns:
        The rows, without a certificate; for their weights see ``movable``.

    Raises:
        ValueError: ``size`` is not between 1 and N, or no gradient was finite.
    """
    problem, _, _ = movable(task, size, seed, hold=hold_labels)
    density = Density([(task, task.data, None)])
    pool = finite_starts(task, STARTS, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        rows, weight = problem.hard(problem.start)
    _, unit = scales(density, pool[0])
    _, factors = trained(lambda draws: task.joint_gradient(rows, weight, draws), pool, unit, steps)
    log_rates = factors.amin(1, keepdim=True).log().requires_grad_(True)

    def loss(vector: Tensor) -> Tensor:
        start = pool[torch.randint(STARTS, (starts,), generator=generator)]
        end = unrolled(task, *problem.hard(vector), start, log_rates.exp() * unit)
        return -attained(density, end).mean()

    vector = descend(
        "unrolling", problem, loss, iterations=iterations, rate=rate, learn_weights=learn_weights, others=[log_rates]
    )
    return synthetic(problem, vector, task, seed, "unrolling")


def unrolled(task: Task, rows: Columns, weight: Tensor, start: Tensor, steps: Tensor) -> Tensor:
    """Ends of training on weighted rows; differentiable in all arguments.

    Args:
        task: The task.
        rows: Column -> ``(M, ...)``.
        weight: Weights, ``(M,)``.
        start: Starting points, ``(S, P)``.
        steps: Step sizes, one entry a step, ``(T, P)`` or ``(T, S, P)``.

    Returns:
        Shape ``(S, P)``.
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


def scales(density: Density, start: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations of the coordinates given all others, and safe step sizes of gradient ascent, ``(P,)`` each.

    Both at the mode found from a point: the inverse roots h of the diagonal curvature, and h^2 / top, where top is the
    largest eigenvalue of the curvature in units of h.
    """
    point = climb(density, start)[None]
    hessian = density.likelihood_derivatives(point)[2][0] + density.prior_derivatives(point)[2][0]
    precision = -0.5 * (hessian + hessian.T).nan_to_num(0.0, 0.0, 0.0)
    diagonal = precision.diagonal().abs()
    spread = torch.where(diagonal > 1e-300, diagonal, 1.0).rsqrt()
    top = torch.linalg.eigvalsh(spread[:, None] * precision * spread).abs().max()
    return spread, spread**2 / top
