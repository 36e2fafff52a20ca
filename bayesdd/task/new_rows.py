"""Rows that come to a task later, for predictions or a purpose, read in the task's own terms."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

from bayesdd.data.columns import Columns, DataNote
from bayesdd.data.names import closest
from bayesdd.data.rows import read_whole
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.task import Task


def new_rows(task: Task, source: Any, names: Sequence[str], verb: str, optional: Collection[str] = ()) -> Columns:
    """Some of a task's columns for other rows, with its labels, shapes and types.

    Args:
        task: The task.
        source: Whatever a Task takes; rows on disk are read whole.
        names: The columns that are needed; the task's other columns are not looked at.
        verb: Who needs them, for messages.
        optional: Columns that are read where they are there.

    Raises:
        Refusal: A column is missing, of another shape, or holds a label or a fraction that the task's cannot hold.
    """

    def choose(there: list[str]) -> list[str]:
        if missing := [name for name in names if name not in there]:
            near = closest(missing[0], there)
            hint = f": did you mean {near!r} for {missing[0]!r}?" if near else f"; {missing[0]!r} is missing"
            raise Refusal(f"{verb} needs the columns {list(names)} of the new rows, got {sorted(there)}{hint}")
        if left := [name for name in there if name not in task.data]:
            warnings.warn(f"{verb} needs no columns {left}: they are left out", DataNote, stacklevel=7)
        return [*names, *(name for name in there if name in optional)]

    columns = {}
    for name, column in read_whole(source, task.columns, choose, task.labels).items():
        own = task.data[name]
        if column.shape[1:] != own.shape[1:]:
            raise Refusal(
                f"{verb}: column {name!r} has shape {tuple(column.shape[1:])} a row, but {tuple(own.shape[1:])} in the "
                "task."
            )
        columns[name] = column.to(own.dtype)
        if not own.is_floating_point() and bool((columns[name] != column).any()):
            cause = (
                "entries are missing: leave such rows out" if bool(column.isnan().any()) else "got others: round them"
            )
            raise Refusal(f"{verb}: column {name!r} holds whole numbers in the task, {cause}.")
    return columns
