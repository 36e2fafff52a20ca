"""Unconstrained points at which a task's log density is finite: where searches, chains and checks can start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.task.engine import Engine
from bayesdd.task.program import one_draw
from bayesdd.task.refusals import explained

if TYPE_CHECKING:
    from bayesdd.task.task import Task

STARTS = 8
BLOCK = 8192  # rows looked at together, so that memory stays bounded


def finite_starts(task: Task, count: int, seed: int = 0, rows: Columns | None = None) -> Tensor:
    """Unconstrained points at which the log-likelihood of rows is finite, shape ``(count, P)``, on the rows' device.

    Args:
        task: The task.
        count: Number of points.
        seed: Seed of the candidates.
        rows: The rows; default the task's own.

    Raises:
        ValueError: None of the candidates is finite; names the first row that is not, and its NaN columns.
    """
    rows = task.data if rows is None else rows
    size, device = len(next(iter(rows.values()))), next(iter(rows.values())).device
    candidates = _candidates(task, seed).to(device)
    engine = Engine(one_draw(task), "loop")
    priors = len(task.structure.sites) + 1
    good: list[Tensor] = []
    always_bad = torch.ones(size, dtype=torch.bool, device=device)
    for candidate in candidates:
        try:
            with torch.no_grad():
                blocks = [engine(candidate[None], block)[0] for block in _blocks(rows)]
        except Exception as error:
            raise explained(error, task.model, task.name) from error
        by_row = torch.cat([block[priors:] for block in blocks])
        if bool(torch.isfinite(blocks[0][:priors]).all() & torch.isfinite(by_row).all()):
            good.append(candidate)
            if len(good) == count:
                return torch.stack(good)
        elif len(by_row) == size:
            always_bad &= ~torch.isfinite(by_row)
    if good:
        return torch.stack([good[i % len(good)] for i in range(count)])
    tried = f"at any of {len(candidates)} starting points"
    if not bool(always_bad.any()):
        raise ValueError(
            f"{task.name}: log prior or log-likelihood is not finite {tried}: check that the prior is proper, and its "
            "scale."
        )
    place = int(always_bad.nonzero()[0])
    row = task.rows.number(place) if rows is task.data else place
    if missing := missing_column(rows, place):
        raise ValueError(
            f"{task.name}: the log-likelihood of row {row} is NaN because column {missing!r} is missing there: "
            "fill it with nan_to_num under a mask, or drop such rows."
        )
    raise ValueError(
        f"{task.name}: the log-likelihood of row {row} is not finite {tried}: check that row, or the model's scale."
    )


def _candidates(task: Task, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    flat = torch.rand(STARTS, task.dim, generator=generator, dtype=torch.float64) * 4 - 2
    try:
        prior = task.prior_draws(STARTS, seed)
    except Exception as error:
        raise explained(error, task.model, task.name) from error
    return torch.cat([flat / 4, prior, flat, torch.zeros_like(flat[:1])])


def _blocks(rows: Columns) -> list[Columns]:
    starts = range(0, len(next(iter(rows.values()))), BLOCK)
    return [{name: column[start : start + BLOCK] for name, column in rows.items()} for start in starts]


def missing_column(columns: Columns, row: int) -> str | None:
    """Name of the first column that is NaN in a row, or None."""
    floating = (name for name, column in columns.items() if column.is_floating_point())
    return next((name for name in floating if bool(columns[name][row].isnan().any())), None)
