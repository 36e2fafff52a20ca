r"""Whole outcomes: a row with fractional outcomes as several weighted rows with whole ones.

An outcome of 0.3 with weight w is an outcome of 1 with weight 0.3 w and one of 0 with weight 0.7 w wherever the
log-likelihood is linear in the outcome between whole numbers, up to what is free of theta (log y! of a Poisson count):
Bernoulli, binomial, Poisson, a negative binomial of known dispersion. A row with several fractional entries
:math:`f_j + q_j` (whole part and fraction) is split along one uniform u, entry j being :math:`f_j + 1[u < q_j]`: with k
distinct fractions into at most k + 1 rows, exactly if the entries' terms add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.numerics.refusal import Refusal

ROUNDED = 1e-12  # a fraction this close to a whole number is one: its row would weigh nothing in float64
DRAWS = 8  # from the prior, and as many near the origin of the unconstrained space, where no density overflows
LINEAR = 1e-9  # share of the log-likelihood's size, far above rounding and far below a negative binomial's curvature


class Likelihood(Protocol):
    """What a task is asked for here."""

    @property
    def data(self) -> Columns:
        """The task's own rows: their names and types."""

    @property
    def discrete(self) -> tuple[str, ...]:
        """Columns that discrete sites observe, and those with their numbers of trials."""

    def log_likelihood(self, rows: Columns, draws: Tensor) -> Tensor:
        """Nats, ``(S, rows)``, at unconstrained draws ``(S, P)``."""

    def prior_draws(self, count: int, seed: int) -> Tensor:
        """Unconstrained draws ``(count, P)``."""


class Pieces(NamedTuple):
    """Rows with whole entries, which row each came from ``(R,)``, and its share of that row's weight ``(R,)``."""

    columns: Columns
    owner: Tensor
    share: Tensor


def pieces(data: Columns, names: Sequence[str]) -> Pieces:
    """Every row split along the fractions of the columns named, side by side; the other columns are repeated."""
    parts = {name: _parts(data[name]) for name in names if data[name].is_floating_point()}
    size = len(next(iter(data.values())))
    fractions = [fraction.reshape(size, -1) for _, fraction in parts.values()]
    zero = torch.zeros(size, 1, dtype=torch.float64)
    edges = torch.cat([zero, *fractions, zero + 1], 1).sort(1).values
    width = edges.diff(dim=1)
    owner, at = (width > 0).nonzero(as_tuple=True)
    lower = edges[owner, at]
    columns = {name: column[owner] for name, column in data.items()}
    for name, (floor, fraction) in parts.items():
        above = fraction[owner] > lower.reshape(-1, *[1] * (fraction.dim() - 1))
        columns[name] = floor[owner] + above.double()
    return Pieces(columns, owner, width[owner, at])


def _parts(column: Tensor) -> tuple[Tensor, Tensor]:
    """Whole part and fraction; a missing entry has no fraction."""
    floor = (column + ROUNDED).floor()
    fraction = column - floor
    return floor, torch.where(fraction > ROUNDED, fraction, 0.0)


def splits(task: Likelihood, data: Columns) -> dict[str, bool]:
    """Whether rows with the fractional outcomes of each discrete column equal their pieces.

    Compared at draws: the difference of the log-likelihoods must be the same number of nats at all of them.

    Args:
        task: The task that the rows belong to.
        data: The rows, ``(M, ...)`` each, without soft columns.

    Returns:
        Name of each column of ``task.discrete`` -> whether its fractions split exactly.

    Raises:
        Refusal: The columns are not those of the task.
    """
    if odd := sorted(data.keys() ^ task.data.keys()):
        raise Refusal(
            f"to_frame(whole=True): column {odd[0]!r} is not in both the rows, which have {sorted(data)}, and the task "
            f"given, which has {sorted(task.data)}; give the task that the rows belong to."
        )
    data = {name: column.to(task.data[name].dtype) for name, column in data.items()}
    names = [name for name in task.discrete if name in data]
    if not names:
        return {}
    if _linear(task, data, names):
        return dict.fromkeys(names, True)
    found = {name: _linear(task, data, [name]) for name in names}
    # Terms that are linear one by one, and not together, do not add up: none of these columns can be split.
    return dict.fromkeys(names, False) if all(found.values()) else found


def _linear(task: Likelihood, data: Columns, names: Sequence[str]) -> bool:
    found = pieces(data, names)
    if len(found.owner) == len(next(iter(data.values()))):
        return True
    prior = task.prior_draws(DRAWS, 0)
    near = torch.randn(prior.shape, generator=torch.Generator().manual_seed(0), dtype=prior.dtype)
    draws = torch.cat([near, prior])
    with torch.no_grad():
        whole, parts = task.log_likelihood(data, draws), task.log_likelihood(found.columns, draws)
    together = torch.zeros_like(whole).index_add(1, found.owner, parts * found.share)
    size = torch.zeros_like(whole).index_add(1, found.owner, parts.abs() * found.share).maximum(whole.abs())
    finite = torch.isfinite(size) & torch.isfinite(together)
    excess = whole - together
    # The draw where a row's terms are smallest, and rounding least, is what the others are compared with.
    least = torch.where(finite, size, torch.inf).argmin(0)
    row = torch.arange(whole.shape[1])
    off = (excess - excess[least, row]).abs() > LINEAR * (1 + size + size[least, row])
    seen = bool((finite.sum(0) > 1).all())
    return seen and not bool((off & finite).any())


def whole_rows(data: Columns, weight: Tensor, verdict: dict[str, bool]) -> tuple[Columns, Tensor]:
    """Rows and weights with whole outcomes, these columns as integers where nothing is missing.

    Args:
        data: The rows, ``(M, ...)`` each, without soft columns.
        weight: Shape ``(M,)``.
        verdict: What ``splits`` said.

    Raises:
        Refusal: A column has fractions along which the log-likelihood is not linear.
    """
    for name, linear in verdict.items():
        if not linear and len(pieces(data, [name]).owner) > len(weight):
            raise Refusal(
                f"to_frame(whole=True): column {name!r} holds fractions, and the log-likelihood is not linear in it, "
                "so that whole rows would have another posterior: distill again with whole_outcomes=True."
            )
    columns, owner, share = pieces(data, list(verdict))
    for name in verdict:
        if not bool(columns[name].isnan().any()):
            columns[name] = columns[name].long()
    return columns, weight[owner] * share


def drawn(data: Columns, names: Sequence[str], generator: torch.Generator) -> Columns:
    """The rows with each fractional entry of the columns named at one of the two whole numbers beside it, at random.

    The mean of what is drawn is the fraction itself.
    """
    found = dict(data)
    for name in names:
        if data[name].is_floating_point():
            floor, fraction = _parts(data[name])
            found[name] = floor + (torch.rand(fraction.shape, generator=generator) < fraction).double()
    return found
