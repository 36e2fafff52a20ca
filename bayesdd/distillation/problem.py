"""One distillation problem of fixed size: a flat parameter vector, its rows and weights, its log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled, explode
from bayesdd.density.density import Density
from bayesdd.distillation.coordinates import Coordinates
from bayesdd.numerics.backward import products
from bayesdd.task.task import Task

SMALLEST_WEIGHT = 1e-300


@dataclass(frozen=True, eq=False)
class Problem:
    """M synthetic rows of a student task as one flat vector: free coordinates of the rows, then log weights.

    Attributes:
        student: The task whose rows they are.
        coordinates: Free coordinates of the rows.
        start: Starting vector ``(n,)``.
        equal_weights: One common weight (one parameter) instead of M.
    """

    student: Task
    coordinates: Coordinates
    start: Tensor
    equal_weights: bool

    @classmethod
    def from_rows(
        cls, student: Task, rows: Columns, weight: Tensor, device: torch.device, *, equal_weights: bool, move_rows: bool
    ) -> Problem:
        """From starting rows in the user's units and their weights."""
        rows = {name: column.to(device) for name, column in rows.items()}
        bounds = {name: bound.to(device) for name, bound in student.upper_bounds(rows).items()}
        coordinates = Coordinates(student.data, student.column_kinds, rows, bounds, move=move_rows)
        log_weight = weight.to(device).clamp_min(SMALLEST_WEIGHT).log()
        if equal_weights:
            log_weight = log_weight.exp().mean().log()[None]
        return cls(student, coordinates, torch.cat([coordinates.free(), log_weight]), equal_weights)

    def stored(self, vector: Tensor) -> tuple[Columns, Tensor]:
        """Rows as they are stored (soft columns as probabilities) and weights ``(M,)``."""
        used = len(self.start) - (1 if self.equal_weights else self.coordinates.size)
        weight = vector[used:].exp().clamp_min(SMALLEST_WEIGHT)
        return self.coordinates.rows(vector[:used]), weight.expand(self.coordinates.size)

    def hard(self, vector: Tensor) -> tuple[Columns, Tensor]:
        """Rows and weights that the model is evaluated on: each soft row becomes one weighted row a class."""
        return explode(*self.stored(vector), self.student.soft)

    def log_likelihood(self, vector: Tensor, draws: Tensor) -> Tensor:
        """l_U at draws, nats, ``(S,)``; differentiable in the vector."""
        rows, weight = self.hard(vector)
        return self.student.log_likelihood(rows, draws) @ weight

    @cached_property
    def unknowns(self) -> list[Tensor]:
        """Places in the vector of each unknown of a row, ``(M,)`` each; ``(1,)`` for a common weight."""
        used = len(self.start) - (1 if self.equal_weights else self.coordinates.size)
        return [*self.coordinates.by_row(), torch.arange(used, len(self.start), device=self.start.device)]

    @property
    def moving(self) -> int:
        """How many numbers the optimiser can move: entries that are held, and one of K probabilities, are not free."""
        return self.coordinates.moving + (1 if self.equal_weights else self.coordinates.size)

    def jacobian(self, vector: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """l_U at draws, nats, ``(S,)``, and its Jacobian with respect to the vector, ``(S, n)``.

        A row's unknowns change its own column of the ``(S, M)`` log-likelihoods alone, so that one derivative an
        unknown of a row gives them for all rows: a gradient weighted by dummies, differentiated by the dummies.
        """
        with torch.enable_grad():
            leaf = vector.detach().clone().requires_grad_(True)
            rows, weight = self.hard(leaf)
            by_row = (
                (self.student.log_likelihood(rows, draws) * weight).unflatten(1, (self.coordinates.size, -1)).sum(2)
            )
            dummy = torch.zeros_like(by_row, requires_grad=True)
            (gradient,) = products((by_row,), (leaf,), (dummy,), create_graph=True)
            found, one = draws.new_zeros(len(vector), len(draws)), draws.new_ones(())
            assert gradient is not None  # the weights at least change it
            for places in self.unknowns:
                (columns,) = products((gradient[places].sum(),), (dummy,), (one,))
                if columns is None:
                    continue
                found[places] = columns.T if len(places) == len(columns[0]) else columns.sum(1)
        return by_row.detach().sum(1), found.T

    def density(self, vector: Tensor) -> Density:
        """The distilled posterior."""
        with torch.no_grad():
            rows, weight = self.hard(vector)
        return Density([(self.student, rows, weight)], vector.device)

    def distilled(self, vector: Tensor, provenance: dict[str, object]) -> Distilled:
        """The rows and weights as a Distilled set, not certified yet."""
        with torch.no_grad():
            rows, weight = self.stored(vector)
        return Distilled(rows, weight, soft=self.student.soft, provenance=provenance, labels=self.student.labels)
