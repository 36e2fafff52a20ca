"""What a problem must be before its equation is tried: names, ranges and priors, each refused in one line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from keyword import iskeyword
from numbers import Real
from typing import Any

import torch

from bayesdd.numerics.refusal import Refusal, WrongType
from bayesdd.pinn.names import Names


def types(groups: Mapping[str, Any]) -> None:
    """That names come as they should, under the argument that they were given by: values by name, outputs alone too.

    Raises:
        WrongType: They do not.
        Refusal: A constant is no number.
    """
    for what, given in groups.items():
        if what != "outputs" and not isinstance(given, Mapping):
            raise WrongType(f"Problem: {what}= needs values by name, such as {{'t': ...}}, got {given!r:.60}.")
    for name, value in groups["constants"].items():
        if not is_number(value):
            raise Refusal(f"Problem: constants={{{name!r}: ...}} needs a finite number, got {value!r:.60}.")
    if not isinstance(groups["outputs"], Mapping | Sequence):
        raise WrongType(f"Problem: outputs= needs names, such as ('u',), got {groups['outputs']!r:.60}.")


def distinct(groups: Mapping[str, Any], known: Names) -> None:
    """That every name can be written behind a dot and means one thing.

    Raises:
        Refusal: One cannot, two are equal, one reads as a derivative of an output, or no input or output is there.
    """
    if not groups["inputs"] or not groups["outputs"]:
        raise Refusal(
            "Problem needs at least one input and one output, such as inputs={'t': (0.0, 1.0)}, outputs=('u',)."
        )
    seen: dict[str, str] = {}
    for group, names in groups.items():
        for name in names:
            if not isinstance(name, str) or not name.isidentifier() or name.startswith("_") or iskeyword(name):
                raise Refusal(f"Problem: {group}= names {name!r}, which cannot stand behind a dot: use letters.")
            if name in seen:
                raise Refusal(f"Problem: {name!r} stands in {seen[name]}= and in {group}=: one name, one thing.")
            seen[name] = group
    for name, group in seen.items():
        if group not in ("outputs", "unknown") and known.is_derivative(name):
            raise Refusal(f"Problem: {name!r} in {group}= reads as a derivative of an output: rename one of them.")


def a_range(who: str, given: Any) -> None:
    """Refuses what is no range ``(low, high)``."""
    found = numbers(given)
    if found is None or not found[0] < found[1]:
        raise Refusal(f"Problem: {who} needs a range (low, high) of two numbers, got {given!r}.")


def a_prior(name: str, given: Any) -> None:
    """Refuses what is no ``(mean, sd)`` of an unknown."""
    found = numbers(given)
    if found is None or not found[1] > 0:
        raise Refusal(
            f"Problem: unknown={{{name!r}: ...}} needs (mean, sd) of a normal prior, or pinn.function(...), got "
            f"{given!r}."
        )


def a_function(name: str, inputs: Sequence[str], sd: float, known: Collection[str]) -> None:
    """Refuses an unknown function of other things than inputs and parameters."""
    if not inputs or (strange := [i for i in inputs if i not in known]):
        raise Refusal(
            f"Problem: the unknown function {name!r} must depend on some of {sorted(known)}, got "
            f"{list(inputs)}{'' if not inputs else f': {strange[0]!r} is none'}."
        )
    if not sd > 0:
        raise Refusal(f"Problem: the unknown function {name!r} needs a positive sd, got {sd:g}.")


def is_number(value: Any) -> bool:
    """Whether something is one finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < torch.inf


def numbers(given: Any) -> tuple[float, float] | None:
    """Two finite numbers; None where it is not those."""
    try:
        first, second = (float(number) for number in given)
    except (TypeError, ValueError):
        return None
    return (first, second) if abs(first) + abs(second) < torch.inf else None
