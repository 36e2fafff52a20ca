"""Rows as flat, named elements: ``x[age]`` -> one number a row."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from bayesdd.data.columns import Columns
from bayesdd.data.distilled import Distilled, needed
from bayesdd.dbn.template import Template
from bayesdd.task.given import task_of
from bayesdd.task.provenance import check
from bayesdd.task.task import Task


def belonging(task: Any, distilled: Any, what: str) -> tuple[Task, Distilled]:
    """The task, and the set in its types and with hard classes.

    Raises:
        WrongType: Something else came.
        Refusal: The set does not belong to the task.
    """
    task = task_of(task, what)
    found = check(needed(distilled, what), task)
    return task, found


def outcomes(task: Task) -> list[str]:
    """Columns that sites of the model observe."""
    seen = {site.column for site in task.structure.observed}
    return [name for name in task.data if name in seen]


def elements(task: Task, rows: Columns) -> dict[str, Any]:
    """Every element of a column with at most one axis a row: ``x[age]`` -> ``(rows,)`` numbers."""
    found: dict[str, Any] = {}
    for name, column in rows.items():
        shape = tuple(column.shape[1:])
        values: Any = np.asarray(column, dtype=np.float64)
        if not shape:
            found[name] = values
        elif len(shape) == 1:
            found |= {f"{name}[{label}]": values[:, i] for i, label in enumerate(names_along(task, name))}
    return found


def belongs(element: str, columns: list[str]) -> bool:
    """Whether an element is one of these columns."""
    return element in columns or element.partition("[")[0] in columns


def some(count: int, most: int) -> Any:
    """Numbers of at most ``most`` of ``count`` rows, the same every time."""
    return np.arange(count) if count <= most else np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def template_of(task: Task) -> Template | None:
    """The template network that a task is of, if it is of one."""
    bound = task.model.keywords.values() if isinstance(task.model, functools.partial) else ()
    return next((value for value in bound if isinstance(value, Template)), None)


def names_along(task: Task, column: str) -> list[str]:
    """Names along the last axis of a column: a template's variables, the user's own, or numbers."""
    shape = tuple(task.data[column].shape[1:])
    template = template_of(task)
    own = {"x": template.variables, "static": template.static}.get(column, ()) if template is not None else ()
    if len(own) == shape[-1]:
        return list(own)
    return [str(name) for name in task.names.along(column, shape)[-1]]
