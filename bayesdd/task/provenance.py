"""Where a distilled set came from: what a file needs so that its rows can be trusted later."""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bayesdd.data.columns import to_frame
from bayesdd.data.distilled import Distilled, described, refuse_difference
from bayesdd.data.values import coded
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.task import Task

PACKAGES = ("bayesdd", "torch", "pyro-ppl")


def provenance_of(
    student: Task, tasks: Sequence[Task], seed: int, size: int, objective: str, certifies: str = "posterior"
) -> dict[str, Any]:
    """Provenance that JSON can hold, without times and paths, so that equal runs write equal files.

    ``certifies`` is what a certificate of the rows is about, "posterior" or "predictions".
    """
    return {
        "task": student.name,
        "target": [task.name for task in tasks],
        "model_hash": student.model_hash,
        "sites": {name: list(shape) for name, shape in student.sites.items()},
        "fingerprint": [task.rows.fingerprint() for task in tasks],
        "seed": seed,
        "rows": sum(task.size for task in tasks),
        "size": size,
        "objective": objective,
        "certifies": certifies,
        "versions": _versions(),
    }


def identity(tasks: Sequence[Task]) -> str:
    """SHA-256 of models, rows and versions; sums over rows of another run are valid here where it is equal."""
    return hashlib.sha256(repr(parts_of(tasks)).encode()).hexdigest()


def parts_of(tasks: Sequence[Task]) -> dict[str, Any]:
    """What two runs must have in common to compute the same sums."""
    return {
        "models": [(task.name, task.model_hash, task.plate) for task in tasks],
        "rows": [task.rows.fingerprint() for task in tasks],
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def check(distilled: Distilled, task: Task) -> Distilled:
    """A distilled set in a task's own codes and types; warns if its model's source has changed since.

    Raises:
        Refusal: Latent sites, columns, their shapes, types or labels differ (one line naming the first difference).
    """
    wrong = f"the distilled set does not belong to {task.name}"
    if "sites" in distilled.provenance:
        ours, theirs = (
            {k: f"of shape {tuple(v)}" for k, v in s.items()} for s in (distilled.provenance["sites"], task.sites)
        )
        refuse_difference(ours, theirs, f"{wrong}: latent site", "the task")
    distilled = _in_types(_in_codes(distilled, task, wrong), task)
    ours, theirs = described(distilled.data), described(task.data)
    ours.update({name: theirs.get(name, "soft") for name in distilled.soft})
    refuse_difference(ours, theirs, f"{wrong}: column", "the task")
    if distilled.provenance.get("model_hash") not in (None, task.model_hash):
        warnings.warn(
            f"the source of {task.name} has changed since this set was distilled; certify it or distill anew",
            UserWarning,
            stacklevel=2,
        )
    return distilled


def _in_codes(distilled: Distilled, task: Task, wrong: str) -> Distilled:
    """Codes of a set's own labels as those of the task's."""
    data = dict(distilled.data)
    for name in {**distilled.labels, **task.labels}:
        ours, theirs = distilled.labels.get(name, ()), task.labels.get(name, ())
        if ours == theirs or name not in data:
            continue
        if not ours and any(isinstance(label, str) for label in theirs):
            continue  # codes, by hand
        if not ours or not theirs or name in distilled.soft:
            raise Refusal(f"{wrong}: column {name!r} has the labels {list(ours)}, but {list(theirs)} in the task")
        words = to_frame({name: data[name]}, {name: ours})
        if [*words] != [name]:
            raise Refusal(f"{wrong}: column {name!r} has the labels {list(ours)}, but {list(theirs)} in the task")
        data[name] = coded(words[name], f"{wrong}: column {name!r}", theirs).values
    return replace(distilled, data=data, labels={n: tuple(some) for n, some in task.labels.items()})


def _in_types(distilled: Distilled, task: Task) -> Distilled:
    """Whole numbers where the task has real ones, and the other way round."""
    data = {}
    for name, column in distilled.data.items():
        like = task.data.get(name, column)
        cast = column.to(like.dtype)
        data[name] = cast if name not in distilled.soft and bool((cast == column).all()) else column
    return replace(distilled, data=data)
