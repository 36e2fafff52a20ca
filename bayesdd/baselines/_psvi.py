r"""Bayesian pseudocoresets by variational inference (PSVI): rows and weights by stochastic gradients of the reverse KL.

With l the log-likelihoods of the M pseudo-rows at S draws of their own posterior, centred over the draws, and r the
residual (the log-ratio, estimated from B real rows and centred),

.. math::
    r = \frac{N}{B} \sum_{n \in B} v_n - \sum_m w_m v_m, \qquad
    \nabla_{w_m} \mathrm{KL} \approx -\tfrac1S v_m' r, \qquad
    \nabla_{u_m} \mathrm{KL} \approx -\tfrac{w_m}{S} \sum_s \nabla_u l(u_m, \theta_s)\, r_s .

Rows start at uniform real rows and weights at N / M; Adam takes steps ``step / (1 + t)`` on both at once, rows in the
user's own units, weights projected to be non-negative. Real columns move, all but their constant and missing elements;
labels, counts and every other kind keep their starting values. (The authors' logistic regression moves y x as one
vector, intercept included, and centres the row gradients over coordinates where draws are meant; neither is copied.)
Draws come from Laplace fits. Cost: ``iterations`` of those fits on M rows.

Source: Manousakas, Xu, Mascolo & Campbell, "Bayesian pseudocoresets", NeurIPS 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.baselines._parts import CoresetPosterior, adam, checked, drawn, rows_at, vectors, weighted_rows
from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled
from bayesdd.distillation.coordinates import Coordinates
from bayesdd.task import kinds
from bayesdd.task.task import Task


def psvi(
    task: Task,
    size: int,
    *,
    seed: int,
    particles: int = 100,
    batch: int | None = 200,
    iterations: int = 500,
    step: float = 1.0,
) -> Distilled:
    """Pseudo-rows and their weights.

    Args:
        step: First step, in the units of the rows and of the weights alike. A coordinate moves by at most about
            ``step * log(iterations)``. The authors took 1 and 10 on logistic regressions, 0.1 on a linear one. After
            small steps the starting rows decide; after large ones rows may have no Laplace fit.
    """
    size = checked(task, size)
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randperm(task.size, generator=generator)[:size]
    start = rows_at(task, picked)
    masks = moving(task, start)
    posterior = CoresetPosterior(task, seed, "psvi")

    def placed(values: Tensor) -> Columns:
        parts = values.split([int(mask.sum()) for mask in masks.values()])
        return start | {
            name: start[name].masked_scatter(masks[name], part) for name, part in zip(masks, parts, strict=True)
        }

    def gradient(point: Tensor) -> Tensor:
        weight, values = point[:size], point[size:].clone().requires_grad_(True)
        draws = posterior.draws(placed(values.detach()), weight, particles, generator)
        few = torch.arange(task.size) if batch is None else drawn(task.size, batch, generator)
        total = vectors(task, draws, few).sum(0) * (task.size / len(few))
        by_row = task.log_likelihood(placed(values), draws)
        own = by_row.detach() - by_row.detach().mean(0)
        residual = total - own @ weight
        slope = -(residual @ own) / particles
        if not len(values):
            return slope
        (along,) = torch.autograd.grad(-(residual @ by_row @ weight) / particles, values)
        return torch.cat([slope, along])

    weight = torch.full((size,), task.size / size, dtype=torch.float64)
    values = torch.cat([torch.zeros(0, dtype=torch.float64), *(start[name][mask] for name, mask in masks.items())])
    point = adam(torch.cat([weight, values]), gradient, steps=iterations, step=step, weights=size)
    return weighted_rows(task, placed(point[size:]), point[:size], seed, "psvi")


def moving(task: Task, start: Columns) -> Columns:
    """Real columns -> which of their elements move, shape of the column's starting rows."""
    movable = {name: kind if kind == kinds.real else kinds.fixed for name, kind in task.column_kinds.items()}
    return Coordinates(task.data, movable, start, {}).free_masks
