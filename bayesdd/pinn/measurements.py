"""Columns that a user gives: points in the domain, and measurements of some fields at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.pinn.problem import Problem

Columns = dict[str, Tensor]


def points_of(problem: Problem, given: Any, who: str, also: Sequence[str] = ()) -> Columns:
    """Inputs and parameters as float64 columns ``(N,)``, finite and inside their ranges.

    ``also`` names further columns that may be there.

    Raises:
        Refusal: A column is missing, unknown, of the wrong shape, not finite or outside its range.
    """
    if not isinstance(given, Mapping) and not hasattr(given, "columns"):
        raise WrongType(
            f"{who} needs columns by name, such as {{{next(iter(problem.ranges))!r}: ...}}, got {given!r:.60}."
        )
    names, there = list(problem.ranges), [str(name) for name in given]
    if missing := [name for name in names if name not in there]:
        raise Refusal(f"{who} lacks the column {missing[0]!r}: it needs {names}, got {there}.")
    if strange := [name for name in there if name not in names and name not in also]:
        raise Refusal(f"{who} has a column {strange[0]!r}, which is none of {[*names, *also]}: rename it or drop it.")
    found = {name: column(given[name], f"{who}: column {name!r}") for name in names}
    count = len(found[names[0]])
    for name, values in found.items():
        low, high = problem.ranges[name]
        if len(values) != count:
            raise Refusal(f"{who}: column {name!r} has {len(values)} rows, but {names[0]!r} has {count}.")
        outside = ~((values >= low - 1e-9 * (high - low)) & (values <= high + 1e-9 * (high - low)))
        if bool(outside.any()):
            row = int(outside.nonzero()[0, 0])
            raise Refusal(
                f"{who}: {name!r} = {float(values[row]):.6g} in row {row} lies outside its range [{low:g}, {high:g}]: "
                "drop the row or widen the range."
            )
    return found


def column(given: Any, who: str) -> Tensor:
    """One float64 column ``(N,)``.

    Raises:
        Refusal: It is no column of numbers, or empty.
    """
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    if isinstance(given, np.ma.MaskedArray):
        given = np.ma.filled(given.astype(np.float64), np.nan)
    try:
        if np.iscomplexobj(given):
            raise TypeError
        values = torch.from_numpy(np.array(given, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise WrongType(f"{who} needs numbers, got {type(given).__name__}.") from error
    if values.dim() != 1 or not len(values):
        raise Refusal(f"{who} needs the shape (N,), got {tuple(values.shape)}.")
    return values


def measured(problem: Problem, given: Any, who: str = "pinn.fit: data") -> dict[str, tuple[Columns, Tensor]]:
    """Measurements by field: points and values of the rows where it is not NaN.

    Raises:
        Refusal: As :func:`points_of`; there is no field among the columns, or nothing was measured of one.
    """
    if given is None:
        return {}
    outputs = problem.names.outputs
    points = points_of(problem, given, who, outputs)
    count = len(next(iter(points.values())))
    there = [name for name in outputs if name in list(given)]
    if not there:
        raise Refusal(f"{who} has none of the outputs {list(outputs)}: leave it out where nothing is measured.")
    found = {}
    for name in there:
        values = column(given[name], f"{who}: column {name!r}")
        if len(values) != count:
            raise Refusal(f"{who}: column {name!r} has {len(values)} rows, but the points are {count}.")
        if bool(values.isinf().any()):
            raise Refusal(f"{who}: column {name!r} is infinite in some rows: NaN says that a value is missing.")
        kept = ~values.isnan()
        if not bool(kept.any()):
            raise Refusal(f"{who}: column {name!r} holds no value: drop it where the output was not measured.")
        found[name] = ({input: some[kept] for input, some in points.items()}, values[kept])
    return found
