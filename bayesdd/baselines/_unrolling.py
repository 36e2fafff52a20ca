r"""Unrolling (dataset distillation by back-propagation through time): rows on which a few steps of training end well.

.. math:: \min_{U, a} -\log p(\theta_T) - l_D(\theta_T), \qquad
    \theta_{t+1} = \theta_t + a_t B \nabla [\log p(\theta_t) + l_U(\theta_t)], \quad t = 0, \dots, T - 1,

from scattered :math:`\theta_0`, the step sizes a learned too. It uses only where training ends, so that the width of
the posterior is left free. Cost per step: one gradient pass over the real rows, T double backward passes over the
synthetic ones, all kept in memory.

Ours and not the original's: sums instead of means; a diagonal B, the inverse curvature of the full log joint at its
mode, without which one step size does not fit parameters in different units; Adam in whitened coordinates of the rows.

``hold_labels=True`` is nearest to the original.

Source: Wang, Zhu, Torralba & Efros, "Dataset distillation", 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.baselines._moving import movable, moved
from bayesdd.baselines._training import STARTS, attained, own_factors, scales, unrolled
from bayesdd.data.distilled import Distilled
from bayesdd.density.density import Density
from bayesdd.task.starts import finite_starts
from bayesdd.task.task import Task


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
        steps: Steps T of training.
        starts: Starting points of training per step of Adam, drawn anew from eight.
    """
    problem, _, _ = movable(task, size, seed, hold=hold_labels)
    density = Density([(task, task.data, None)])
    pool = finite_starts(task.program, task.data, STARTS, seed)
    generator = torch.Generator().manual_seed(seed)
    _, unit = scales(density, pool[0])
    log_rates = own_factors(problem, pool, unit, steps).amin(1, keepdim=True).log().requires_grad_(True)

    def loss(vector: Tensor) -> Tensor:
        start = pool[torch.randint(STARTS, (starts,), generator=generator)]
        end = unrolled(task, *problem.hard(vector), start, log_rates.exp() * unit)
        return -attained(density, end).mean()

    return moved("unrolling", problem, loss, seed, iterations, rate, learn_weights, [log_rates])
