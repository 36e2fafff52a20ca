"""What the edges of a dynamic Bayesian network say: one family a variable and kind of slice, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from bayesdd.dbn.template.template import Template

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
    def of(cls, template: Template) -> Structure:
        """The families of a template."""
        every = [*template.static, *template.variables]
        order = _sorted(every, (*template.intra, *(template.initial or ())))
        intra = {name: tuple((a, 0) for a, b in template.intra if b == name) for name in every}
        first = template.intra if template.initial is None else template.initial
        initial = {name: tuple((a, 0) for a, b in first if b == name) for name in every}
        inter = {name: tuple((a, 1) for a, b in template.inter if b == name) for name in every}
        slices = [name for name in order if name in template.variables]
        return cls(
            tuple(Family(name, name, intra[name]) for name in order if name in template.static),
            tuple(Family(name, f"{name}_initial", initial[name]) for name in slices),
            tuple(Family(name, name, intra[name] + inter[name]) for name in slices),
        )


def _sorted(names: Iterable[str], edges: Iterable[tuple[str, str]]) -> list[str]:
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


def _repeated(items: Iterable[object]) -> object | None:
    return next((item for item, times in Counter(items).items() if times > 1), None)


def shape(template: Template, family: Family) -> tuple[int, ...]:
    """Shape of a family's table: its parents' states, then its own."""
    return (*(template.states[name] for name, _ in family.parents), template.states[family.variable])
