"""Complete mixed rows with a given posterior: hard states, numbers and weights by the forward KL in closed form.

States are simulated, those of the start with the least excess stay; numbers and weights move. The excess is that of the
regressions (``excess``), whose indicators stand as the states say, plus that of the tables (``soft.Dirichlets``), whose
counts are weights. Few rows have coarse counts: the excess says what that costs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bayesdd.dbn.inference.pooling import Pooled
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.inference.statistics import Statistics
from bayesdd.dbn.likelihood.categorical import cells
from bayesdd.dbn.likelihood.gaussian import in_order
from bayesdd.dbn.likelihood.parameters import simulated
from bayesdd.dbn.merging.excess import excess_of
from bayesdd.dbn.merging.ranges import Ranges
from bayesdd.dbn.merging.soft import Dirichlets
from bayesdd.dbn.template.columns import Rows
from bayesdd.dbn.template.mixture import Mixture
from bayesdd.distillation.problem import SMALLEST_WEIGHT
from bayesdd.numerics.optimise import lbfgs
from bayesdd.numerics.refusal import Refusal, WrongType

STARTS = 4  # simulated sets of states
ITERATIONS = 300
PILOT = 400  # simulated rows behind the units of the variables
ENOUGH = 1e-4  # nats of excess below which nothing is left to gain


def mixed_rows(
    full: Pooled, size: int, slices: int, *, seed: int, equal_weights: bool
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Rows and weights whose posterior is closest to the given one, of the states that they start with.

    Returns:
        Sequences ``(M, T, V)``, static values ``(M, V_s)``, weights ``(M,)``, and the excess, nats.
    """
    if not isinstance(full.statistics, Statistics):
        raise WrongType("mixed_rows is for mixed templates; use soft_rows.")
    best, least = None, math.inf
    for start in range(STARTS):
        problem = _Problem(full, full.statistics, size, slices, seed + start)
        vector, value = lbfgs(problem.excess, problem.start(equal_weights), ITERATIONS, enough=ENOUGH)
        if value < least:
            best, least = (problem, vector), value
        if least <= ENOUGH:
            break
    if best is None:
        raise Refusal("mixed_rows: no start gave a finite value; check the scales of the sources.")
    problem, vector = best
    if problem.ranges.left(problem.numbers(vector)):
        vector = problem.bounded(vector)
        vector, least = lbfgs(problem.excess, vector, ITERATIONS, enough=ENOUGH)
    return *problem.rows(vector), problem.weight(vector), least


class _Problem:
    """Numbers in units of their deviations, then log weights, as one flat vector; states are fixed."""

    def __init__(self, full: Pooled, statistics: Statistics, size: int, slices: int, seed: int) -> None:
        template = full.template
        self.full, self.size, self.mixture = full, size, Mixture.of(template)
        discrete, continuous = self.mixture.discrete, self.mixture.continuous
        self.x, self.static = simulated(template, full.draws, size, slices, seed)
        (c, c_static), self.base = self.mixture.split(self.x, self.static)
        self.own = [
            [i for i, name in enumerate(names) if self.mixture.own(name)]
            for names in (continuous.variables, continuous.static)
        ]
        pilot = self._flat(self.mixture.split(*simulated(template, full.draws, PILOT, slices, seed))[1])
        self.centre, self.scale = pilot.mean(0), pilot.std(0).clamp_min(1e-6)
        names = [continuous.variables[i] for i in self.own[0]] * slices + [continuous.static[i] for i in self.own[1]]
        self.ranges, self.within = Ranges.of(template, full.sources, names), False
        self.layout = Layout.of(continuous)
        mine = [f for f, family in enumerate(continuous.structure.families) if self.mixture.own(family.variable)]
        numbers = Layout(continuous, *(part[mine] for part in (self.layout.kind, self.layout.child)), *(
            part[mine] for part in (self.layout.design, self.layout.real)))  # fmt: skip
        self.of_numbers = excess_of(numbers, Statistics(*(part[mine] for part in statistics)))
        logs = [full.draws[site].log().mean(0).flatten() for site in discrete.sites]
        self.of_states = Dirichlets(discrete, torch.cat(logs))
        self.cells = torch.cat(cells(discrete, c.long(), c_static.long()), 1)

    def _flat(self, rows: Rows) -> Tensor:
        """Numbers of rows, slice after slice, static ones last: ``(rows, n)``."""
        return torch.cat([rows[0][..., self.own[0]].flatten(1), rows[1][:, self.own[1]]], 1)

    def start(self, equal_weights: bool) -> Tensor:
        """The simulated numbers, each row weighted N / M."""
        weight = torch.full((1 if equal_weights else self.size,), math.log(self.full.count / self.size)).double()
        return torch.cat([((self._flat(self.base) - self.centre) / self.scale).flatten(), weight])

    def numbers(self, vector: Tensor) -> Tensor:
        """Numbers ``(M, n)``."""
        free = self.centre + self.scale * vector[: self.size * len(self.centre)].reshape(self.size, -1)
        return self.ranges.inside(free) if self.within else free

    def bounded(self, vector: Tensor) -> Tensor:
        """The vector of the nearest numbers within their ranges, which hold from now on."""
        free = (self.ranges.free(self.numbers(vector)) - self.centre) / self.scale
        self.within = True
        return torch.cat([free.flatten(), vector[free.numel() :]])

    def weight(self, vector: Tensor) -> Tensor:
        """Weights ``(M,)``."""
        return vector[self.size * len(self.centre) :].exp().clamp_min(SMALLEST_WEIGHT).expand(self.size)

    def placed(self, vector: Tensor) -> Rows:
        """Rows of the continuous part."""
        numbers, (x, static) = self.numbers(vector), self.base
        split = x.shape[1] * len(self.own[0])
        moving = numbers[:, :split].unflatten(1, (x.shape[1], -1)) if self.own[0] else numbers[:, None, :0]
        x = x.index_copy(2, torch.tensor(self.own[0], dtype=torch.int64), moving.expand(-1, x.shape[1], -1))
        return x, static.index_copy(1, torch.tensor(self.own[1], dtype=torch.int64), numbers[:, split:])

    def excess(self, vector: Tensor) -> Tensor:
        """Nats above the best conjugate posterior."""
        weight = self.weight(vector)
        gram = self.layout.grams(*in_order(self.mixture.continuous, *self.placed(vector)), weight)
        counts = weight.new_zeros(len(self.of_states.logs))
        counts = counts.index_add(0, self.cells.flatten(), weight.repeat_interleave(self.cells.shape[1]))
        return self.of_numbers(gram) + self.of_states.excess(counts)

    def rows(self, vector: Tensor) -> Rows:
        """Sequences ``(M, T, V)`` and static values ``(M, V_s)`` of the template."""
        (z, z_static), template, continuous = self.placed(vector), self.mixture.template, self.mixture.continuous
        x, static = self.x.clone(), self.static.clone()
        for i in self.own[0]:
            x[..., template.variables.index(continuous.variables[i])] = z[..., i]
        for i in self.own[1]:
            static[:, template.static.index(continuous.static[i])] = z_static[:, i]
        return x, static
