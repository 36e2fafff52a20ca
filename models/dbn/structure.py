"""What the edges of a dynamic Bayesian network say: one family a variable and kind of slice, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from models.dbn.template import Template

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


def groups(template: Template, x: Tensor, static: Tensor) -> list[tuple[tuple[Family, ...], Of]]:
    """Static, initial and transition families, each with the values of its nodes.

    Values are ``(rows, 1)`` for static variables and in the first group of slices, ``(rows, T - 1)`` in the last.
    """
    # Variables first: a family then reads whole stretches of memory.
    series = dict(zip(template.variables, x.permute(2, 0, 1).contiguous(), strict=True))
    fixed = dict(zip(template.static, static.mT[..., None], strict=True))

    def first(node: Node) -> Tensor:
        return fixed[node[0]] if node[0] in fixed else series[node[0]][:, :1]

    def later(node: Node) -> Tensor:
        if node[0] in fixed:
            return fixed[node[0]]
        return series[node[0]][:, :-1] if node[1] else series[node[0]][:, 1:]

    structure = template.structure
    return [(structure.static, first), (structure.initial, first), (structure.transition, later)]


def check(template: Template) -> None:
    """Refuses names, edges, states and settings that make no template.

    Raises:
        ValueError: The message names what is wrong and what to do.
    """
    _names(template)
    _edges(template)
    _sorted([*template.static, *template.variables], (*template.intra, *(template.initial or ())))
    _settings(template)


def _names(template: Template) -> None:
    if not template.variables:
        raise ValueError("Template needs at least one variable that changes over time, got none.")
    every = [*template.static, *template.variables]
    if repeated := _repeated(every):
        raise ValueError(f"Template: variable {repeated!r} is named twice: give each variable a name of its own.")
    sites = [*every, *(f"{name}_initial" for name in template.variables)]
    sites += [] if template.states else [f"{site}_variance" for site in sites]
    sites += [template.noise_site] if template.noise_site else []
    if taken := [name for name in sites if name in ("x", "static", "data")]:
        raise ValueError(
            f"Template: a latent site would be called {taken[0]!r}, as a column or the plate is: rename it."
        )
    if repeated := _repeated(sites):
        raise ValueError(f"Template: two latent sites would be called {repeated!r}: rename the variable or the noise.")


def _edges(template: Template) -> None:
    every = {*template.static, *template.variables}
    for kind, edges in (("intra", template.intra), ("inter", template.inter), ("initial", template.initial or ())):
        for edge in edges:
            if len(edge) != 2:
                raise ValueError(f"Template: {kind} edges are pairs (parent, child), got {edge!r}.")
            if unknown := [name for name in edge if name not in every]:
                raise ValueError(
                    f"Template: the {kind} edge {edge} names {unknown[0]!r}, which is none of the variables "
                    f"{sorted(every)}: add it to variables= or static=, or correct the edge."
                )
        if repeated := _repeated(edges):
            raise ValueError(f"Template: the {kind} edge {repeated} is given twice: drop one.")
    for edge in template.inter:
        if static := [name for name in edge if name in template.static]:
            raise ValueError(
                f"Template: the inter edge {edge} touches the static variable {static[0]!r}, which has no slices: "
                "write it as an intra edge."
            )
    if into := [edge for edge in template.initial or () if edge[1] in template.static]:
        raise ValueError(
            f"Template: the initial edge {into[0]} ends in the static variable {into[0][1]!r}, which precedes all "
            "slices: write edges between static variables as intra edges."
        )
    for parent, child in template.intra:
        if child in template.static and parent not in template.static:
            raise ValueError(
                f"Template: the intra edge {(parent, child)} ends in the static variable {child!r}, which precedes all "
                "slices: only static variables can be its parents."
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


def _settings(template: Template) -> None:
    every = [*template.static, *template.variables]
    if template.states:
        if unknown := [name for name in template.states if name not in every]:
            raise ValueError(f"Template: states= names {unknown[0]!r}, which is none of the variables {every}.")
        if gaussian := [name for name in every if name not in template.states]:
            raise ValueError(
                f"Template mixes categorical variables {sorted(template.states)} with linear-Gaussian {gaussian}: give "
                "states= for all variables, or for none."
            )
        if few := [name for name, count in template.states.items() if count < 2]:
            raise ValueError(f"Template: variable {few[0]!r} needs at least two states, got {template.states[few[0]]}.")
        if template.noisy:
            raise ValueError("Template: measurement noise is for linear-Gaussian variables, but states= are given.")
    if isinstance(template.noise, Mapping) and (unknown := [name for name in template.noise if name not in every]):
        raise ValueError(f"Template: noise= names {unknown[0]!r}, which is none of the variables {every}.")
    if any(template.noise_of(name) < 0 for name in every):
        raise ValueError(f"Template: noise= is a standard deviation, not negative, got {template.noise!r}.")
    if template.noise_site and any(template.noise_of(name) for name in every):
        raise ValueError("Template: noise= is known noise and noise_site= unknown noise: give one of them.")
    for setting in ("coefficient_scale", "variance_shape", "variance_scale", "pseudo_count", "noise_scale"):
        if not getattr(template, setting) > 0:
            raise ValueError(f"Template: {setting}= must be positive, got {getattr(template, setting)!r}.")
