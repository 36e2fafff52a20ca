"""Starts: unconstrained points at which a log density is finite, where searches, chains and checks can begin."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.engine import Engine
from bayesdd.task.program import Program, joined, prior_draws
from bayesdd.task.refusals import explained

STARTS = 8
BLOCK = 8192  # rows evaluated together, so that memory stays bounded


def finite_starts(
    program: Program, rows: Columns, count: int, seed: int = 0, number: Callable[[int], int] = int
) -> Tensor:
    """Unconstrained points at which the log-likelihood of rows is finite, shape ``(count, P)``, on the rows' device.

    Args:
        program: The model.
        rows: Column -> ``(N, ...)``.
        count: Number of points.
        seed: Seed of the candidates.
        number: Place of a row -> its number in messages.

    Raises:
        Refusal: None of the candidates is finite; names the first row that is not, and its NaN columns.
    """
    size, device = len(next(iter(rows.values()))), next(iter(rows.values())).device
    candidates = _candidates(program, rows, seed).to(device)
    engine = Engine(functools.partial(joined, program), "loop")
    priors = len(program.structure.sites) + 1
    good: list[Tensor] = []
    always_bad = torch.ones(size, dtype=torch.bool, device=device)
    for candidate in candidates:
        try:
            with torch.no_grad():
                blocks = [engine(candidate[None], block)[0] for block in _blocks(rows)]
        except Exception as error:
            raise explained(error, program) from error
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
        raise Refusal(
            f"{program.name}: log prior or log-likelihood is not finite {tried}: check that the prior is proper, and "
            "its scale."
        )
    place = int(always_bad.nonzero()[0])
    row = f"{program.name}: the log-likelihood of row {number(place)}"
    if missing := first_missing(rows, place):
        raise Refusal(
            f"{row} is NaN because column {missing!r} is missing there: fill it with nan_to_num under a mask, or drop "
            "such rows."
        )
    raise Refusal(f"{row} is not finite {tried}: check that row, or the model's scale.")


def _candidates(program: Program, rows: Columns, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    flat = torch.rand(STARTS, program.structure.dim, generator=generator, dtype=torch.float64) * 4 - 2
    first = {name: column[:1].cpu() for name, column in rows.items()}
    try:
        prior = prior_draws(program, first, range(seed, seed + STARTS))
    except Exception as error:
        raise explained(error, program) from error
    return torch.cat([flat / 4, prior, flat, torch.zeros_like(flat[:1])])


def _blocks(rows: Columns) -> list[Columns]:
    starts = range(0, len(next(iter(rows.values()))), BLOCK)
    return [{name: column[start : start + BLOCK] for name, column in rows.items()} for start in starts]


def first_missing(columns: Columns, row: int) -> str | None:
    """The first column with a missing entry in a row."""
    floating = (name for name, column in columns.items() if column.is_floating_point())
    return next((name for name in floating if bool(columns[name][row].isnan().any())), None)
