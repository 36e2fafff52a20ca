"""What the edges of a dynamic Bayesian network say: a family for each variable and kind of slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

Edge = tuple[str, str]  # parent, child
Node = tuple[str, int]  # a variable and how many slices ago; static variables stand at 0
Entry = tuple[str, int]  # a variable and its slice; static variables stand at -1
Values = dict[str, Tensor]  # latent site -> value
Of = Callable[[Node], Tensor]  # a node -> its values


@dataclass(frozen=True)
class Family:
    """A variable given its parents, tied wherever it recurs.

    Attributes:
        variable: The child.
        site: Name of its latent site (coefficients, or the table of probabilities).
        parents: Its parents, in the order of the site's coefficients or axes.
    """

    variable: str
    site: str
    parents: tuple[Node, ...]

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the parents; one of the slice before is ``<variable>_before``."""
        return tuple(f"{name}_before" if lag else name for name, lag in self.parents)


class Structure(NamedTuple):
    """Families of a template, each group in an order in which parents precede children.

    Attributes:
        static: Families of the static variables.
        initial: Families of the first slice, which has no slice before it.
        transition: Families of all later slices.
    """

    static: tuple[Family, ...]
    initial: tuple[Family, ...]
    transition: tuple[Family, ...]

    @property
    def families(self) -> tuple[Family, ...]:
        """All families, in the order of their latent sites."""
        return self.static + self.initial + self.transition

    @property
    def order(self) -> tuple[str, ...]:
        """Variables of a slice, parents first."""
        return tuple(family.variable for family in self.transition)

    @property
    def static_order(self) -> tuple[str, ...]:
        """Static variables, parents first."""
        return tuple(family.variable for family in self.static)

    def ranges(self, slices: int) -> list[tuple[tuple[Family, ...], range]]:
        """Each group of families and the slices of their children, 0 for static ones."""
        return list(zip(self, (range(1), range(1), range(1, slices)), strict=True))

    def entries(self, slices: int) -> list[tuple[Entry, Family]]:
        """Every entry of a row of T slices and its family, parents first."""
        found = [((family.variable, -1), family) for family in self.static]
        for t in range(slices):
            found += [((family.variable, t), family) for family in (self.transition if t else self.initial)]
        return found
