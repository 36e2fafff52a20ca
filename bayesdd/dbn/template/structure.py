"""What the edges of a dynamic Bayesian network say: a family for each variable and kind of slice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

Edge = tuple[str, str]  # parent, child
Lagged = tuple[str, str] | tuple[str, str, int]  # parent, child and, if it is above 1, the lag
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
        """Names of the parents; ``<variable>_before`` in the slice before, ``<variable>_before_2`` two before."""
        return tuple(name + (f"_before_{lag}" if lag > 1 else "_before" * lag) for name, lag in self.parents)

    @property
    def start(self) -> int:
        """The first slice in which a variable has all these parents, if it is of all later slices: 1 or more."""
        return max((1, *(lag for _, lag in self.parents)))


class Stretch(NamedTuple):
    """Families and the slices of their children: from ``start`` to before ``stop``, without one to the last."""

    families: tuple[Family, ...]
    start: int
    stop: int | None

    def slices(self, count: int) -> range:
        """Those among so many slices; those of static variables are 0."""
        return range(self.start, max(self.start, count if self.stop is None else min(self.stop, count)))


@dataclass(frozen=True)
class Structure:
    """Families of a template, each group in an order in which parents precede children.

    Attributes:
        static: Families of the static variables.
        initial: Families of the first slice, which has no slice before it.
        early: Families of the second slice, the third, ... of variables with longer lags than these have slices before.
        transition: Families of all later slices, each from the first slice on that has all its parents.
    """

    static: tuple[Family, ...]
    initial: tuple[Family, ...]
    early: tuple[tuple[Family, ...], ...]
    transition: tuple[Family, ...]

    @property
    def lags(self) -> int:
        """Longest lag of any edge, 1 or more."""
        return 1 + len(self.early)

    @functools.cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """Static variables, the first slice, slices with families of their own, and what holds from a slice on."""
        own = [Stretch(families, t, t + 1) for t, families in enumerate(self.early, start=1)]
        lasting = [
            Stretch(tuple(family for family in self.transition if family.start == start), start, None)
            for start in range(1, self.lags + 1)
        ]
        always = Stretch(self.static, 0, 1), Stretch(self.initial, 0, 1)
        return (*always, *(one for one in own + lasting if one.families))

    @functools.cached_property
    def families(self) -> tuple[Family, ...]:
        """All families, stretch after stretch: the order of their latent sites."""
        return tuple(family for stretch in self.stretches for family in stretch.families)

    @property
    def order(self) -> tuple[str, ...]:
        """Variables of a slice, parents first."""
        return tuple(family.variable for family in self.transition)

    @property
    def static_order(self) -> tuple[str, ...]:
        """Static variables, parents first."""
        return tuple(family.variable for family in self.static)

    def at(self, t: int) -> tuple[Family, ...]:
        """Families of the variables of slice t, 0 the first, parents first."""
        if t == 0:
            return self.initial
        own = {family.variable: family for family in self.early[t - 1]} if t < self.lags else {}
        return tuple(own.get(family.variable, family) for family in self.transition)

    def ranges(self, slices: int) -> list[tuple[tuple[Family, ...], range]]:
        """Families of each stretch and the slices of their children, 0 for static ones."""
        return [(stretch.families, stretch.slices(slices)) for stretch in self.stretches]

    def entries(self, slices: int) -> list[tuple[Entry, Family]]:
        """Every entry of a row of T slices and its family, parents first."""
        found = [((family.variable, -1), family) for family in self.static]
        return found + [((family.variable, t), family) for t in range(slices) for family in self.at(t)]
