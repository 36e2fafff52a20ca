"""What a task makes once and keeps: an engine a quantity, which batches the model over draws, and its prior draws."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.data.columns import WEIGHT, Columns
from bayesdd.task.engine import UNRECORDED, Engine, GradientEngine, HessianEngine
from bayesdd.task.program import Program, evaluate, prior_draws

KEPT = 512  # prior draws: certificates ask for the same ones several times, and each runs the model


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
        self._program, self._drawn = program, dict[int, Tensor]()

    def prior_draws(self, row: Columns, count: int, seed: int) -> Tensor:
        """Unconstrained draws from the prior, shape ``(count, P)``; draw i depends on seed + i alone."""
        seeds, kept = range(seed, seed + count), self._drawn
        if new := [some for some in seeds if some not in kept]:
            if len(kept) + len(new) > KEPT:
                kept.clear()
                new = list(seeds)
            kept.update(zip(new, prior_draws(self._program, row, new), strict=True))
        return torch.stack([kept[some] for some in seeds])
