"""A hash of a model's source and of what is bound to it, the same in every process."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bayesdd.data.columns import fingerprint


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
    """A value as text; ``repr`` shortens large arrays and shows a function's address, another in every process."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_spelled, value))}]"
    if isinstance(value, dict):
        return _spelled(sorted(value.items()))
    if isinstance(value, torch.Tensor | np.ndarray):
        return fingerprint({"": torch.as_tensor(value)})
    if callable(value):
        return _source(unwrapped(value))
    return repr(value)
