"""What conditions fix without a solution, and where two of them fix one field to different values.

Where the place of one condition lies within that of another nothing satisfies both, and the problem is refused. Where
places merely meet, as an initial profile and a side in their corner, a solution may jump, but a network cannot.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from bayesdd.numerics.refusal import Refusal
from bayesdd.pinn.names import State

APART = 1e-3  # of the larger values: a profile that has decayed at a side is meant to agree with it
TRIED = 64  # points at which two conditions are compared


def fixed_values(problem: Any, value: Any, points: Mapping[str, Tensor]) -> Tensor | None:
    """A condition's value at points ``(N,)``; None where it needs a field or something unknown, or is periodic."""
    constants = {name: torch.tensor(float(number), dtype=torch.float64) for name, number in problem.constants.items()}

    def nothing(_: str) -> Tensor:
        raise LookupError

    if not callable(value) and not isinstance(value, Real):
        return None
    try:
        found = value(State(points, nothing), State(constants, nothing)) if callable(value) else float(value)
    except LookupError:
        return None
    return torch.as_tensor(found, dtype=torch.float64).expand(len(next(iter(points.values()))))


def check_contradictions(problem: Any) -> None:
    """Refuses conditions that fix a field, or a derivative of one, to different values at the same place.

    Raises:
        Refusal: There are such conditions.
    """
    for one, other, name, first, second, same in _clashes(problem):
        if same:
            raise Refusal(
                f"Problem: {one} and {other} fix {name!r} to different values at the same place, such as {first:.3g} "
                f"and {second:.3g}: drop one of them."
            )


def jumps(problem: Any) -> list[str]:
    """Conditions that fix different values where they meet, one line each."""
    return [
        f"{one} and {other} fix {name!r} to {first:.3g} and {second:.3g} where they meet: networks have no jumps, so "
        "that predictions near it are too smooth and too sure"
        for one, other, name, first, second, same in _clashes(problem)
        if not same
    ]


def _clashes(problem: Any) -> Iterator[tuple[Any, Any, str, float, float, bool]]:
    """Two conditions, what both fix, to which values, and whether one's place lies within the other's."""
    fixed = [
        (condition, place, name, value)
        for condition in problem.conditions
        for place in _places(problem, condition)
        for name, value in problem.split(condition)[1].items()
    ]
    for (one, here, name, value), (other, there, also, second) in itertools.combinations(fixed, 2):
        shared = here.keys() & there.keys()
        if problem.names.field(name) != problem.names.field(also) or any(here[key] != there[key] for key in shared):
            continue
        meet = _points(problem, here | there)
        found = [fixed_values(problem, of, at) for of in (value, second) for at in (meet, _points(problem, {}))]
        known = [values for values in found if values is not None and bool(values.isfinite().all())]
        if len(known) < len(found):
            continue
        first, _, last, _ = known
        apart = (first - last).abs()
        if float(apart.max()) > APART * max(float(values.abs().max()) for values in known):
            worst = int(apart.argmax())
            yield one, other, name, float(first[worst]), float(last[worst]), len(shared) == min(len(here), len(there))


def _places(problem: Any, condition: Any) -> list[dict[str, float]]:
    """Where a condition holds; both sides of a pair by themselves."""
    where = problem.split(condition)[0]
    sides = [[(name, float(side)) for side in _sides(place)] for name, place in where.items()]
    return [dict(place) for place in itertools.product(*sides)]


def _sides(place: Any) -> tuple[Any, ...]:
    return tuple(place) if isinstance(place, tuple | list) else (place,)


def _points(problem: Any, where: Mapping[str, float]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, (low, high) in problem.ranges.items():
        share = torch.rand(TRIED, generator=generator, dtype=torch.float64)
        found[name] = torch.full_like(share, where[name]) if name in where else low + (high - low) * share
    return found
