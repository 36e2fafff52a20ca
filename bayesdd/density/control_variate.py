r"""Sweeps that cost few rows: a Taylor expansion of the full log-likelihood as a control variate.

.. math:: l_D(\theta) = l_D(m) + g'd + \tfrac12 d'Hd + \tfrac16 T[d, d, d] + \sum_n r_n(\theta), \qquad d = \theta - m

with value, gradient and Hessian of all rows at the mode m, computed once, and the remainders :math:`r_n` of few rows,
scaled up to all. Third derivatives T cost 4 P Hessians more, and are taken where the wanted precision needs them. Where
the posterior is narrow the remainders are tiny, and so is the error of their sum, which is estimated at every draw from
the spread between disjoint folds of the rows. Differences from the mode, row by row, also keep the digits that raw sums
of many rows lose in float64.

Source: Baker, Fearnhead, Fox & Nemeth, "Control variates for stochastic gradient MCMC", Statistics and Computing 2019;
Quiroz, Kohn, Villani & Tran, "Speeding up MCMC by efficient data subsampling", JASA 2019.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.data.columns import Columns, separated
from bayesdd.data.rows import Rows
from bayesdd.density.density import Density
from bayesdd.density.ranks import current
from bayesdd.density.third import third_derivatives, to_third_order
from bayesdd.task.task import Task

FOLDS = 16
FIRST_ROWS = 4096
ERROR = 3e-3  # nats, the largest at the pilot draws: a KL is then off by at most half its square, 5e-6 nats
MOST_LATENTS = 30  # whose 120 Hessians a pass over all rows may cost
MOST = 0.25  # share of the rows above which a full sweep is as good
PILOT = 64  # draws at which the number of rows is chosen
CELLS = 2**16  # draws x rows of a fold at once: draws are padded to it, so that one graph serves every sweep


class Taylor(NamedTuple):
    """Value, gradient ``(P,)``, Hessian ``(P, P)`` and perhaps third derivatives ``(P, P, P)`` at a point, nats."""

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    third: Tensor | None

    def at(self, shift: Tensor) -> Tensor:
        """The expansion at shifts ``(S, P)`` from the point, nats, ``(S,)``."""
        if self.third is None:
            return self.value + shift @ self.gradient + 0.5 * ((shift @ self.hessian) * shift).sum(1)
        return self.value + to_third_order(self.gradient, self.hessian, self.third, shift)


@dataclass(frozen=True, eq=False)
class ControlVariate:
    """A log-likelihood's expansion, and folds of few of its rows to estimate the remainder from.

    Attributes:
        density: All rows.
        centre: Where it is expanded, ``(P,)``.
        expansion: The expansion there.
        folds: Random rows in disjoint folds, each weighted to stand for all rows.
        expansions: The same of each fold.
    """

    density: Density
    centre: Tensor
    expansion: Taylor
    folds: list[Density]
    expansions: list[Taylor]

    def log_likelihood(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood of all rows at draws, nats, and its standard error, ``(S,)`` each."""
        shift = draws - self.centre

        def remainder(k: int) -> Tensor:
            return _filled_sweep(self.folds[k], draws) - self.expansions[k].at(shift)

        self.density.evaluations += len(draws) * sum(fold.size for fold in self.folds) / self.density.size
        stacked = current().each(len(self.folds), remainder, draws)
        error = stacked.std(0) / math.sqrt(FOLDS)
        return self.expansion.at(shift) + stacked.mean(0), error


def control_variate_of(
    density: Density, centre: Tensor, draws: Tensor, seed: int, *, axes: Tensor | None = None, error: float = ERROR
) -> ControlVariate | None:
    """An expansion at the mode ``centre (P,)``; None where a full sweep is as good.

    As many random rows are taken as make its error small at draws ``(S, P)`` of the posterior. Weights of rows count.

    Args:
        density: All rows.
        centre: The mode.
        draws: Draws like those that will be swept.
        seed: Seed of the random rows.
        axes: The posterior's axes in their lengths, as columns ``(P, P)``; without them second order is all.
        error: Standard error that the log-likelihoods may have, nats.
    """
    third = axes if error < ERROR and density.dim <= MOST_LATENTS else None
    expansion = _taylor(density, centre, third)
    if expansion.third is not None and not bool(torch.isfinite(expansion.third).all()):
        third, expansion = None, expansion._replace(third=None)  # all rows and folds are expanded alike
    rows = FIRST_ROWS
    while rows <= MOST * density.size:
        folds = _folds(density, rows, seed)
        expansions = [_taylor(fold, centre, third) for fold in folds]
        density.gradients += sum(fold.gradients * fold.size for fold in folds) / density.size
        found = ControlVariate(density, centre, expansion, folds, expansions)
        worst = float(found.log_likelihood(draws[:PILOT])[1].max())
        if worst <= error:
            return found
        if not math.isfinite(worst):
            return None
        # Errors fall with the root of the rows; 1.5, since the largest error of all draws exceeds that of few.
        rows = max(2 * rows, math.ceil(1.5 * rows * (worst / error) ** 2))
    return None


def _taylor(density: Density, centre: Tensor, axes: Tensor | None) -> Taylor:
    value, gradient, hessian = (part[0] for part in density.likelihood_derivatives(centre[None]))
    return Taylor(value, gradient, hessian, None if axes is None else third_derivatives(density, centre, axes))


def _filled_sweep(fold: Density, draws: Tensor) -> Tensor:
    chunk = max(1, CELLS // fold.size)
    filled = torch.cat([draws, draws[-1:].expand(-len(draws) % chunk, -1)])
    return torch.cat([fold.sweep(some) for some in filled.split(chunk)])[: len(draws)]


def _folds(density: Density, rows: int, seed: int) -> list[Density]:
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[tuple[Task, Columns | Rows, Tensor | None]]] = [[] for _ in range(FOLDS)]
    for part in density.parts:
        size = part.rows.size
        share = FOLDS * max(1, math.ceil(rows * size / density.size / FOLDS))
        picked = torch.randint(size, (share,), generator=generator)
        taken, own = separated(part.rows.take(picked))
        for k, places in enumerate(torch.arange(share).tensor_split(FOLDS)):
            weight = torch.full((len(places),), size / len(places), dtype=torch.float64, device=density.device)
            if part.weight is not None:
                weight = weight * part.weight[picked[places].to(density.device)]
            if own is not None:
                weight = weight * own[places.to(own.device)].to(density.device)
            chosen = {name: column[places.to(column.device)] for name, column in taken.items()}
            parts[k].append((part.task, chosen, weight))
    return [Density(fold, density.device, density.memory) for fold in parts]
