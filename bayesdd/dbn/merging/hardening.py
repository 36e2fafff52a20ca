"""Hard categorical rows from soft ones, for tools that take hard states only, and what that costs in nats.

Copies of the soft rows get states, stratified by their probabilities. Then, in turns while that helps, the entries with
the steepest slope of the forward KL (``soft.Dirichlets``) are changed and the weights refitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.data import Distilled
from bayesdd.dbn.inference.pooling import Pooled
from bayesdd.dbn.likelihood.categorical import expected_counts
from bayesdd.dbn.merging.soft import Dirichlets
from bayesdd.dbn.template.columns import as_columns, soft_columns
from bayesdd.distillation.problem import SMALLEST_WEIGHT
from bayesdd.numerics.optimise import lbfgs
from bayesdd.numerics.refusal import Refusal

POLISH = 12  # most turns
TRIED = 0.1  # share of the entries that the first turn changes at once


def harden(full: Pooled, distilled: Distilled, *, size: int, seed: int = 0) -> Distilled:
    """Hard states for tools that take no probabilities.

    Args:
        full: The joint posterior.
        distilled: Complete rows of soft categories, from :func:`bayesdd.dbn.merge`.
        size: Number of hard rows, at least that of the soft ones; their counts are as coarse as their number.
        seed: Seed.

    Returns:
        Integer rows and weights; the provenance holds ``excess``, and ``rounding``, the nats of it that hardness costs.

    Raises:
        Refusal: The rows are not of soft categories, or fewer hard ones are asked for.
    """
    columns = soft_columns(full.template, distilled.data)
    if columns is None or not isinstance(full.statistics, Tensor):
        raise Refusal("harden needs rows of soft categories, x of shape (rows, slices, variables, states).")
    (soft, fixed), generator = columns, torch.Generator().manual_seed(seed)
    goal, split = Dirichlets(full.template, full.statistics), soft.shape[1] * soft.shape[2]
    every = torch.cat([soft.flatten(1, 2), fixed], 1)
    row = _copies(distilled.weight, size)
    hard = torch.nn.functional.one_hot(_stratified(every, row, generator), every.shape[2]).double()
    log_weight = (distilled.weight / torch.bincount(row, minlength=len(every)))[row].log()

    def rows(entries: Tensor) -> tuple[Tensor, Tensor]:
        return entries[:, :split].unflatten(1, soft.shape[1:3]), entries[:, split:]

    def value(entries: Tensor, logs: Tensor) -> Tensor:
        return goal.excess(expected_counts(full.template, *rows(entries), logs.exp()))

    possible, least, tried = (every > 0).any(0), math.inf, int(TRIED * hard[..., 0].numel())
    for _ in range(POLISH):
        log_weight, now = lbfgs(lambda v: value(hard, v), log_weight, 100)  # noqa: B023
        if not now < least - 1e-3:
            least = now
            break
        hard, least = _changed(hard, now, max(tried, 1), possible, lambda entries: value(entries, log_weight))  # noqa: B023
        tried //= 4
    cost = {"excess": least, "rounding": least - float(distilled.provenance["excess"])}
    return Distilled(
        as_columns(full.template, rows(hard.argmax(-1))),
        log_weight.exp().clamp_min(SMALLEST_WEIGHT),
        provenance=distilled.provenance | {"size": size} | cost,
    )


def _changed(
    hard: Tensor, least: float, tried: int, possible: Tensor, value: Callable[[Tensor], Tensor]
) -> tuple[Tensor, float]:
    """Changes the entries of the steepest slopes, as many at once as lower the value."""
    while tried:
        entries = hard.clone().requires_grad_()
        (slope,) = torch.autograd.grad(value(entries), entries)
        gain = (slope - (slope * hard).sum(-1, keepdim=True)).masked_fill(~possible, math.inf)
        best, state = (part.flatten() for part in gain.min(-1))
        order = best.argsort()[:tried]
        order = order[best[order] < 0]
        trial = hard.clone().reshape(-1, hard.shape[2])
        trial[order] = torch.nn.functional.one_hot(state[order], hard.shape[2]).double()
        after = float(value(trial.reshape(hard.shape)))
        if after < least:
            hard, least = trial.reshape(hard.shape), after
        else:
            tried //= 2
    return hard, least


def _copies(weight: Tensor, size: int) -> Tensor:
    """Soft row of every hard one: each at least once, the heavier more often."""
    if size < len(weight):
        raise Refusal(f"hard rows are at least as many as soft ones: ask for {len(weight)} or more, not {size}.")
    share = (size - len(weight)) * weight / weight.sum()
    counts = 1 + share.floor().long()
    counts[torch.argsort(share.floor() - share)[: size - int(counts.sum())]] += 1
    return torch.repeat_interleave(torch.arange(len(weight)), counts)


def _stratified(every: Tensor, row: Tensor, generator: torch.Generator) -> Tensor:
    """States ``(rows, n)``: of the copies of a soft row, each entry's states come as often as their probability."""
    counts = torch.bincount(row, minlength=len(every))
    order = torch.rand(len(row), every.shape[1], generator=generator, dtype=torch.float64)
    # Ranks of random numbers within each row's copies: a random permutation for every entry.
    rank = (order + row[:, None]).argsort(0).argsort(0) - (counts.cumsum(0) - counts)[row][:, None]
    shift = torch.rand(len(every), every.shape[1], generator=generator, dtype=torch.float64)[row]
    level = (rank + shift) / counts[row][:, None]
    return (level[..., None] > every[row].cumsum(-1)).sum(-1).clamp_max(every.shape[2] - 1)
