"""A model batched over draws: what a task is asked for, each quantity with an engine of its own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bayesdd.data.columns import WEIGHT, Columns
from bayesdd.task.engine import UNRECORDED, Engine, GradientEngine, HessianEngine
from bayesdd.task.program import Program, evaluate


class Engines:
    """Log prior by site, log-likelihood by row, and derivatives of weighted sums, nats.

    Args:
        program: The model.
        backend: How it is batched over draws, as ``Task.backend``.
    """

    def __init__(self, program: Program, backend: str) -> None:
        def weighted(total: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor, Columns], Tensor]:
            def single(flat: Tensor, columns: Columns) -> Tensor:
                rows = {name: column for name, column in columns.items() if name != WEIGHT}
                return total(*evaluate(program, flat, rows), columns[WEIGHT])

            return single

        self.prior = Engine(lambda flat, rows: evaluate(program, flat, rows)[0], backend, UNRECORDED)
        self.rows = Engine(lambda flat, rows: evaluate(program, flat, rows)[1], backend, UNRECORDED)
        likelihood = weighted(lambda _, by_row, weight: by_row @ weight)
        self.likelihood_slope = GradientEngine(likelihood, backend)
        self.likelihood_curvature = HessianEngine(likelihood, backend)
        self.prior_slope = GradientEngine(weighted(lambda by_site, _, kept: by_site @ kept), backend)
        self.joint_slope = GradientEngine(
            weighted(lambda by_site, by_row, weight: by_site.sum() + by_row @ weight), backend
        )
