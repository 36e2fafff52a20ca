"""How fields, derivatives, constants and unknown functions are written: ``u_xt`` is the derivative in x and t."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from bayesdd.networks.jets import Index
from bayesdd.numerics.refusal import Refusal


class State:
    """What an equation reads by name: known values, and others by a function of their name."""

    def __init__(self, known: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> None:
        self.__dict__.update(known)
        self.__dict__["_read"] = read

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__dict__["_read"](name)


@dataclass(frozen=True)
class Names:
    """All names of a problem.

    Attributes:
        inputs: Inputs and parameters, in the order in which networks read them.
        outputs: Fields.
        functions: Unknown functions and what they depend on.
        constants: Known constants.
        unknown: Unknown constants.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    functions: Mapping[str, tuple[str, ...]]
    constants: tuple[str, ...]
    unknown: tuple[str, ...]

    def field(self, name: str) -> tuple[str, Index]:
        """A field and how often it is differentiated by each input.

        Raises:
            Refusal: There is no such field, or no such derivative.
        """
        found = _derivative(name, {output: self.inputs for output in self.outputs}, self.inputs)
        if found is None:
            raise Refusal(
                f"s has no {name!r}: the fields are {list(self.outputs)}, their derivatives are written as "
                f"{self.outputs[0]}_{self.inputs[0] * 2 if len(self.inputs[0]) == 1 else self.inputs[0]}, by "
                f"{list(self.inputs)}."
            )
        return found

    def is_derivative(self, name: str) -> bool:
        """Whether a name reads as a field or a derivative of one."""
        return _derivative(name, {output: self.inputs for output in self.outputs}, self.inputs) is not None

    def constant(self, name: str) -> tuple[str, Index]:
        """A constant, or an unknown function and how often it is differentiated by each input.

        Raises:
            Refusal: There is no such name.
        """
        if name in self.constants or name in self.unknown:
            return name, (0,) * len(self.inputs)
        found = _derivative(name, self.functions, self.inputs)
        if found is None:
            there = [*self.constants, *self.unknown, *self.functions]
            raise Refusal(f"p has no {name!r}, only {there}: give it by constants= or unknown=.")
        return found


@dataclass
class Asked:
    """What an equation has asked for; indices by field or function."""

    names: Names
    by_name: dict[str, set[Index]] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)

    def field(self, name: str) -> None:
        """Notes a field or a derivative of one."""
        output, index = self.names.field(name)
        self.by_name.setdefault(output, set()).add(index)

    def constant(self, name: str) -> None:
        """Notes a constant or a function."""
        base, index = self.names.constant(name)
        self.constants.add(base)
        if base in self.names.functions:
            self.by_name.setdefault(base, set()).add(index)

    @property
    def fields(self) -> set[Index]:
        """Indices of all fields: one network holds them."""
        return set().union(*(self.by_name.get(output, set()) for output in self.names.outputs))


def _derivative(name: str, there: Mapping[str, tuple[str, ...]], inputs: tuple[str, ...]) -> tuple[str, Index] | None:
    """The base of a name and its index; None if there is no such base, or it does not depend on an input named."""
    if name in there:
        return name, (0,) * len(inputs)
    for base in sorted(there, key=len, reverse=True):
        if name.startswith(f"{base}_"):
            rest, counts = name[len(base) + 1 :], dict.fromkeys(inputs, 0)
            while rest:
                # The longest name first: of inputs 't' and 'theta', u_theta is the derivative in theta.
                match = next((i for i in sorted(there[base], key=len, reverse=True) if rest.startswith(i)), None)
                if match is None:
                    break
                counts[match] += 1
                rest = rest[len(match) :].removeprefix("_")
            else:
                return (base, tuple(counts.values())) if sum(counts.values()) else None
    return None
