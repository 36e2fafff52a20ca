"""Where a distilled set came from: what a file needs so that its rows can be trusted later."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bayesdd.columns import fingerprint

if TYPE_CHECKING:
    from bayesdd.task import Task

PACKAGES = ("bayesdd", "torch", "pyro-ppl")


def provenance_of(student: Task, tasks: Sequence[Task], seed: int, size: int, objective: str) -> dict[str, Any]:
    """JSON-able provenance; no times and no paths, so that equal runs write equal files."""
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
        "versions": _versions(),
    }


def identity(tasks: Sequence[Task]) -> str:
    """SHA-256 of models, rows and versions: whether sums over rows made earlier may stand for these."""
    return hashlib.sha256(repr(parts_of(tasks)).encode()).hexdigest()


def parts_of(tasks: Sequence[Task]) -> dict[str, Any]:
    """What two runs must have in common to come to the same sums."""
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


def unwrapped(model: Callable[..., Any]) -> Callable[..., Any]:
    """The function or module under ``functools.partial``."""
    while isinstance(model, functools.partial):
        model = model.func
    return model


def model_hash(model: Callable[..., Any]) -> str:
    """SHA-256 of a model's source and of what ``functools.partial`` bound to it, the same in every process."""
    bound = [*model.args, *sorted(model.keywords.items())] if isinstance(model, functools.partial) else []
    return hashlib.sha256("\n".join([_source(unwrapped(model)), *map(_spelled, bound)]).encode()).hexdigest()


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):  # typed at a prompt, or built in
        code = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_names)) if code else type(function).__qualname__


def _spelled(value: Any) -> str:
    """A value in words; ``repr`` shortens large arrays and gives functions by their address, new in every process."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_spelled, value))}]"
    if isinstance(value, dict):
        return _spelled(sorted(value.items()))
    if isinstance(value, torch.Tensor | np.ndarray):
        return fingerprint({"": torch.as_tensor(value)})
    if callable(value):
        return _source(unwrapped(value))
    return repr(value)
