"""A problem as mathematics: inputs, parameters, fields, an equation that is zero, and conditions.

An equation is a function of ``s`` and ``p``. ``s`` holds inputs, parameters, fields and their derivatives by name, one
number a point: ``s.t``, ``s.alpha``, ``s.u``, ``s.u_tt``, ``s.u_xt``. ``p`` holds constants, known or not, and unknown
functions: ``p.c``, ``p.q``, ``p.q_x``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from bayesdd.numerics import arguments
from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.pinn import checks
from bayesdd.pinn.fixed import check_contradictions
from bayesdd.pinn.names import Asked, Names, State

Equation = Callable[[Any, Any], Any]
TRIED = 6  # points at which an equation is tried: even, so that halves can be compared with the whole


class Periodic:
    """The value of a field that is the same on both sides of a pair: ``at(x=(0.0, 1.0), u=periodic)``."""

    def __repr__(self) -> str:
        return "pinn.periodic"


periodic = Periodic()


@dataclass(frozen=True)
class Function:
    """An unknown function of some inputs and parameters, with a network of its own. See :func:`function`."""

    inputs: tuple[str, ...]
    mean: float
    sd: float


def function(*inputs: str, mean: float = 0.0, sd: float = 1.0) -> Function:
    """An unknown function in an equation, such as a source or a coefficient.

    Args:
        inputs: Names of the inputs and parameters that it depends on.
        mean: Its mean a priori, in its own units.
        sd: Its standard deviation a priori.

    Example:
        >>> pinn.function("x")
        Function(inputs=('x',), mean=0.0, sd=1.0)
    """
    if not checks.is_number(mean):
        raise WrongType(f"pinn.function: mean= must be a number, got {mean!r}.")
    return Function(inputs, float(mean), arguments.positive(sd, "pinn.function: sd="))


@dataclass(frozen=True)
class Condition:
    """What holds at some place, as it was written. See :func:`at`."""

    named: Mapping[str, Any]

    def __repr__(self) -> str:
        said = (f"{name}={'...' if callable(value) else repr(value)}" for name, value in self.named.items())
        return f"pinn.at({', '.join(said)})"


def at(**named: Any) -> Condition:
    """A condition: where it holds, by inputs, and what holds there, by fields or their derivatives.

    Args:
        named: An input is a number, or a pair of numbers for both sides; inputs and parameters that are not named run
            over their ranges. A field, or a derivative such as ``u_t``, is a number, a function of ``s`` and ``p``
            (which may use other fields: a Robin condition is ``u_x=lambda s, p: p.h * (s.u - 20.0)``), or
            ``pinn.periodic`` where the two sides of a pair are equal.

    Example:
        >>> pinn.at(t=0.0, u=lambda s, p: s.alpha, u_t=0.0)
        pinn.at(t=0.0, u=..., u_t=0.0)
        >>> pinn.at(x=(0.0, 1.0), u=pinn.periodic, u_x=pinn.periodic)
        pinn.at(x=(0.0, 1.0), u=pinn.periodic, u_x=pinn.periodic)
    """
    return Condition(named)


@dataclass(frozen=True)
class Problem:
    """A differential equation, or a system of them, with its conditions.

    Args:
        inputs: Space and time: name -> range.
        parameters: What conditions or the equation depend on from case to case: name -> range.
        outputs: Names of the fields; as a mapping name -> typical range, where data and conditions do not show it.
        equation: ``(s, p)`` -> what is zero, one number a point; a tuple of those for a system.
        conditions: Made by :func:`at`.
        constants: Known numbers of ``p``.
        unknown: What is inferred: name -> ``(mean, sd)`` of a normal prior, or :func:`function`.
        exact: A reference solution, if there is one: ``s`` (inputs and parameters alone) -> values ``(N,)``, for a
            system a tuple in the order of ``outputs``.

    Raises:
        Refusal: Names, ranges, conditions or the equation do not fit; the line says which.

    Example:
        >>> decay = pinn.Problem(
        ...     inputs={"t": (0.0, 2.0)}, parameters={"start": (0.5, 2.0)}, outputs=("u",),
        ...     equation=lambda s, p: s.u_t + p.rate * s.u,
        ...     conditions=[pinn.at(t=0.0, u=lambda s, p: s.start)],
        ...     unknown={"rate": (1.0, 0.5)},
        ... )
        >>> decay.order
        1
    """

    inputs: Mapping[str, tuple[float, float]]
    outputs: Sequence[str] | Mapping[str, tuple[float, float]]
    equation: Equation = field(repr=False)
    conditions: Sequence[Condition] = ()
    parameters: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    unknown: Mapping[str, tuple[float, float] | Function] = field(default_factory=dict)
    exact: Callable[[Any], Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("outputs", (self.outputs,) if isinstance(self.outputs, str) else self.outputs)
        put("conditions", (self.conditions,) if isinstance(self.conditions, Condition) else self.conditions)
        groups = {name: getattr(self, name) for name in ("inputs", "parameters", "outputs", "constants", "unknown")}
        checks.types(groups)
        if strange := [one for one in self.conditions if not isinstance(one, Condition)]:
            raise WrongType(f"Problem: conditions= needs those that pinn.at(...) makes, got {strange[0]!r:.60}.")
        put("conditions", tuple(self.conditions))
        checks.distinct(groups, self.names)
        for what, ranges in (("inputs", self.inputs), ("parameters", self.parameters)):
            for name, given in ranges.items():
                checks.a_range(f"{what}={{{name!r}: ...}}", given)
        for name, given in dict(self.outputs).items() if isinstance(self.outputs, Mapping) else ():
            checks.a_range(f"outputs={{{name!r}: ...}}", given)
        for name, prior in self.unknown.items():
            if isinstance(prior, Function):
                checks.a_function(name, prior.inputs, prior.sd, self.ranges)
            else:
                checks.a_prior(name, prior)
        for what, function in (
            ("equation= needs a function of s and p", self.equation),
            ("exact= one of s", self.exact),
        ):
            if not callable(function) and (function is not None or function is self.equation):
                raise WrongType(f"Problem: {what}, got {type(function).__name__}.")
        _check_residuals(self)
        for condition in self.conditions:
            _check_condition(self, condition)
        check_contradictions(self)
        used = self.asked.constants | {name for c in self.conditions for name in asked_by(self, c).constants}
        if idle := [name for name in self.unknown if name not in used]:
            raise Refusal(
                f"Problem: the unknown {idle[0]!r} stands in no equation and no condition, so that nothing can "
                f"identify it: use p.{idle[0]} or drop it."
            )

    @cached_property
    def names(self) -> Names:
        """Names of inputs, parameters, fields and unknown functions, and how derivatives are written."""
        functions = {name: given.inputs for name, given in self.unknown.items() if isinstance(given, Function)}
        return Names(
            (*self.inputs, *self.parameters),
            tuple(self.outputs),
            functions,
            tuple(self.constants),
            tuple(name for name in self.unknown if name not in functions),
        )

    @cached_property
    def asked(self) -> Asked:
        """What the equation uses."""
        return asked_by(self, self.equation)

    @property
    def evolves(self) -> str | None:
        """The input in which the solution evolves: conditions stand at its low end and none at its high end."""
        found = None
        for name, (low, high) in self.inputs.items():
            places = [self.split(condition)[0].get(name) for condition in self.conditions]
            if low in places and high not in places and not any(isinstance(place, tuple | list) for place in places):
                found = name
        return found

    @cached_property
    def equations(self) -> int:
        """How many numbers the equation gives at a point."""
        found = _tried(self, self.equation, Asked(self.names), "the equation")
        return len(residuals_of(found, TRIED, "the equation"))

    @property
    def order(self) -> int:
        """The equation's order: that of its highest derivative."""
        return max((sum(index) for index in self.asked.fields), default=0)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Range of every input and parameter."""
        return {name: (float(low), float(high)) for name, (low, high) in {**self.inputs, **self.parameters}.items()}

    def split(self, condition: Condition) -> tuple[dict[str, Any], dict[str, Any]]:
        """Where a condition holds, and what holds there."""
        where = {name: value for name, value in condition.named.items() if name in self.ranges}
        return where, {name: value for name, value in condition.named.items() if name not in where}

    def reference(self, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The reference solution at points: field -> ``(N,)``.

        Raises:
            Refusal: The problem has none, or it is not one finite number a point.
        """
        if self.exact is None:
            raise Refusal("Problem has no reference solution: give one by exact=.")
        try:
            found = self.exact(State(dict(points), lambda name: _no_field(name)))
            found = found if isinstance(found, tuple | list) else (found,)
            values = [torch.as_tensor(value, dtype=torch.float64) for value in found]
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(f"Problem: exact= fails: {type(error).__name__}: {_in_one_line(error)}") from error
        count = len(next(iter(points.values())))
        if len(values) != len(self.names.outputs) or any(value.shape != (count,) for value in values):
            raise Refusal(
                f"Problem: exact= must give {len(self.names.outputs)} arrays of shape ({count},), got shapes "
                f"{[tuple(value.shape) for value in values]}."
            )
        if not all(bool(value.isfinite().all()) for value in values):
            raise Refusal("Problem: exact= is not finite at some points: its solver has failed there.")
        return dict(zip(self.names.outputs, values, strict=True))


