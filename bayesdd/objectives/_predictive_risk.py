r"""Predictive risk: the synthetic rows serve predictions for rows that the user declares as the purpose.

.. math:: -\sum_j v_j \log \mathrm{E}_{\theta \sim p_U}[p(z_j \mid \theta)]

relative to the full posterior's. Held-out, shifted or weighted rows name what the distilled data are for; directions of
theta that do not matter there are left alone, so that its posterior need not be the full one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.numerics.refusal import Refusal
from bayesdd.target.particles import first, tilted, trusted
from bayesdd.target.reference import Reference
from bayesdd.task.new_rows import new_rows

DRAWS = 1000  # an evaluation costs draws x purpose rows


def predictive_risk(
    reference: Reference, *, purpose: Any, weight: Tensor | None = None
) -> Callable[[Columns, Tensor], Tensor]:
    """Loss: expected log predictive density lost on the purpose rows against the full posterior; nats in total.

    Args:
        reference: The full posterior.
        purpose: Rows with the student's columns, whatever form ``Task`` takes.
        weight: Weights v of the purpose rows, ``(J,)``; default all 1.

    Returns:
        ``(rows, weight) -> nats``; negative where the distilled posterior predicts better than the full one. NaN where
        its posterior is too far from the draws at hand to say.

    Raises:
        Refusal: The purpose rows have other columns or shapes than the student's, or weights of another number.

    Source: Vehtari & Ojanen, "A survey of Bayesian predictive methods for model assessment, selection and comparison",
    Statistics Surveys 2012 (the utility); Kungurtsev et al., "Dataset distillation from first principles", 2024
    (distillation for a named purpose).
    """
    target, student = reference.target, reference.target.student
    device = target.joint.device
    given = new_rows(student, purpose, list(student.data), "predictive_risk(purpose=...)")
    rows = {name: column.to(device) for name, column in given.items()}
    count = len(next(iter(rows.values())))
    weights = torch.ones(count, dtype=torch.float64) if weight is None else torch.as_tensor(weight).double()
    if weights.shape != (count,):
        raise Refusal(f"predictive_risk got {count} purpose rows but weights of shape {tuple(weights.shape)}.")
    weights = weights.to(device)
    with torch.no_grad():
        particles = first(reference.particles, DRAWS)
        best = _log_predictive(student.log_likelihood(rows, particles.draws), particles.log_weight) @ weights
        particles = first(reference.policy or reference.particles, DRAWS)
        by_row = student.log_likelihood(rows, particles.draws)

    def loss(synthetic: Columns, mass: Tensor) -> Tensor:
        log_weight = tilted(particles, student.log_likelihood(synthetic, particles.draws) @ mass)
        nats: Tensor = best - _log_predictive(by_row, log_weight) @ weights
        return trusted(log_weight, nats)

    return loss


def _log_predictive(by_row: Tensor, log_weight: Tensor) -> Tensor:
    """Log of the average over draws, shape ``(J,)``."""
    return (by_row + log_weight[:, None]).logsumexp(0)
