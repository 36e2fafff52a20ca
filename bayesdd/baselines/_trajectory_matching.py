r"""Trajectory matching: synthetic rows on which training follows the paths that it takes on the data.

.. math:: \min_{U, a} \mathrm{E}_t \frac{\| \hat\theta_n(U) - \theta^*_{t+m} \|^2}{\| \theta^*_t - \theta^*_{t+m} \|^2},
    \qquad \hat\theta_0 = \theta^*_t, \quad
    \hat\theta_{j+1} = \hat\theta_j + a B \nabla [\log p(\hat\theta_j) + l_U(\hat\theta_j)],

where experts :math:`\theta^*` climb the full log joint and a, the student's step in units of theirs, is learned. It
matches where training ends, that is, posterior means; posterior widths only as far as the paths depend on curvature.
Cost per step: n double backward passes over the synthetic rows, all kept in memory; the real rows serve the experts
only.

Ours and not the original's: sums instead of means; experts on all rows (``batch=256`` is the original's stochastic
ascent); the diagonal B of ``unrolling``, in whose units distances are taken; Adam in whitened coordinates of the rows.

``hold_labels=True, batch=256`` is nearest to the original.

Source: Cazenavette, Wang, Torralba, Efros & Zhu, "Dataset distillation by matching training trajectories", CVPR 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.baselines._moving import movable, moved
from bayesdd.baselines._parts import rows_at
from bayesdd.baselines._training import own_factors, scales, trained, unrolled
from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled
from bayesdd.density.density import Density
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.starts import finite_starts
from bayesdd.task.task import Task


def trajectory_matching(
    task: Task,
    size: int,
    *,
    seed: int,
    iterations: int = 300,
    rate: float = 0.05,
    experts: int = 4,
    length: int = 100,
    ahead: int = 20,
    steps: int = 10,
    batch: int | None = None,
    hold_labels: bool = False,
    learn_weights: bool = False,
) -> Distilled:
    """Rows on which training follows the experts.

    Args:
        experts: Expert paths, all of them followed at once.
        length: Steps of an expert.
        ahead: Expert's steps m that the student has to match.
        steps: Student's steps n.
        batch: Real rows per step of an expert, drawn with replacement; None for all.

    Raises:
        ValueError: ``ahead`` exceeds ``length``.
    """
    if not 1 <= ahead <= length:
        raise Refusal(f"trajectory_matching looks {ahead} steps ahead on paths of {length}: take 1 to {length}.")
    problem, _, _ = movable(task, size, seed, hold=hold_labels)
    generator = torch.Generator().manual_seed(seed)
    density = Density([(task, task.data, None)])
    start = finite_starts(task.program, task.data, experts, seed)
    spread, unit = scales(density, start[0])
    paths, factors = trained(density.log_joint_gradient, start, unit, length)
    if batch is not None:
        paths = _stochastic(task, paths[0], factors[:, :, None] * unit, batch, generator)
    at_step = torch.arange(steps) * ahead // steps
    log_rate = (
        (own_factors(problem, paths[0], unit, steps) / factors[at_step]).min().clamp_max(1.0).log().requires_grad_(True)
    )

    def loss(vector: Tensor) -> Tensor:
        at = int(torch.randint(length - ahead + 1, (), generator=generator))
        sizes = log_rate.exp() * factors[at + at_step][:, :, None] * unit
        return mismatch(task, *problem.hard(vector), paths[at], paths[at + ahead], sizes, spread)

    return moved("trajectory_matching", problem, loss, seed, iterations, rate, learn_weights, [log_rate])


def mismatch(
    task: Task, rows: Columns, weight: Tensor, first: Tensor, last: Tensor, steps: Tensor, spread: Tensor
) -> Tensor:
    """How far the student ends from the experts, squared, over the squared way that they went; mean over experts.

    Ways shorter than one posterior standard deviation count as one: at the end of their paths experts stand still.

    Args:
        first: Where experts and student begin, ``(S, P)``.
        last: Where the experts end, ``(S, P)``.
        steps: Student's step sizes, ``(n, P)`` or ``(n, S, P)``.
        spread: Standard deviations of the coordinates, ``(P,)``.
    """
    end = unrolled(task, rows, weight, first, steps)
    return (_square(end - last, spread) / _square(first - last, spread).clamp_min(1.0)).mean()


def _square(difference: Tensor, spread: Tensor) -> Tensor:
    return ((difference / spread) ** 2).sum(1)


def _stochastic(task: Task, start: Tensor, sizes: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Paths of stochastic gradient ascent, ``(T + 1, S, P)``; a row of a batch stands for N / B rows."""
    path, scale = [start], torch.full((batch,), task.size / batch, dtype=torch.float64)
    for size in sizes:
        picked = torch.randint(task.size, (batch,), generator=generator)
        path.append(path[-1] + size * task.joint_gradient(rows_at(task, picked), scale, path[-1])[1])
    return torch.stack(path)
