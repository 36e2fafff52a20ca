"""What a network must satisfy, as points with residuals: the equation, conditions, measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from bayesdd.networks.jets import Index
from bayesdd.pinn.names import Asked
from bayesdd.pinn.problem import Condition, Problem, asked_by, periodic, residuals_of

FEW, PER_AXIS = 64, 64  # points of a condition along its first free input, and more along each further one
Columns = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Term:
    """Residuals at a set of N points.

    Attributes:
        names: What each of the E residuals is called in messages and tables.
        function: ``(s, p)`` -> residuals, a list of ``(N,)``.
        points: Inputs and parameters, ``(N,)`` each.
        asked: Indices of derivatives: of the fields' network under the empty name, and of every unknown function.
        observed: What the residuals are compared with, ``(N, E)``; None: zero.
        twin: Where the other side of a periodic condition lies; residuals are then differences of the two sides.
        condition: Whether it is a condition.
        late: When a point is reached, of the span of the input in which the solution evolves, ``(N,)``; None: at once.
    """

    names: tuple[str, ...]
    function: Callable[[Any, Any], list[Tensor]]
    points: Columns
    asked: Mapping[str, tuple[Index, ...]]
    observed: Tensor | None = None
    twin: Mapping[str, float] | None = None
    condition: bool = False
    late: Tensor | None = None

    @property
    def count(self) -> int:
        """Number N of rows of each residual."""
        return len(next(iter(self.points.values())))

    @property
    def places(self) -> Columns:
        """The points, and behind them those of the other side where there is one."""
        if self.twin is None:
            return self.points
        other = {name: torch.full_like(self.points[name], place) for name, place in self.twin.items()}
        return {name: torch.cat([column, other.get(name, column)]) for name, column in self.points.items()}

    def to(self, device: torch.device) -> Term:
        """The same on a device."""
        points = {name: column.to(device) for name, column in self.points.items()}
        observed, late = (None if one is None else one.to(device) for one in (self.observed, self.late))
        return replace(self, points=points, observed=observed, late=late)


def equation_term(problem: Problem, points: Columns) -> Term:
    """The equation at points."""
    first = next(iter(problem.inputs))

    def function(s: Any, p: Any) -> list[Tensor]:
        return residuals_of(problem.equation(s, p), len(getattr(s, first)), "the equation")

    names = ("equation",) if problem.equations == 1 else tuple(f"equation {at + 1}" for at in range(problem.equations))
    late = None
    if problem.evolves is not None:
        low, high = problem.ranges[problem.evolves]
        late = (points[problem.evolves] - low) / (high - low)
    return Term(names, function, points, _asked(problem, problem.asked), late=late)


def condition_terms(problem: Problem, condition: Condition, seed: int, share: float = 1.0) -> list[Term]:
    """A condition at points of where it holds: a term for each side of a pair, or one for both if it is periodic.

    ``share`` multiplies the number of points.
    """
    where, what = problem.split(condition)
    pair = next((name for name, place in where.items() if isinstance(place, tuple | list)), None)
    free = {name: bounds for name, bounds in problem.ranges.items() if name not in where}
    count = max(1, round(share * (FEW + PER_AXIS * (len(free) - 1)))) if free else 1
    points, asked = sobol(free, count, seed), _asked(problem, asked_by(problem, condition))
    same = {name: value for name, value in what.items() if value is periodic}
    other = {name: value for name, value in what.items() if value is not periodic}
    sides = [where] if pair is None else [{**where, pair: side} for side in where[pair]]
    placed = [_placed(problem, points, side, count) for side in sides]
    terms = []
    if same and pair is not None:
        function = partial(_values, dict.fromkeys(same, 0.0))
        terms.append(
            Term(_named(condition, same), function, placed[0], asked, None, {pair: float(where[pair][1])}, True)
        )
    if other:
        terms += [
            Term(_named(condition, other), partial(_values, other), side, asked, condition=True) for side in placed
        ]
    return terms


def all_terms(problem: Problem, seen: Mapping[str, tuple[Columns, Tensor]], points: int, seed: int) -> list[Term]:
    """Measurements by field, the equation at so many points, and all conditions."""
    data = [field_term(problem, [name], places, values[:, None]) for name, (places, values) in seen.items()]
    conditions = [condition_terms(problem, condition, seed + at) for at, condition in enumerate(problem.conditions)]
    return [
        *data,
        equation_term(problem, sobol(problem.ranges, points, seed)),
        *(t for some in conditions for t in some),
    ]


def field_term(problem: Problem, names: Sequence[str], points: Columns, observed: Tensor | None = None) -> Term:
    """Fields, derivatives or unknown functions themselves at points, or minus what was observed there ``(N, E)``."""
    asked, functions = Asked(problem.names), problem.names.functions
    for name in names:
        (asked.constant if name in functions else asked.field)(name)

    def function(s: Any, p: Any) -> list[Tensor]:
        return [getattr(p if name in functions else s, name) for name in names]

    return Term(tuple(names), function, points, _asked(problem, asked), observed)


def sobol(ranges: Mapping[str, tuple[float, float]], count: int, seed: int) -> Columns:
    """Points of a scrambled Sobol sequence over ranges, ``(count,)`` each."""
    if not ranges:
        return {}
    unit = SobolEngine(len(ranges), scramble=True, seed=seed).draw(count, dtype=torch.float64)
    return {name: low + (high - low) * unit[:, at] for at, (name, (low, high)) in enumerate(ranges.items())}


def _named(condition: Condition, what: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{condition}: {name}" for name in what)


def _values(what: Mapping[str, Any], s: Any, p: Any) -> list[Tensor]:
    """Fields minus what they must be."""
    return [getattr(s, name) - (value(s, p) if callable(value) else float(value)) for name, value in what.items()]


def _placed(problem: Problem, points: Columns, where: Mapping[str, float], count: int) -> Columns:
    full = {name: torch.full((count,), float(place), dtype=torch.float64) for name, place in where.items()}
    return {name: (points | full)[name] for name in problem.ranges}


def _asked(problem: Problem, asked: Asked) -> dict[str, tuple[Index, ...]]:
    found = {name: tuple(sorted(indices)) for name, indices in asked.by_name.items() if name in problem.names.functions}
    return ({"": tuple(sorted(asked.fields))} if asked.fields else {}) | found
