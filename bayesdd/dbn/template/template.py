"""Template: names and edges of a dynamic Bayesian network in, everything that one does with it out."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

from bayesdd.dbn.inference import conjugate, gibbs
from bayesdd.dbn.likelihood import ancestral, source
from bayesdd.dbn.likelihood.likelihood import anything, chosen, log_likelihood
from bayesdd.dbn.likelihood.model import model
from bayesdd.dbn.likelihood.source import Source
from bayesdd.dbn.template import structure
from bayesdd.dbn.template.columns import columns, many_draws, one_draw, soft_columns
from bayesdd.dbn.template.structure import Structure, _repeated, _sorted
from bayesdd.task.task import Task

Edge = tuple[str, str]


@dataclass(frozen=True)
class Template:
    """A template network.

    Args:
        variables: Names of the variables of a slice: the last axis of ``x``, shape ``(rows, T, V)``.
        intra: Edges (parent, child) within a slice, from static variables, or between them.
        inter: Edges (parent, child) from a slice to the next.
        static: Names of the static variables: the last axis of ``static``, shape ``(rows, V_s)``.
        states: Variable -> number of states, for all variables (categorical, states 0, 1, ...) or none
            (linear-Gaussian).
        coefficient_scale: Prior deviation s of a coefficient, in residual deviations.
        variance_shape: Shape a of a residual variance's inverse gamma.
        variance_scale: Its scale b.
        pseudo_count: Concentration alpha of every cell of a table.
        noise: Known standard deviation of the measurement noise of all variables, or variable -> standard deviation.
        noise_site: Name of a latent site for an unknown one, common to all variables; sources of equal name share it.
        noise_scale: Scale of its half-normal prior.
        initial: Edges into the first slice's variables, from each other or from static ones, where they are not those
            of ``intra``; none, ``()``, makes the variables of the first slice independent.

    Attributes:
        structure: Families, parents before children.

    Raises:
        ValueError: Names, edges, states or settings do not fit; the message names what, and what to do.
    """

    variables: tuple[str, ...]
    intra: tuple[Edge, ...] = ()
    inter: tuple[Edge, ...] = ()
    static: tuple[str, ...] = ()
    states: Mapping[str, int] = field(default_factory=dict)
    coefficient_scale: float = 3.0
    variance_shape: float = 2.0
    variance_scale: float = 1.0
    pseudo_count: float = 1.0
    noise: float | Mapping[str, float] = 0.0
    noise_site: str | None = None
    noise_scale: float = 1.0
    initial: tuple[Edge, ...] | None = None

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        put("variables", tuple(self.variables))
        put("static", tuple(self.static))
        put("intra", tuple(tuple(edge) for edge in self.intra))
        put("inter", tuple(tuple(edge) for edge in self.inter))
        put("initial", None if self.initial is None else tuple(tuple(edge) for edge in self.initial))
        put("states", dict(self.states))
        check(self)

    @functools.cached_property
    def structure(self) -> Structure:
        """Families of the template."""
        return Structure.of(self)

    @property
    def noisy(self) -> bool:
        """Whether there is measurement noise."""
        return self.noise_site is not None or any(self.noise_of(name) > 0 for name in self.static + self.variables)

    def noise_of(self, name: str) -> float:
        """Known standard deviation of a variable's measurement noise."""
        return float(self.noise.get(name, 0.0) if isinstance(self.noise, Mapping) else self.noise)

    @property
    def sites(self) -> dict[str, tuple[int, ...]]:
        """Latent site -> shape, in the model's order."""
        found: dict[str, tuple[int, ...]] = {}
        for family in self.structure.families:
            if self.states:
                found[family.site] = structure.shape(self, family)
            else:
                found[f"{family.site}_variance"] = ()
                found[family.site] = (1 + len(family.parents),)
        return found | ({self.noise_site: ()} if self.noise_site else {})

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Latent site -> names of its axes, as ArviZ takes them."""
        named = {}
        for family in self.structure.families:
            states = tuple(f"{term}_parent" for term in family.terms)
            named[family.site] = (*states, f"{family.variable}_state") if self.states else (f"{family.site}_term",)
        return {site: named.get(site, ()) for site in self.sites}

    @property
    def coords(self) -> dict[str, tuple[Any, ...]]:
        """Axis -> labels: states, or the terms of a regression."""
        if not self.states:
            return {f"{family.site}_term": ("intercept", *family.terms) for family in self.structure.families}
        axes = [zip(self.dims[f.site], structure.shape(self, f), strict=True) for f in self.structure.families]
        return {axis: tuple(range(size)) for family in axes for axis, size in family}

    @property
    def model(self) -> Callable[..., Tensor]:
        """The Pyro model of columns ``x`` (and ``static``) with any missing entries."""
        return functools.partial(model, template=self, likelihood=anything(self))

    def task(self, data: Any) -> Task:
        """The task of given rows, with the cheapest exact likelihood for their patterns of missing entries.

        Rows of patterns that these do not have, other than complete ones, may come out as NaN: then make a task of
        them, or ``Task(template.model, data)``, whose likelihood takes any.

        Args:
            data: Columns ``x`` (rows, T, V) and, with static variables, ``static`` (rows, V_s); NaN where missing.

        Raises:
            ValueError: The columns do not fit, or categorical entries are missing and a slice has more than 256 joint
                states.
        """
        x, static = columns(self, data)
        likelihood = chosen(self, x, static)
        bound = functools.partial(model, template=self, likelihood=likelihood, slices=x.shape[1])
        return Task(bound, {"x": x, "static": static} if self.static else {"x": x})

    def target(self, sources: Sequence[Source]) -> list[Task]:
        """The joint posterior of sources, one task each: their log-likelihoods add, the prior counts once.

        What a source does not see is integrated out; unknown noise scales are latent sites that only the target has.

        Args:
            sources: Sources of this template, which has no noise of its own.

        Raises:
            ValueError: A source does not fit or sees nothing, or no source sees one of the variables.

        Warns:
            UserWarning: Two sources have no variable in common.
        """
        return source.target(self, sources)

    def student(self, slices: int, sources: Sequence[Source] = (), *, soft: bool = False) -> Task:
        """The task that people fit to distilled rows: this network without noise, missing entries integrated out.

        Args:
            slices: Number T of slices of the rows.
            sources: Sources whose patterns of missing entries it takes; without them, complete rows only.
            soft: Rows are of soft categories, as complete categorical ones are merged.
        """
        return source.student(self, slices, sources, soft=soft)

    def log_likelihood(self, parameters: Mapping[str, Any], data: Any) -> Tensor:
        """Exact log-likelihood of rows with any missing entries, nats: ``(S, rows)``.

        Args:
            parameters: Latent site -> values ``(S, *shape)`` in the model's own units.
            data: As for :meth:`task`.

        Raises:
            ValueError: A categorical sequence has more than 256 joint states of missing entries in a slice.
        """
        return log_likelihood(self, many_draws(self, parameters), *columns(self, data))

    def posterior(self, data: Any, weight: Any = None) -> conjugate.Posterior:
        """Exact posterior given complete rows of given weights (one each if left out), without measurement noise.

        Categories may be soft: ``x`` (rows, T, V, K) and ``static`` (rows, V_s, K) of probabilities.
        """
        x, static = soft_columns(self, data) or columns(self, data)
        if self.noisy or bool(x.isnan().any() or static.isnan().any()):
            raise ValueError(
                "Template.posterior is a closed form for complete rows without measurement noise: use task() and "
                "bayesdd.sample, or gibbs() for categorical rows with missing entries."
            )
        ones = torch.ones(len(x), dtype=torch.float64)
        return conjugate.posterior(self, x, static, ones if weight is None else ones * torch.as_tensor(weight))

    def gibbs(self, data: Any, *, draws: int = 1000, burn: int = 200, seed: int = 0) -> dict[str, Tensor]:
        """Posterior of a categorical template by data augmentation: site -> ``(draws, *shape)``, a Markov chain."""
        if not self.states:
            raise ValueError("Template.gibbs draws tables of categorical variables: use task() and bayesdd.sample.")
        generator = torch.Generator().manual_seed(seed)
        return gibbs.gibbs(self, *columns(self, data), draws=draws, burn=burn, generator=generator)

    def sample(self, parameters: Mapping[str, Any], rows: int, slices: int, seed: int) -> dict[str, Tensor]:
        """Simulated columns: ``x`` (rows, slices, V) and, with static variables, ``static`` (rows, V_s).

        Args:
            parameters: Latent site -> value of one draw, in the model's own units.
            rows: Number of rows.
            slices: Number T of slices.
            seed: Seed.
        """
        values, generator = one_draw(self, parameters), torch.Generator().manual_seed(seed)
        draw_static, draw_sequences = ancestral.categorical if self.states else ancestral.gaussian
        static = draw_static(self, values, rows, generator)
        found = {"x": draw_sequences(self, values, static, slices, generator)}
        return found | ({"static": static} if self.static else {})

    def unconstrain(self, parameters: Mapping[str, Any]) -> Tensor:
        """Values ``(S, *shape)`` of all sites as the task's flat unconstrained draws ``(S, P)``."""
        values, free = many_draws(self, parameters), []
        for site, shape in self.sites.items():
            real = bool(shape) and not self.states  # coefficients; tables are simplices, variances positive
            support = constraints.simplex if self.states else constraints.positive
            value = values[site] if real else biject_to(support).inv(values[site])
            free.append(value.reshape(len(value), -1))
        return torch.cat(free, 1)


def saturated(template: Template) -> Template:
    """The template with all edges that its order of the variables allows; edges of the first slice alone stay."""
    static, own = template.structure.static_order, template.structure.order
    intra = tuple(itertools.combinations((*static, *own), 2))
    return replace(template, intra=intra, inter=tuple(itertools.product(own, repeat=2)))


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