def asked_by(problem: Problem, asker: Equation | Condition) -> Asked:
    """What an equation or a condition uses: fields and derivatives, constants and functions."""
    asked = Asked(problem.names)
    if isinstance(asker, Condition):
        for name, value in problem.split(asker)[1].items():
            asked.field(name)
            if callable(value):
                _tried(problem, value, asked, f"the value of {name!r} in {asker}")
    else:
        _tried(problem, asker, asked, "the equation")
    return asked


def residuals_of(found: Any, count: int, who: str) -> list[Tensor]:
    """What an equation gave, one tensor ``(N,)`` an equation.

    Raises:
        Refusal: It is of another shape.
    """
    parts = list(found) if isinstance(found, tuple | list) else [found]
    for at, part in enumerate(parts):
        if not isinstance(part, Tensor) or part.shape != (count,) or part.dtype != torch.float64:
            came = type(part).__name__
            if isinstance(part, Tensor):
                came = str(tuple(part.shape) if part.shape != (count,) else part.dtype)
            which = "" if len(parts) == 1 else f" in place {at}"
            raise Refusal(
                f"Problem: {who} must give one number a point, a float64 tensor of shape ({count},) at {count} points, "
                f"or a tuple of those for a system; got {came}{which}."
            )
    if not parts:
        raise Refusal(f"Problem: {who} gives nothing: return what is zero.")
    return parts


