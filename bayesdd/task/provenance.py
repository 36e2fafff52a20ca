"""Where a distilled set came from: what a file needs so that its rows can be trusted later."""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bayesdd.data.columns import Columns, to_frame
from bayesdd.data.distilled import Distilled, refuse_difference
from bayesdd.data.values import coded
from bayesdd.data.whole import pieces
from bayesdd.numerics.refusal import Refusal
from bayesdd.task.refusals import supported
from bayesdd.task.task import Task

PACKAGES = ("bayesdd", "torch", "pyro-ppl")


def provenance_of(
    student: Task, tasks: Sequence[Task], seed: int, size: int, objective: str, certifies: str = "posterior"
) -> dict[str, Any]:
    """Provenance that JSON can hold, without times and paths, so that equal runs write equal files.

    ``certifies`` is what a certificate of the rows is about, "posterior" or "predictions".
    """
    counted = [task.rows.counted for task in tasks]
    return {
        "task": student.name,
        "target": [task.name for task in tasks],
        "model_hash": student.model_hash,
        "sites": {name: list(shape) for name, shape in student.sites.items()},
        "fingerprint": [task.rows.fingerprint() for task in tasks],
        "seed": seed,
        "rows": sum(task.size for task in tasks),
        **({"counted": counted} if any(counted) else {}),
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
        "models": [(task.name, task.model_hash, task.program.plate) for task in tasks],
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
    """The set in the types of the task that it belongs to; warns if the model's source has changed since.

    Raises:
        Refusal: Latent sites or columns differ, or as ``fitting`` (one line naming the first difference).
    """
    wrong = f"the distilled set does not belong to {task.name}"
    if "sites" in distilled.provenance:
        ours, theirs = (
            {k: f"of shape {tuple(v)}" for k, v in s.items()} for s in (distilled.provenance["sites"], task.sites)
        )
        refuse_difference(ours, theirs, f"{wrong}: latent site", "the task")
    if odd := [name for name in distilled.data if name not in task.data]:
        raise Refusal(f"{wrong}: column {odd[0]!r} is absent in the task, which has {sorted(task.data)}; leave it out.")
    found = fitting(distilled, task)
    if distilled.provenance.get("model_hash") not in (None, task.model_hash):
        warnings.warn(
            f"the source of {task.name} has changed since this set was distilled; certify it or distill anew",
            UserWarning,
            stacklevel=4,
        )
    return found


def fitting(distilled: Distilled, task: Task) -> Distilled:
    """The set in the types of a task, its own or another, whose columns fit by name, shape and support.

    Columns that the task does not take are left out. Sets that the task's own model has not made are run through it
    once, each fractional outcome as the whole numbers beside it.

    Raises:
        Refusal: A column is missing, has another shape or values that the task's type or support excludes.
    """
    wrong = f"the distilled set does not fit {task.name}"
    distilled = _in_codes(_of_task(distilled, task), task, wrong)
    if any(name in task.data and task.data[name].is_floating_point() for name in distilled.soft):
        rows, weight = distilled.hard()
        distilled = replace(distilled, data=rows, weight=weight, soft={})
    data: Columns = {}
    for name, theirs in task.data.items():
        if name not in distilled.data:
            raise Refusal(
                f"{wrong}: it lacks column {name!r}, and has {sorted(distilled.data)}; rename or add the column."
            )
        ours = distilled.data[name]
        shape = tuple(ours.shape[2:] if name in distilled.soft else ours.shape[1:])
        if shape != theirs.shape[1:]:
            raise Refusal(
                f"{wrong}: column {name!r} has shape {shape} a row, but {tuple(theirs.shape[1:])} in the task; give it "
                "the task's shape."
            )
        data[name] = ours if name in distilled.soft else ours.to(theirs.dtype)
        if data[name].dtype != ours.dtype and bool((odd := ours != data[name]).any()):
            raise Refusal(
                f"{wrong}: column {name!r} holds whole numbers in the task, but the set has {float(ours[odd][0]):g}; "
                "round it."
            )
    soft = {name: classes for name, classes in distilled.soft.items() if name in data}
    found = replace(distilled, data=data, soft=soft)
    if distilled.provenance.get("model_hash") != task.model_hash:
        rows, owner, _ = pieces(found.hard()[0], task.discrete)
        try:
            supported(task.program, rows, lambda at: int(owner[at]))
        except Refusal as error:
            raise Refusal(f"{wrong}: {error}") from error
    return found


def _of_task(distilled: Distilled, task: Task) -> Distilled:
    """Only the columns that the task takes, if any are left."""
    kept = {name: column for name, column in distilled.data.items() if name in task.data}
    if not kept:
        return distilled
    soft = {name: classes for name, classes in distilled.soft.items() if name in kept}
    labels = {name: some for name, some in distilled.labels.items() if name in kept}
    return replace(distilled, data=kept, soft=soft, labels=labels)


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
