"""Objectives that stand alone: they bring their own solver and certificate, and need no particles of the posterior.

``(target, seed, say) -> Standalone``. Networks: their weights have no posterior that particles could stand for, so that
the log-ratio, its functionals and its KLs say nothing; what their rows are for, predictions, is matched and certified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bayesdd.data.certificate import Certificate
from bayesdd.data.columns import Columns
from bayesdd.distillation.problem import Problem
from bayesdd.task.task import Task


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
