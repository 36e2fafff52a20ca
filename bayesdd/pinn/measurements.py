"""Columns that a user gives: points in the domain, and measurements of some fields at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bayesdd.data.columns import Columns
from bayesdd.data.rows import read_whole
from bayesdd.numerics.refusal import Refusal
from bayesdd.pinn.problem import Problem


def points_of(problem: Problem, given: Any, who: str) -> Columns:
    """Inputs and parameters as float64 columns ``(N,)``, finite and inside their ranges.

    Raises:
        Refusal: A column is missing, unknown, of the wrong shape, not finite or outside its range.
        WrongType: Columns hold no numbers, or have no names.
    """
    return _inside(problem, _read(problem, given, who, ()), who)


def measured(problem: Problem, given: Any, who: str = "pinn.fit") -> dict[str, tuple[Columns, Tensor]]:
    """Measurements by field: points and values of the rows where it is not NaN.

    Raises:
        Refusal: As :func:`points_of`; there is no field among the columns, or nothing was measured of one.
        WrongType: As :func:`points_of`.
    """
    if given is None:
        return {}
    outputs = problem.names.outputs
    found = _read(problem, given, who, outputs)
    there = [name for name in outputs if name in found]
    if not there:
        raise Refusal(f"{who}: data has none of the outputs {list(outputs)}: leave it out where nothing is measured.")
    points = _inside(problem, {name: found[name] for name in problem.ranges}, who)
    kept = {name: ~found[name].isnan() for name in there}
    return {
        name: ({input: some[kept[name]] for input, some in points.items()}, found[name][kept[name]]) for name in there
    }


def _read(problem: Problem, given: Any, who: str, also: Sequence[str]) -> Columns:
    """Single columns ``(N,)`` of whatever a Task takes; ``also`` may be missing."""
    names = list(problem.ranges)

    def chosen(there: list[str]) -> list[str]:
        if missing := [name for name in names if name not in there]:
            raise Refusal(f"data lacks the column {missing[0]!r}: it needs {names}, got {there}.")
        if strange := [name for name in there if name not in names and name not in also]:
            raise Refusal(f"data has a column {strange[0]!r}, none of {[*names, *also]}: rename it or drop it.")
        return there

    try:
        found = read_whole(given, choose=chosen)
    except Refusal as error:
        raise type(error)(f"{who}: {error}") from error
    for name, values in found.items():
        if values.dim() != 1:
            raise Refusal(f"{who}: column {name!r} needs the shape (N,), got {tuple(values.shape)}.")
    return {name: values.double() for name, values in found.items()}


def _inside(problem: Problem, points: Columns, who: str) -> Columns:
    """The same points, refused where one is missing or lies outside its range."""
    for name, values in points.items():
        low, high = problem.ranges[name]
        outside = ~((values >= low - 1e-9 * (high - low)) & (values <= high + 1e-9 * (high - low)))
        if bool(outside.any()):
            row = int(outside.nonzero()[0, 0])
            raise Refusal(
                f"{who}: {name!r} = {float(values[row]):.6g} in row {row} lies outside its range [{low:g}, {high:g}]: "
                "drop the row or widen the range."
            )
    return points
