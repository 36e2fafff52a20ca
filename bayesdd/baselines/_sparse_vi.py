r"""Sparse variational inference: rows chosen greedily, weights by stochastic gradients of the reverse KL.

With the log-likelihoods centred over draws of the current coreset posterior (``vectors``),
:math:`v_n \in R^S`, and the residual r of the full data,

.. math::
    r = \frac{N}{B} \sum_{n \in B} v_n - \sum_m w_m v_m, \qquad
    n^* = \arg\max_n \frac{v_n' r}{\lVert v_n \rVert}, \qquad
    \nabla_w \mathrm{KL}(\pi_w, \pi) = -\mathrm{Cov}_{\pi_w}(l_m, \Delta) \approx -\tfrac1S v_m' r .

Each round takes the row that correlates most with the residual, or none if a row it has correlates more in size, and
then refits all weights by Adam with steps ``step / (1 + t)``, projected to be non-negative. Draws come from Laplace
fits; where those are exact, the gradient's expectation is exact up to a factor 1 - 1 / S.
Cost: ``size * steps`` Laplace fits on M rows. Models whose noise scale is unknown have none for a handful of rows.

Source: Campbell & Beronov, "Sparse variational inference: Bayesian coresets from scratch", NeurIPS 2019; settings as in
the authors' code (S = 100, 1,000 candidates, batches of 200, 100 steps a row of 1 / (1 + t)).
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.baselines._parts import CoresetPosterior, adam, checked, drawn, rows_at, vectors, weighted_rows
from bayesdd.data.distilled import Distilled
from bayesdd.task.task import Task


def sparse_vi(
    task: Task,
    size: int,
    *,
    seed: int,
    particles: int = 100,
    candidates: int | None = 1000,
    batch: int | None = 200,
    steps: int = 100,
    step: float = 1.0,
) -> Distilled:
    """Greedily chosen rows with weights refitted after each.

    Args:
        size: Rounds; the number M of rows at most, since a round may choose a row again.
        candidates: Rows drawn (with replacement) that a choice is made among; None for all.
        steps: Adam steps a round.
        step: First step, in units of weight. A weight moves by at most about ``step * log(steps)`` a round: data with
            N / M in the hundreds want more than the authors' 1.
    """
    size = checked(task, size)
    generator = torch.Generator().manual_seed(seed)
    # Rows not chosen yet are copies of row 0 of weight zero: shapes stay, and with them the recorded graphs.
    picked, weight, count = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.float64), 0
    posterior = CoresetPosterior(task, seed, "sparse_vi")

    def projected(at: Tensor, rows: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Row numbers, their vectors, the coreset's vectors ``(M, S)`` and the residual ``(S,)``."""
        draws = posterior.draws(rows_at(task, picked), at, particles, generator)
        numbers = torch.arange(task.size) if rows is None else drawn(task.size, rows, generator)
        few, own = vectors(task, draws, numbers), vectors(task, draws, picked)
        return numbers, few, own, few.sum(0) * (task.size / len(numbers)) - at @ own

    def gradient(at: Tensor) -> Tensor:
        _, _, own, residual = projected(at, batch)
        return torch.where(torch.arange(size) < count, -(own @ residual) / particles, 0.0)

    for _ in range(size):
        numbers, few, own, residual = projected(weight, candidates)
        best = correlation(few, residual)
        kept = correlation(own[:count], residual).abs()
        new = int(numbers[best.argmax()])
        if (not count or bool(best.max() > kept.max())) and new not in picked[:count].tolist():
            picked[count], count = new, count + 1
        weight = adam(weight, gradient, steps=steps, step=step, weights=size)
    return weighted_rows(task, rows_at(task, picked[:count]), weight[:count], seed, "sparse_vi")


def correlation(found: Tensor, residual: Tensor) -> Tensor:
    """Correlation of vectors ``(rows, S)`` with the residual ``(S,)``, up to a constant; 0 for a zero vector."""
    cosine: Tensor = (found @ residual) / found.norm(dim=1).clamp_min(1e-300)
    return cosine
