"""Array columns in a table: `x[0]`, `x[1]`, or `x[0,0]`, `x[0,1]`, ... and back."""

import itertools
import math
import re

import torch
from torch import Tensor

_ELEMENT = re.compile(r"(.+?)\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]")


def assemble(columns: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Array columns out of their elements, in the place of the first element."""
    groups: dict[str, dict[tuple[int, ...], Tensor]] = {}
    for label, column in columns.items():
        match = _ELEMENT.fullmatch(label)
        name, index = (match[1], tuple(int(i) for i in match[2].split(","))) if match else (label, ())
        group = groups.setdefault(name, {})
        if index in group or any(len(other) != len(index) for other in group):
            raise ValueError(f"{where}: column {label!r} clashes with {element(name, next(iter(group)))!r}; rename one")
        group[index] = column
    return {name: _stack(group, name, where) for name, group in groups.items()}


def _stack(group: dict[tuple[int, ...], Tensor], name: str, where: str) -> Tensor:
    shape = [max(axis) + 1 for axis in zip(*group, strict=True)]
    if len(group) != math.prod(shape):
        gap = next(index for index in itertools.product(*map(range, shape)) if index not in group)
        raise ValueError(
            f"{where}: the elements of column {name!r} do not fill an array: {element(name, gap)!r} is missing"
        )
    parts = [group[index] for index in sorted(group)]
    dtype = torch.float64 if any(part.is_floating_point() for part in parts) else torch.int64
    return torch.stack([part.to(dtype) for part in parts], dim=1).reshape(len(parts[0]), *shape)


def element(name: str, index: tuple[int, ...]) -> str:
    """How a table spells an element."""
    return f"{name}[{','.join(map(str, index))}]" if index else name