def _tried(problem: Problem, function: Equation, asked: Asked, who: str, count: int = TRIED, keep: int = TRIED) -> Any:
    """Calls a function of s and p at made-up points, the same whenever it is called; ``asked`` notes what it reads."""
    generator = torch.Generator().manual_seed(0)
    places = {
        name: low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)[:keep]
        for name, (low, high) in problem.ranges.items()
    }
    made: dict[str, Tensor] = {}

    def number(name: str) -> Tensor:
        own = torch.Generator().manual_seed(sum(map(ord, name)))
        value = 0.5 + torch.rand(count, generator=own, dtype=torch.float64)[:keep]
        return made.setdefault(name, value.requires_grad_(True))

    def read_field(name: str) -> Tensor:
        asked.field(name)
        return number(name)

    def read_constant(name: str) -> Tensor:
        asked.constant(name)
        if name in problem.constants:
            return torch.tensor(float(problem.constants[name]), dtype=torch.float64)
        return number(name)

    try:
        found = function(State(places, read_field), State({}, read_constant))
    except Refusal:
        raise
    except Exception as error:
        said = _in_one_line(error)
        raise Refusal(f"Problem: {who} fails at made-up points: {type(error).__name__}: {said}") from error
    _check_slopes(found, made, who)
    return found


def _check_slopes(found: Any, made: Mapping[str, Tensor], who: str) -> None:
    """Whether what a function reads can be followed by its slope."""
    parts = [part for part in (found if isinstance(found, tuple | list) else (found,)) if isinstance(part, Tensor)]
    if any(not part.is_floating_point() for part in parts):
        return  # their type is refused
    total = sum(part.sum() for part in parts)
    slopes: Sequence[Tensor | None] = [None] * len(made)
    if isinstance(total, Tensor) and total.requires_grad and made:
        slopes = torch.autograd.grad(total, list(made.values()), allow_unused=True)
    if parts and (lost := [name for name, slope in zip(made, slopes, strict=True) if slope is None]):
        raise Refusal(
            f"Problem: {who} reads {lost[0]!r}, but nothing that it returns has a slope in it: use it, by functions of "
            "torch alone, without detach(), comparisons or rounding."
        )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _no_field(name: str) -> Tensor:
    raise Refusal(f"Problem: exact= asks for s.{name}, but a reference knows inputs and parameters only.")


