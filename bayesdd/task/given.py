"""The tasks that a function was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bayesdd.data.distilled import Distilled
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.task.task import Task


def task_of(value: Any, verb: str) -> Task:
    """A single task.

    Raises:
        WrongType: It is anything else.
    """
    if isinstance(value, Task):
        return value
    name = getattr(value, "__name__", type(value).__name__)
    if isinstance(value, Distilled):
        raise WrongType(f"{verb} needs a bayesdd.Task where a distilled set came: the task stands first")
    if callable(value):
        raise WrongType(f"{verb} needs a bayesdd.Task, got the function {name!r}: bayesdd.Task({name}, data) makes one")
    raise WrongType(f"{verb} needs a bayesdd.Task, got {type(value).__name__}: bayesdd.Task(model, data) makes one")


def tasks_of(target: Any, verb: str) -> list[Task]:
    """The tasks of a target, a task or a list of them.

    Raises:
        WrongType: It is anything else.
        Refusal: The list is empty.
    """
    if not isinstance(target, Sequence) or isinstance(target, str):
        return [task_of(target, verb)]
    if not target:
        raise Refusal(f"{verb}: the target is an empty list: give a Task, or several")
    return [task_of(one, f"{verb}: part {i} of the target") for i, one in enumerate(target)]
