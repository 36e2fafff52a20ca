"""Template: the names and edges of a dynamic Bayesian network, its states and its priors."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from bayesdd.data.values import Label
from bayesdd.dbn.template.kinds import Categorical, Kind, LinearGaussian, Mixed
from bayesdd.dbn.template.structure import Edge, Family, Lagged, Node, Structure
from bayesdd.numerics import words
from bayesdd.numerics.refusal import Refusal


@dataclass(frozen=True)
class Template:
    """A template network.

    Args:
        variables: Names of the variables of a slice: the last axis of ``x``, shape ``(rows, T, V)``.
        intra: Edges (parent, child) within a slice, from static variables, or between them.
        inter: Edges (parent, child) from a slice to the next, or (parent, child, lag) over so many slices. Slices with
            fewer before them have families of their own, ``NAME_slice_1`` in the second, with the parents that there
            are.
        static: Names of the static variables: the last axis of ``static``, shape ``(rows, V_s)``.
        states: Categorical variable -> number of states 0, 1, ..., or their labels in that order. All others are
            linear-Gaussian; a categorical parent of K states shifts them by K - 1 coefficients, against its first
            state. Categorical variables with a linear-Gaussian parent are :attr:`probits`.
        coefficient_scale: Prior deviation s of a coefficient, in residual deviations.
        variance_shape: Shape a of a residual variance's inverse gamma.
        variance_scale: Its scale b.
        pseudo_count: Concentration alpha of every cell of a table.
        noise: Known standard deviation of the measurement noise of all variables, or variable -> standard deviation.
        noise_site: Name of a latent site for an unknown one, common to all variables, or variable -> name; sources of
            equal name share it.
        noise_scale: Scale of its half-normal prior.
        initial: Edges into the first slice's variables, from each other or from static ones, where they are not those
            of ``intra``; none, ``()``, makes the variables of the first slice independent.
        labels: Filled in from ``states``: variable -> labels of its states, where they were given.
        terminal: Name of a categorical variable of which every state but the first ends the course (death, dropout):
            its probabilities are those of a slice that is reached, nothing is seen after the end. It has no children.

    Raises:
        Refusal: Names, edges, states or settings do not fit; the message names what, and what to do.
    """

    variables: tuple[str, ...]
    intra: tuple[Edge, ...] = ()
    inter: tuple[Lagged, ...] = ()
    static: tuple[str, ...] = ()
    states: Mapping[str, Any] = field(default_factory=dict)
    coefficient_scale: float = 3.0
    variance_shape: float = 2.0
    variance_scale: float = 1.0
    pseudo_count: float = 1.0
    noise: float | Mapping[str, float] = 0.0
    noise_site: str | Mapping[str, str] | None = None
    noise_scale: float = 1.0
    initial: tuple[Edge, ...] | None = None
    labels: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    terminal: str | None = None

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        put("variables", tuple(self.variables))
        put("static", tuple(self.static))
        put("intra", tuple(tuple(edge) for edge in self.intra))
        put("inter", tuple(_whole(tuple(edge)) for edge in self.inter))
        put("initial", None if self.initial is None else tuple(tuple(edge) for edge in self.initial))
        named = {name: tuple(some) for name, some in self.states.items() if hasattr(some, "__len__")}
        put("labels", {**self.labels, **named})
        put("states", {name: len(named[name]) if name in named else some for name, some in self.states.items()})
        _refuse_names(self)
        _refuse_edges(self)
        _parents_first(self)
        _refuse_settings(self)
        _refuse_sites(self)

    def __str__(self) -> str:
        """A few lines; ``repr`` is complete, since hashes of models are made of it."""
        return words.text(*self._said)

    def _repr_html_(self) -> str:
        return words.html(*self._said)

    @property
    def _said(self) -> tuple[str, dict[str, str]]:
        """What it is in a line, and its variables and edges."""
        sort = "mixed" if self.mixed else "categorical" if self.states else "linear-Gaussian"
        before = "from slices before" if self.structure.lags > 1 else "from the slice before"
        kinds = {"within a slice": self.intra, before: self.inter, "into the first": self.initial}
        edges = {name: words.listed(map(_arrow, some)) for name, some in kinds.items() if some}
        static = {"static": words.listed(self.static)} if self.static else {}
        static |= {"ended by": self.terminal} if self.terminal else {}
        sizes = {name: f" ({self.states[name]})" if name in self.states else "" for name in self.variables}
        variables = words.listed(name + size for name, size in sizes.items())
        return f"Template: {len(self.variables)} {sort} variables", {"variables": variables, **static, **edges}

    @functools.cached_property
    def structure(self) -> Structure:
        """Families, parents before children."""
        every = [*self.static, *self.variables]
        order = _parents_first(self)

        def parents(edges: Iterable[Lagged], least: int) -> dict[str, tuple[Node, ...]]:
            """Of each variable; edges have a lag of ``least`` where they give none."""
            found = {name: [(edge[0], _lag(edge, least)) for edge in edges if edge[1] == name] for name in every}
            return {name: tuple(sorted(some, key=lambda node: node[1])) for name, some in found.items()}

        within, before = parents(self.intra, 0), parents(self.inter, 1)
        start = within if self.initial is None else parents(self.initial, 0)
        slices = [name for name in order if name in self.variables]
        transition = [Family(name, name, within[name] + before[name]) for name in slices]
        early = [
            tuple(
                Family(
                    one.variable, f"{one.site}_slice_{t}", tuple((name, lag) for name, lag in one.parents if lag <= t)
                )
                for one in transition
                if one.start > t
            )
            for t in range(1, max((one.start for one in transition), default=1))
        ]
        return Structure(
            tuple(Family(name, name, within[name]) for name in order if name in self.static),
            tuple(Family(name, f"{name}_initial", start[name]) for name in slices),
            tuple(early),
            tuple(transition),
        )

    @functools.cached_property
    def kind(self) -> Kind:
        """What its variables are: linear-Gaussian, categorical, or some of them the one and some the other."""
        if not self.states:
            return LinearGaussian()
        discrete = Categorical(self.states, self.labels)
        return Mixed(discrete, self.probits) if self.mixed else discrete

    @functools.cached_property
    def probits(self) -> tuple[str, ...]:
        r"""Categorical variables with a linear-Gaussian parent: their states are steps, each of which is a probit.

        Of those that come to state k some go on, :math:`P(c > k \mid c \ge k, pa) = \Phi(\beta_{k0} + \beta_k' pa)`,
        :math:`\beta_k \sim N(0, s^2 I)`: a discrete hazard. Of two states it is the probit regression. Source: Albert &
        Chib, "Sequential ordinal modeling with applications to survival data", Biometrics 2001.
        """
        edges = (*self.intra, *self.inter, *(self.initial or ()))
        found = {b for a, b, *_ in edges if b in self.states and a not in self.states}
        return tuple(name for name in (*self.static, *self.variables) if name in found)

    @property
    def mixed(self) -> bool:
        """Whether some variables are categorical and some linear-Gaussian."""
        return 0 < len(self.states) < len(self.static) + len(self.variables)

    @property
    def noisy(self) -> bool:
        """Whether there is measurement noise."""
        return bool(self.noise_sites) or any(self.noise_of(name) > 0 for name in self.static + self.variables)

    def noise_of(self, name: str) -> float:
        """Known standard deviation of a variable's measurement noise; states have none."""
        if self.mixed and name in self.states:
            return 0.0
        return float(self.noise.get(name, 0.0) if isinstance(self.noise, Mapping) else self.noise)

    def noise_site_of(self, name: str) -> str | None:
        """Site of the unknown noise of a variable, if it has one."""
        return self.noise_site.get(name) if isinstance(self.noise_site, Mapping) else self.noise_site

    @functools.cached_property
    def noise_sites(self) -> tuple[str, ...]:
        """Sites of unknown noise."""
        found = [self.noise_site_of(name) for name in (*self.static, *self.variables)]
        return tuple(dict.fromkeys(site for site in found if site))

    @functools.cached_property
    def sites(self) -> dict[str, tuple[int, ...]]:
        """Latent site -> shape, in the model's order."""
        found: dict[str, tuple[int, ...]] = {}
        for family in self.structure.families:
            found |= self.kind.sites(family)
        return found | dict.fromkeys(self.noise_sites, ())

    def space(self, site: str, shape: tuple[int, ...]) -> Any:
        """The constraint of a latent site whose values have this shape."""
        variables = {family.site: family.variable for family in self.structure.families}
        return self.kind.space(variables.get(site, site), shape)

    @functools.cached_property
    def offsets(self) -> dict[str, int]:
        """Latent site -> where its entries start when those of all sites are laid side by side."""
        sizes = [math.prod(shape) for shape in self.sites.values()]
        return dict(zip(self.sites, itertools.accumulate(sizes, initial=0), strict=False))

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Latent site -> names of its axes, as ArviZ takes them."""
        named = {family.site: tuple(self.kind.axes(family)) for family in self.structure.families}
        return {site: named.get(site, ()) for site in self.sites}

    @property
    def coords(self) -> dict[str, tuple[Any, ...]]:
        """Axis -> labels: states, or the terms of a regression."""
        axes = [self.kind.axes(family).items() for family in self.structure.families]
        return dict(itertools.chain.from_iterable(axes))


def saturated(template: Template) -> Template:
    """The template with all edges that its order of the variables allows; edges of the first slice alone stay."""
    static, own = template.structure.static_order, template.structure.order
    intra = tuple(itertools.combinations((*static, *own), 2))
    inter = tuple((*pair, lag) for lag in range(1, template.structure.lags + 1) for pair in itertools.product(own, own))
    return replace(template, intra=intra, inter=inter)


def _lag(edge: Lagged, least: int) -> int:
    return edge[2] if len(edge) == 3 else least


def _whole(edge: tuple[Any, ...]) -> Any:
    """An edge over several slices with its lag as an int, one from a slice to the next as a pair."""
    if len(edge) != 3:
        return edge
    try:
        lag = 0 if isinstance(edge[2], bool) else operator.index(edge[2])
    except TypeError:
        lag = 0
    if lag < 1:
        raise Refusal(f"Template: the lag of an edge is a whole number of slices, 1 or more, got {edge!r}.")
    return (*edge[:2], lag) if lag > 1 else edge[:2]


def _arrow(edge: Lagged) -> str:
    return f"{edge[0]} -> {edge[1]}" + (f" (lag {edge[2]})" if len(edge) == 3 else "")


def _refuse_names(template: Template) -> None:
    if not template.variables and not template.states:
        raise Refusal("Template needs at least one variable that changes over time, got none.")
    every = [*template.static, *template.variables]
    if repeated := _repeated(every):
        raise Refusal(f"Template: variable {repeated!r} is named twice: give each variable a name of its own.")


def _refuse_sites(template: Template) -> None:
    families = template.structure.families
    sites = [family.site for family in families]
    sites += [site for family in families for site in template.kind.sites(family) if site != family.site]
    sites += template.noise_sites
    if taken := [name for name in sites if name in ("x", "static", "data")]:
        raise Refusal(f"Template: a latent site would be called {taken[0]!r}, as a column or the plate is: rename it.")
    if repeated := next(filter(None, (_repeated(family.terms) for family in families)), None):
        raise Refusal(f"Template: two parents of one variable would be called {repeated!r}: rename the variable.")
    if repeated := _repeated(sites):
        raise Refusal(f"Template: two latent sites would be called {repeated!r}: rename the variable or the noise.")


def _repeated(items: Iterable[object]) -> object | None:
    return next((item for item, times in Counter(items).items() if times > 1), None)


def _refuse_edges(template: Template) -> None:
    every = {*template.static, *template.variables}
    for kind, edges in (("intra", template.intra), ("inter", template.inter), ("initial", template.initial or ())):
        for edge in edges:
            if len(edge) != 2 and not (kind == "inter" and len(edge) == 3):
                longer = "; longer lags, (parent, child, lag), are for inter=" * (len(edge) == 3)
                raise Refusal(f"Template: {kind} edges are pairs (parent, child), got {edge!r}{longer}.")
            if unknown := [name for name in edge[:2] if name not in every]:
                raise Refusal(
                    f"Template: the {kind} edge {edge} names {unknown[0]!r}, which is none of the variables "
                    f"{sorted(every)}: add it to variables= or static=, or correct the edge."
                )
        if repeated := _repeated(edges):
            raise Refusal(f"Template: the {kind} edge {repeated} is given twice: drop one.")
    for edge in template.inter:
        if static := [name for name in edge[:2] if name in template.static]:
            raise Refusal(
                f"Template: the inter edge {edge} touches the static variable {static[0]!r}, which has no slices: "
                "write it as an intra edge."
            )
    if into := [edge for edge in template.initial or () if edge[1] in template.static]:
        raise Refusal(
            f"Template: the initial edge {into[0]} ends in the static variable {into[0][1]!r}, which precedes all "
            "slices: write edges between static variables as intra edges."
        )
    for parent, child in template.intra:
        if child in template.static and parent not in template.static:
            raise Refusal(
                f"Template: the intra edge {(parent, child)} ends in the static variable {child!r}, which precedes all "
                "slices: only static variables can be its parents."
            )


def _parents_first(template: Template) -> list[str]:
    """All variables in an order in which parents precede children."""
    sorter: TopologicalSorter[str] = TopologicalSorter({name: () for name in (*template.static, *template.variables)})
    for parent, child in (*template.intra, *(template.initial or ())):
        sorter.add(child, parent)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        path = " -> ".join(error.args[1])
        raise Refusal(
            f"Template: the intra edges run in a circle, {path}: leave one out, or let it act on the next slice as an "
            "inter edge."
        ) from None


def _refuse_terminal(template: Template) -> None:
    name = template.terminal
    if name is None:
        return
    if name not in template.variables or name not in template.states:
        raise Refusal(
            f"Template: terminal={name!r} must be a categorical variable that changes over time: name it in variables= "
            f"and give its states, the first of them going on: states={{{name!r}: ('alive', 'dead')}}."
        )
    edges = (*template.intra, *template.inter, *(template.initial or ()))
    if children := [edge for edge in edges if edge[0] == name]:
        raise Refusal(
            f"Template: the edge {children[0]} leaves the terminal variable {name!r}, after whose end nothing is seen, "
            "and before it all patients are alike: leave the edge out."
        )


def _refuse_settings(template: Template) -> None:
    every = [*template.static, *template.variables]
    _refuse_terminal(template)
    if template.states:
        if unknown := [name for name in template.states if name not in every]:
            raise Refusal(f"Template: states= names {unknown[0]!r}, which is none of the variables {every}.")
        if template.mixed and template.noise_sites:
            raise Refusal(
                "Template: an unknown noise, noise_site=, needs linear-Gaussian variables alone: give noise=."
            )
        if twice := [name for name, some in template.labels.items() if len(set(some)) < len(some)]:
            raise Refusal(f"Template: variable {twice[0]!r} has a state twice, {list(template.labels[twice[0]])}.")
        if few := [name for name, count in template.states.items() if count < 2]:
            raise Refusal(f"Template: variable {few[0]!r} needs at least two states, got {template.states[few[0]]}.")
        if template.noisy and not template.mixed:
            raise Refusal("Template: measurement noise is for linear-Gaussian variables, but states= are given.")
    if isinstance(template.noise, Mapping) and (unknown := [name for name in template.noise if name not in every]):
        raise Refusal(f"Template: noise= names {unknown[0]!r}, which is none of the variables {every}.")
    if any(template.noise_of(name) < 0 for name in every):
        raise Refusal(f"Template: noise= is a standard deviation, not negative, got {template.noise!r}.")
    if isinstance(template.noise_site, Mapping) and (
        odd := [name for name in template.noise_site if name not in every]
    ):
        raise Refusal(f"Template: noise_site= names {odd[0]!r}, which is none of the variables {every}.")
    if both := [name for name in every if template.noise_site_of(name) and template.noise_of(name)]:
        raise Refusal(
            f"Template: noise= is known noise and noise_site= unknown noise: give one of them for {both[0]!r}."
        )
    for setting in ("coefficient_scale", "variance_shape", "variance_scale", "pseudo_count", "noise_scale"):
        if not getattr(template, setting) > 0:
            raise Refusal(f"Template: {setting}= must be positive, got {getattr(template, setting)!r}.")