def _check_residuals(problem: Problem) -> None:
    asked = Asked(problem.names)
    whole = residuals_of(_tried(problem, problem.equation, asked, "the equation"), TRIED, "the equation")
    half = residuals_of(_tried(problem, problem.equation, asked, "the equation", keep=3), 3, "the equation")
    for one, other in zip(whole, half, strict=True):
        if not torch.allclose(one[:3], other, rtol=1e-9, atol=1e-12, equal_nan=True):
            raise Refusal(
                "Problem: the equation at a point depends on the other points: use no sums or means over them."
            )
    if not asked.fields:
        raise Refusal(f"Problem: the equation uses none of the outputs {list(problem.outputs)}.")


def _check_condition(problem: Problem, condition: Condition) -> None:
    where, what = problem.split(condition)
    if not what:
        raise Refusal(f"Problem: {condition} fixes no field: name one of {list(problem.outputs)}, such as u=0.0.")
    for name, place in where.items():
        low, high = problem.ranges[name]
        sides = checks.numbers(place) if isinstance(place, tuple | list) else None
        if sides is not None and sides[0] == sides[1]:
            raise Refusal(f"Problem: {condition}: both sides of {name!r} are {sides[0]:g}: give it once, as a number.")
        for side in sides or (place,):
            if not checks.is_number(side) or not low <= side <= high:
                raise Refusal(
                    f"Problem: {condition} lies outside the domain: {name!r} runs from {low:g} to {high:g}, got "
                    f"{side!r}."
                )
    pairs = [name for name, place in where.items() if isinstance(place, tuple | list)]
    for name, value in what.items():
        problem.names.field(name)
        if value is periodic:
            if len(pairs) != 1:
                raise Refusal(f"Problem: {condition}: a periodic field needs one pair of sides, such as x=(0.0, 1.0).")
        elif callable(value):
            asked = Asked(problem.names)
            found = _tried(problem, value, asked, f"the value of {name!r} in {condition}")
            itself = asked.by_name == {problem.names.field(name)[0]: {problem.names.field(name)[1]}}
            if itself and torch.equal(torch.as_tensor(found), _tried(problem, _of(name), asked, "it")):
                raise Refusal(f"Problem: {condition} says that {name!r} is itself: give what it is.")
            if not asked.by_name and not asked.constants and not bool(torch.as_tensor(found).isfinite().all()):
                raise Refusal(f"Problem: the value of {name!r} in {condition} is not finite in the domain.")
            if not isinstance(found, Tensor | Real) or (
                isinstance(found, Tensor) and (found.shape not in ((), (TRIED,)) or found.is_complex())
            ):
                came = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise Refusal(
                    f"Problem: the value of {name!r} in {condition} must be one number a point, shape ({TRIED},), got "
                    f"{came}."
                )
        elif not checks.is_number(value):
            raise Refusal(
                f"Problem: {condition}: {name!r} needs a finite number, a function of s and p, or pinn.periodic, got "
                f"{value!r:.60}."
            )


def _of(name: str) -> Equation:
    return lambda s, _: getattr(s, name)
