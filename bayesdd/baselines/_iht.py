r"""Accelerated iterative hard thresholding: the Hilbert coreset as sparse non-negative least squares.

With V the ``(N, S)`` matrix of the rows' log-likelihoods at draws of the full posterior, centred over the draws,

.. math:: \min_w \|V^\top 1 - V^\top w\|^2 \quad \text{subject to} \quad w \ge 0, \ \|w\|_0 \le M.

One iteration from an extrapolated point z: (1) the gradient there; its M largest entries outside the support of z widen
the support; (2) the exact line search for the gradient on that wide support; (3) the step with the whole gradient,
projected: the M largest entries are kept, negative ones set to zero; (4) algorithm II only: one more gradient step,
with a line search of its own, on the support that was kept (de-biasing), projected; (5) momentum,
``z = w + tau (w - w_before)``, tau exact. The best iterate is returned (the objective need not fall; the authors return
the last). Cost: one Laplace fit, N x S log-likelihoods, 8 N S bytes, and about one product with V an iteration.

Source: Zhang, Khanna, Kyrillidis & Koyejo, "Bayesian coresets: revisiting the nonconvex optimization perspective",
AISTATS 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesdd.baselines._parts import checked, hilbert_vectors, weighted_rows
from bayesdd.data.distilled import Distilled
from bayesdd.task.task import Task


def iht(
    task: Task,
    size: int,
    *,
    seed: int,
    particles: int = 500,
    draws: Tensor | None = None,
    debias: bool = True,
    iterations: int = 300,
    tolerance: float = 1e-5,
    step: float = 0.5,
) -> Distilled:
    """Accelerated iterative hard thresholding.

    Args:
        debias: Whether kept rows get a step of their own: algorithm II of the paper; False is algorithm I.
        iterations: Most iterations.
        tolerance: Relative change of the weights at which it stops.
        step: Multiple of the exact line search's step: 1 in the paper, 0.5 in the authors' code. The search
            ignores the projection, and whole steps may cycle: algorithm I does on ten orthogonal rows at M = 4.
    """
    size = checked(task, size)
    generator = torch.Generator().manual_seed(seed)
    found = hilbert_vectors(task, particles, draws, generator, seed, "iht")
    weight = hard_thresholding(found, size, iterations, tolerance, debias=debias, step=step)
    return weighted_rows(task, task.data, weight, seed, "iht")


def hard_thresholding(
    rows: Tensor, size: int, iterations: int = 300, tolerance: float = 1e-5, *, debias: bool = True, step: float = 0.5
) -> Tensor:
    """Non-negative weights ``(N,)`` of at most ``size`` rows ``(N, S)`` whose weighted sum is near the sum of all.

    Settings are those of :func:`iht`.
    """
    total = rows.sum(0)
    weight, fitted = rows.new_zeros(len(rows)), torch.zeros_like(total)
    point, fitted_point = weight, fitted
    best, least = weight, float(total @ total)
    for _ in range(iterations):
        slope = rows @ (total - fitted_point)
        wide = point != 0
        wide = wide.index_fill(0, slope.abs().masked_fill(wide, -1.0).topk(size).indices, True).nonzero()[:, 0]
        moved = point + step * _line_search(rows[wide], slope[wide]) * slope
        kept = moved.topk(size).indices
        values, on_kept = moved[kept].clamp_min(0), rows[kept]
        if debias:
            down = on_kept @ (total - values @ on_kept)
            values = (values + step * _line_search(on_kept, down) * down).clamp_min(0)
        before, fitted_before = weight, fitted
        weight, fitted = torch.zeros_like(weight).index_copy(0, kept, values), values @ on_kept
        left, change = total - fitted, fitted - fitted_before
        if float(left @ left) < least:
            best, least = weight, float(left @ left)
        if float((weight - before).norm()) <= tolerance * float(weight.norm()):
            break
        momentum = (left @ change) / (change @ change).clamp_min(1e-300)
        point, fitted_point = weight + momentum * (weight - before), fitted + momentum * change
    return best


def _line_search(rows: Tensor, slope: Tensor) -> Tensor:
    """The length along ``slope`` (minus half the gradient) that minimises the squared residual."""
    moved = slope @ rows
    return (slope @ slope) / (moved @ moved).clamp_min(1e-300)
