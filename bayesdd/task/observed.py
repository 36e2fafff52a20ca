"""Which column a site observes: the one that its value is computed from, told by moving one column at a time.

Every entry of a column is replaced by the next larger one that occurs, so that integers, labels and bounded columns
stay what they are. A site observes the column if its value equals the column's entries before and after (missing ones
apart: ``y.nan_to_num()``; casts and slices count). Equal values alone say nothing: a column of ones stands beside many
a site that observes ones. Where a site observes a part of a column, its own parameters must not use that part.
"""

from __future__ import annotations

from dataclasses import replace

import pyro
import torch
from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.task.program import Message, Observation, Program, Recorder, is_deterministic, row_frame, running

LOOKED_AT = 256  # rows: a value computed from a column follows it in every one of them


def observed(program: Program, columns: Columns) -> tuple[Observation, ...]:
    """The program's observed sites, with the column that each observes.

    Args:
        program: The model.
        columns: Rows at which it runs, column -> ``(N, ...)``, on the CPU.
    """
    step = -(-len(next(iter(columns.values()))) // LOOKED_AT)
    rows = {name: column[::step] for name, column in columns.items()}
    here = _run(program, rows) or {}
    found = {site.name: site for site in program.structure.observed}
    for name, column in rows.items():
        moved = following(column)
        there = _run(program, {**rows, name: moved}) or {}
        for site in list(found):
            if found[site].distribution == "Unit" or found[site].column or not {site} <= here.keys() & there.keys():
                continue
            values = _value(here[site], program), _value(there[site], program)
            elements = _elements([(_flat(column), values[0]), (_flat(moved), values[1])])
            if elements and not _used(program, rows, name, moved, elements, here[site]):
                found[site] = replace(found[site], column=name, elements=elements, sources=())
            elif not torch.equal(*(value.double().nan_to_num() for value in values)):
                found[site] = replace(found[site], sources=(*found[site].sources, name))
    return tuple(found.values())


def following(column: Tensor) -> Tensor:
    """Every entry replaced by the next larger one of its element, the largest by the smallest; lone ones plus one.

    Shape of the column ``(N, ...)``; missing entries stay missing.
    """
    flat = _flat(column).T.contiguous()
    ordered = flat.sort(1).values
    count = (
        (~flat.isnan()).sum(1, keepdim=True) if flat.is_floating_point() else torch.full((len(flat), 1), len(column))
    )
    place = torch.searchsorted(ordered, flat, right=True)
    after = ordered.gather(1, torch.where(place < count, place, 0))
    after = torch.where(after == flat, flat + 1, after)
    return (torch.where(flat.isnan(), flat, after) if flat.is_floating_point() else after).T.reshape(column.shape)


def _run(program: Program, rows: Columns) -> dict[str, Message] | None:
    """The observed sites of one run, latents as the seed gives them; None where the model fails at moved entries."""
    try:
        with running(), torch.random.fork_rng(devices=[]), torch.no_grad(), Recorder() as recorder:
            torch.manual_seed(0)
            program.model(**rows)
    except Exception:  # a group that does not exist, by errors of many types
        return None
    return {m["name"]: m for m in recorder.messages if m["is_observed"] and not is_deterministic(m)}


def _flat(column: Tensor) -> Tensor:
    return column.reshape(len(column), -1)


def _value(msg: Message, program: Program) -> Tensor:
    frame = row_frame(msg, program.plate)
    value: Tensor = msg["value"]
    return _flat(value if frame is None else value.movedim(frame.dim - len(msg["fn"].event_shape), 0))


def _elements(runs: list[tuple[Tensor, Tensor]]) -> tuple[int, ...]:
    """The column's elements that a value's elements equal in every run ``(rows, K)``, ``(rows, V)``; else none."""
    (column, value), *_ = runs
    if len(column) != len(value) or bool(column.isnan().all()):
        return ()
    if column.shape == value.shape and all(bool(_same(c, v).all()) for c, v in runs):
        return tuple(range(column.shape[1]))
    found = []
    for j in range(value.shape[1]):
        equal = torch.stack([_same(c, v[:, j : j + 1]).all(0) & ~c.isnan().all(0) for c, v in runs]).all(0)
        if not bool(equal.any()):
            return ()
        found.append(int(equal.int().argmax()))
    return tuple(found)


def _same(column: Tensor, value: Tensor) -> Tensor:
    """Where the value is the column's entry, as the value's type holds it, or the entry is missing."""
    entry = column.to(value.dtype) if value.is_floating_point() else column
    return (entry.double() == value.double()) | column.isnan()


def _used(
    program: Program, rows: Columns, name: str, moved: Tensor, elements: tuple[int, ...], before: Message
) -> bool:
    """Whether the distribution of a site follows the part of the column that the site observes.

    A whole column is its own past (an autoregression) and is observed all the same.
    """
    column = _flat(rows[name])
    if set(elements) == set(range(column.shape[1])):
        return False
    part = column.clone()
    part[:, list(elements)] = _flat(moved)[:, list(elements)]
    after = (_run(program, {**rows, name: part.reshape(moved.shape)}) or {}).get(before["name"])
    if after is None:
        return True
    with running(), torch.no_grad(), pyro.validation_enabled(False):
        densities = [m["fn"].log_prob(before["value"]).nan_to_num() for m in (before, after)]
    return not torch.equal(*densities)
