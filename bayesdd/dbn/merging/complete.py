"""Complete linear-Gaussian rows with a given posterior, by the forward KL in closed form (``excess``)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdd.dbn.inference.pooling import Pooled
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.inference.statistics import Statistics
from bayesdd.dbn.likelihood.gaussian import in_order, own_order
from bayesdd.dbn.likelihood.parameters import simulated
from bayesdd.dbn.merging.excess import excess_of, implied
from bayesdd.dbn.merging.predictive import prediction_loss
from bayesdd.dbn.merging.ranges import Ranges
from bayesdd.distillation.problem import SMALLEST_WEIGHT
from bayesdd.numerics.optimise import lbfgs
from bayesdd.numerics.refusal import Refusal, WrongType

STARTS = 3
TOO_FEW = 5.0  # nats of excess above which rows are too few for the posterior: then its predictions are matched
PILOT = 400  # simulated rows behind the units of the variables
ITERATIONS = 500
ENOUGH = 1e-4  # nats of excess below which nothing is left to gain
IMPLIED = 0.01  # weight of the edges' objective beside the posterior's: enough to leave no false edge, 0.02 nats
SPARE = 2  # slices beyond the number that regressions on all variables need


def complete_rows(
    full: Pooled,
    size: int,
    slices: int,
    *,
    seed: int,
    equal_weights: bool,
    learn_edges: bool = False,
    iterations: int = ITERATIONS,
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Rows and weights whose posterior is closest to the given one; in ``iterations`` steps a start at most.

    They start from simulated rows: of the posterior only its statistics and the mean draw are used, no row of a source.
    ``learn_edges`` says that edges will be learned from them.

    Returns:
        Sequences ``(M, T, V)``, static values ``(M, V_s)``, weights ``(M,)``, and the excess, nats.
    """
    template, layout = full.template, Layout.of(full.template)
    if not isinstance(full.statistics, Statistics):
        raise WrongType("complete_rows is for linear-Gaussian templates; use soft_rows.")
    excess = excess_of(layout, full.statistics)
    found, least, coordinates = None, math.inf, _Coordinates.of(full, size, slices, seed)
    of_edges, share = (implied(full, slices), IMPLIED) if learn_edges else (excess, 0.0)
    first = layout.width - len(template.variables) if template.initial is None else 0
    if learn_edges and (size < first + SPARE or size * (slices - 1) < layout.width + SPARE):
        # Too few for regressions on all variables: chance associations in the rows must not look certain.
        share, coordinates = 1.0, replace(coordinates, total=float(size))

    def aim(vector: Tensor) -> Tensor:
        gram = layout.grams(*coordinates.rows(vector))
        return excess(gram) + share * of_edges(gram) if share else excess(gram)

    for start in range(STARTS):
        begin = coordinates.start(seed + 1 + start, equal_weights=equal_weights)
        vector, value = lbfgs(aim, begin, iterations, enough=ENOUGH)
        if value < least:
            found, least = vector, value
        if least <= ENOUGH:
            break
    if found is None:
        raise Refusal("complete_rows: no start gave a finite value; check the scales of the sources.")
    if least > TOO_FEW and not learn_edges:
        loss = prediction_loss(full, layout, slices, seed)
        found, _ = lbfgs(lambda v: loss(layout.grams(*coordinates.rows(v))), found, iterations, stalled=1e-5)
    x, static, weight = coordinates.rows(found)
    ranges = Ranges.of(template, full.sources)
    if ranges.left(torch.cat([static[:, None].expand(-1, x.shape[1], -1), x], 2)):
        coordinates = replace(coordinates, ranges=ranges)
        found, _ = lbfgs(aim, coordinates.placed(x, static, found), iterations)
        x, static, weight = coordinates.rows(found)
    least = float(excess(layout.grams(x, static, weight)))
    return *own_order(template, x, static), weight, least


@dataclass(frozen=True, eq=False)
class _Coordinates:
    """Rows, parents first, and log weights as one flat vector; every variable in units of its deviation.

    ``centre`` and ``scale`` ``(V_s + V,)`` are the mean and the deviation of every static variable and variable in the
    posterior predictive; ``total`` is the sum of the weights, where it is given; ``ranges`` are those that values keep
    to, if they would leave them.
    """

    full: Pooled
    size: int
    slices: int
    centre: Tensor
    scale: Tensor
    total: float | None = None
    ranges: Ranges | None = None

    @classmethod
    def of(cls, full: Pooled, size: int, slices: int, seed: int) -> _Coordinates:
        """From rows simulated at the posterior mean."""
        x, static = in_order(full.template, *simulated(full.template, full.draws, PILOT, slices, seed))
        columns = [column for column in (static, x.flatten(0, 1)) if column.shape[1]]
        centre = torch.cat([column.mean(0) for column in columns])
        scale = torch.cat([column.std(0) for column in columns]).clamp_min(1e-6)
        return cls(full, size, slices, centre, scale)

    def start(self, seed: int, *, equal_weights: bool) -> Tensor:
        """Simulated rows, each weighted N / M."""
        template, size = self.full.template, self.size
        x, static = in_order(template, *simulated(template, self.full.draws, size, self.slices, seed))
        count = static.shape[1]
        white = [(static - self.centre[:count]) / self.scale[:count], (x - self.centre[count:]) / self.scale[count:]]
        weight = torch.full((1 if equal_weights else size,), math.log(self.full.count / size), dtype=torch.float64)
        return torch.cat([*(part.flatten() for part in white), weight])

    def placed(self, x: Tensor, static: Tensor, vector: Tensor) -> Tensor:
        """Rows in these coordinates, moved into their ranges, with the weights of a vector."""
        count = static.shape[1]
        if self.ranges is not None:
            low, high = self.ranges.low, self.ranges.high
            static, x = Ranges(low[:count], high[:count]).free(static), Ranges(low[count:], high[count:]).free(x)
        white = [(static - self.centre[:count]) / self.scale[:count], (x - self.centre[count:]) / self.scale[count:]]
        return torch.cat([*(part.flatten() for part in white), vector[static.numel() + x.numel() :]])

    def rows(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sequences ``(M, T, V)``, static values ``(M, V_s)``, weights ``(M,)``."""
        count, size = len(self.full.template.static), self.size
        fixed, moving = size * count, size * self.slices * (len(self.centre) - count)
        static = self.centre[:count] + self.scale[:count] * vector[:fixed].reshape(size, count)
        x = vector[fixed : fixed + moving].reshape(size, self.slices, -1)
        x = self.centre[count:] + self.scale[count:] * x
        if self.ranges is not None:
            low, high = self.ranges.low, self.ranges.high
            static = Ranges(low[:count], high[:count]).inside(static)
            x = Ranges(low[count:], high[count:]).inside(x)
        weight = vector[fixed + moving :].exp().clamp_min(SMALLEST_WEIGHT).expand(size)
        return x, static, weight if self.total is None else self.total * weight / weight.sum()
