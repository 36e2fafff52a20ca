"""Objectives that stand alone: they bring their own solver and certificate, and need no particles of the posterior.

``(target, seed, say) -> Standalone``. Networks: their weights have no posterior that particles could stand for, so that
the log-ratio, its functionals and its KLs say nothing; what their rows are for, predictions, is matched and certified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesdd.certificate import Certificate
from bayesdd.distilled import Distilled
from bayesdd.problem import Problem
from bayesdd.provenance import provenance_of
from bayesdd.pyro_model import Columns
from bayesdd.rounds import name_of
from bayesdd.search import resized
from bayesdd.target import Target
from bayesdd.task import Task


@dataclass(frozen=True, eq=False)
class Standalone:
    """How such an objective is solved and judged.

    Attributes:
        pool: The student's task on the rows that starting rows are chosen from.
        choose: Number of rows -> rows of the pool and their weights, to start from.
        solve: Problem at its starting rows -> its vector.
        certificate: Rows, weights, tolerance and seed -> certificate, whose KL fields are NaN.
        tolerance: What counts as certified unless the caller says so.
    """

    pool: Task
    choose: Callable[[int], tuple[Columns, Tensor]]
    solve: Callable[[Problem], Tensor]
    certificate: Callable[[Columns, Tensor, float, int], Certificate]
    tolerance: float


def distilled_alone(
    target: Target,
    objective: Callable[..., Any],
    size: int | None,
    tolerance: float | None,
    seed: int,
    init: Distilled | None,
    say: Callable[[str], None],
    **settings: bool,
) -> Distilled:
    """``distill`` for such an objective.

    Raises:
        ValueError: No size is given; the objective's own refusals.
    """
    if size is None:
        raise ValueError(f"distill(objective={name_of(objective)}) needs size=: it searches no size by a tolerance.")
    found = objective(target, seed, say)
    rows, weight = found.choose(size)
    if init is not None:
        rows, weight = resized(found.pool, init, size, torch.Generator().manual_seed(seed))
    problem = Problem.from_rows(found.pool, rows, weight, target.joint.device, **settings)
    vector = found.solve(problem)
    details = provenance_of(target.student, target.tasks, seed, size, objective=name_of(objective))
    result = problem.distilled(vector, details)
    say("certificate")
    limit = found.tolerance if tolerance is None else tolerance
    return replace(result, certificate=found.certificate(result.data, result.weight, limit, seed + 1))
