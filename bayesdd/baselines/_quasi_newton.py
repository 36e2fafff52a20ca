r"""Quasi-Newton coresets: a uniform subset, and weights by a few regularised Newton steps on the reverse KL.

With :math:`V \in R^{M \times S}` the log-likelihoods of the M rows, centred over draws of the current coreset
posterior, and r the residual :math:`\Delta` of the full data, centred too,

.. math::
    w \leftarrow \max(0, w + \gamma (G + \tau I)^{-1} g), \qquad G = \tfrac1S V V', \quad g = \tfrac1S V r .

G is the Hessian of the KL in w where Delta vanishes, so near the optimum a step of :math:`\gamma = 1` solves the
problem that the draws show. The first step is searched: gamma is divided by 1.5 until the slope along it, at fresh
draws, has fallen below 0.9 of what it was without changing sign. The rest are unit steps. As in the authors' code the
last weights are returned, not the best: the method computes no objective to compare them by. Cost: at most
``1 + tries + iterations`` sweeps of S draws over the full data.

It needs hundreds of rows where a label is rare: a few uniform rows hold hardly any of it, and no weights mend that.

Source: Naik, Rousseau & Campbell, "Fast Bayesian coresets via subsampling and quasi-Newton refinement", NeurIPS 2022;
settings as in the authors' code, except that rows are drawn without replacement, that all iterations are taken
(``fall``), and that one set of draws serves the direction and the stopping rule (two sets there).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from bayesdd.baselines._parts import CoresetPosterior, checked, rows_at, vectors, weighted_rows
from bayesdd.data.distilled import Distilled
from bayesdd.density.density import Density
from bayesdd.task.task import Task

Downhill: TypeAlias = tuple[Tensor, Tensor]

SHRINK = 1.5  # of the step, in the search
FLATTER = 0.9  # share of the slope that a searched step may leave


def quasi_newton(
    task: Task,
    size: int,
    *,
    seed: int,
    particles: int = 500,
    iterations: int = 20,
    fall: float | None = None,
    tries: int = 10,
    tau: float = 0.01,
) -> Distilled:
    """Uniform rows with weights by quasi-Newton steps.

    Args:
        iterations: Most unit steps.
        fall: Relative fall of the gradient's norm, from one step to the next, below which it stops; None takes all
            iterations. The authors' 0.1 is met by chance after one or two.
        tries: Most lengths tried for the first step; if none will do, the uniform weights stay.
        tau: Regularisation of G, nats squared.
    """
    size = checked(task, size)
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randperm(task.size, generator=generator)[:size]
    rows = rows_at(task, picked)
    full, posterior = Density([(task, task.data, None)]), CoresetPosterior(task, seed, "quasi_newton")

    def downhill(weight: Tensor) -> Downhill:
        """Minus the KL's gradient, ``(M,)``, and its Hessian G at fresh draws."""
        draws = posterior.draws(rows, weight, particles, generator)
        own, sweep = vectors(task, draws, picked), full.sweep(draws)
        return own @ (sweep - sweep.mean() - weight @ own) / particles, own @ own.T / particles

    uniform = torch.full((size,), task.size / size, dtype=torch.float64)
    weight, found = searched(uniform, downhill, tau, tries)
    norm = math.inf
    for _ in range(iterations):
        if found is None:
            break
        before, norm = norm, float(found[0].norm())
        if fall is not None and before - norm <= fall * norm:
            break
        trial = (weight + newton_step(*found, tau)).clamp_min(0.0)
        try:
            found = downhill(trial)
        except ValueError:  # weights whose posterior has no fit: the step is not taken
            break
        weight = trial
    return weighted_rows(task, rows, weight if bool((weight > 0).any()) else uniform, seed, "quasi_newton")


def searched(
    start: Tensor, downhill: Callable[[Tensor], Downhill], tau: float, tries: int
) -> tuple[Tensor, Downhill | None]:
    """Weights after the first step, its length by curvature, and what is downhill from there.

    Returns the start and None where no length will do.
    """
    slope, hessian = downhill(start)
    step = newton_step(slope, hessian, tau)
    length = 1.0
    while bool((start + length * step <= 0).all()):
        length /= SHRINK
    for _ in range(tries):
        trial = (start + length * step).clamp_min(0.0)
        try:
            found = downhill(trial)
        except ValueError:  # weights of 1e10, whose posterior has no fit: far too long a step
            found = None
        if found and 0 < float(found[0] @ step) / float(slope @ step) < FLATTER:
            return trial, found
        length /= SHRINK
    return start, None


def newton_step(slope: Tensor, hessian: Tensor, tau: float) -> Tensor:
    """``(G + tau I)^{-1} g``."""
    # By eigenvalues: with more rows than draws G is singular, and rounding can leave it indefinite beyond tau.
    values, axes = torch.linalg.eigh(hessian)
    step: Tensor = axes @ ((axes.T @ slope) / (values.clamp_min(0.0) + tau))
    return step
