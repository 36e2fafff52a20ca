"""Constants that a model carries with it, as far as they can be seen from outside."""

from __future__ import annotations

import functools
import inspect as introspection
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bayesdd.pyro_model import Model


def float32_constants(model: Model) -> list[str]:
    """Names of float32 tensors and networks that a model reaches by closure, globals, defaults or ``partial``."""
    reach: dict[str, Any] = {}
    while isinstance(model, functools.partial):
        reach.update({f"argument {i}": value for i, value in enumerate(model.args)}, **model.keywords)
        model = model.func
    if code := getattr(model, "__code__", None):
        cells = getattr(model, "__closure__", None) or ()
        reach.update({name: cell.cell_contents for name, cell in zip(code.co_freevars, cells, strict=False)})
        space = getattr(model, "__globals__", {})
        reach.update({name: space[name] for name in code.co_names if name in space})
        for parameter in introspection.signature(model).parameters.values():
            reach.setdefault(parameter.name, parameter.default)
    elif isinstance(model, torch.nn.Module):
        reach["self"] = model
    return [repr(name) for name, value in reach.items() if any(t.dtype == torch.float32 for t in _tensors(value))]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, torch.nn.Module):
        yield from (*value.parameters(), *value.buffers())
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
