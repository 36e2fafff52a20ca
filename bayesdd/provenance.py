"""Where a distilled set came from: what a file needs so that its rows can be trusted later."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from bayesdd.columns import fingerprint
from bayesdd.task import Task

PACKAGES = ("bayesdd", "torch", "pyro-ppl")


def provenance_of(student: Task, tasks: Sequence[Task], seed: int, size: int, objective: str) -> dict[str, Any]:
    """JSON-able provenance; no times and no paths, so that equal runs write equal files."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "task": student.name,
        "target": [task.name for task in tasks],
        "model_hash": student.model_hash,
        "sites": {name: list(shape) for name, shape in student.sites.items()},
        "fingerprint": [fingerprint(task.data) for task in tasks],
        "seed": seed,
        "rows": sum(task.size for task in tasks),
        "size": size,
        "objective": objective,
        "versions": versions,
    }
