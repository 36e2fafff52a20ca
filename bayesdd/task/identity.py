"""A hash of a model's source and of what is bound to it, the same in every process."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger

from bayesdd.data.columns import fingerprint

PLAIN = bool, int, float, str, list, tuple, dict, torch.Tensor  # what a handler's settings are spelled by


def unwrapped(model: Callable[..., Any]) -> Callable[..., Any]:
    """The function or module under ``functools.partial`` and Pyro's handlers, ``poutine.scale(model, 0.5)``."""
    while isinstance(model, functools.partial):
        handled = [value for value in model.args if isinstance(value, Messenger)]
        model = model.args[1] if handled else model.func
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
    if isinstance(value, Messenger):  # with its settings; private ones are numbers of this process
        settings = {name: held for name, held in vars(value).items() if isinstance(held, PLAIN) and name[0] != "_"}
        return f"{type(value).__qualname__}{_spelled(settings)}"
    if isinstance(value, functools.partial) and any(isinstance(one, Messenger) for one in value.args):
        return model_hash(value)
    if callable(value):
        return _source(unwrapped(value))
    return repr(value)
