"""What the edges of a dynamic Bayesian network say: a family for each variable and kind of slice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from torch import Tensor

Edge = tuple[str, str]  # parent, child
Node = tuple[str, int]  # a variable and how many slices ago; static variables stand at 0
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


@dataclass(frozen=True)
class Structure:
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

    @classmethod
    def of(
        cls,
        variables: tuple[str, ...],
        static: tuple[str, ...],
        intra: tuple[Edge, ...],
        inter: tuple[Edge, ...],
        initial: tuple[Edge, ...] | None,
    ) -> Structure:
        """The families of a template of these names and edges."""
        every = [*static, *variables]
        order = parents_first(every, (*intra, *(initial or ())))

        def parents(edges: Iterable[Edge], lag: int) -> dict[str, tuple[Node, ...]]:
            return {name: tuple((a, lag) for a, b in edges if b == name) for name in every}

        within, before = parents(intra, 0), parents(inter, 1)
        start = within if initial is None else parents(initial, 0)
        slices = [name for name in order if name in variables]
        return cls(
            tuple(Family(name, name, within[name]) for name in order if name in static),
            tuple(Family(name, f"{name}_initial", start[name]) for name in slices),
            tuple(Family(name, name, within[name] + before[name]) for name in slices),
        )


def parents_first(names: Iterable[str], edges: Iterable[Edge]) -> list[str]:
    """The names in an order in which parents precede children.

    Raises:
        ValueError: The edges run in a circle.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter({name: () for name in names})
    for parent, child in edges:
        sorter.add(child, parent)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        path = " -> ".join(error.args[1])
        raise ValueError(
            f"Template: the intra edges run in a circle, {path}: leave one out, or let it act on the next slice as an "
            "inter edge."
        ) from None
