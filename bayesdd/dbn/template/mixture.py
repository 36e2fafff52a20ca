"""Templates of both kinds of variables, taken apart: a discrete part and linear-Gaussian ones, given its states.

Given the states of all categorical variables the others are linear-Gaussian: a categorical parent of K states is K - 1
indicators, each with a coefficient, against the first state. The linear-Gaussian part holds the indicators as variables
without parents that are always seen, of density N(0, 1), which is divided out; everything that linear-Gaussian
templates can do then serves mixed ones. A categorical variable with linear-Gaussian parents (``Template.probits``) has
a utility a step, a childless linear-Gaussian variable of variance 1 of which only the sign is seen: above 0 the state
lies beyond the step. In the discrete part such a variable has neither parents nor a density.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesdd.dbn.template.columns import Rows, by_name
from bayesdd.dbn.template.kinds import indicators
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template


@dataclass(frozen=True, eq=False)
class Mixture:
    """The parts of a mixed template.

    Attributes:
        template: The template.
        discrete: Its categorical variables; perhaps static ones only.
        continuous: Its linear-Gaussian variables and, behind them, the indicators of categorical parents.
        augmented: The continuous part and, behind its variables, the utilities.
        indicators: Categorical parent -> its indicators.
        utilities: Categorical variable with linear-Gaussian parents -> its utilities, one a step.
    """

    template: Template
    discrete: Template
    continuous: Template
    augmented: Template
    indicators: dict[str, tuple[str, ...]]
    utilities: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, template: Template) -> Mixture:
        """The parts of a mixed template."""
        states, probits = template.states, template.probits
        every = (*template.intra, *template.inter, *(template.initial or ()))
        parents = {a for a, b, *_ in every if a in states and (b not in states or b in probits)}
        found = {name: indicators(name, states[name], template.labels) for name in states if name in parents}
        steps = {
            name: tuple(f"{name}>{label}" for label in (template.labels.get(name) or range(states[name]))[:-1])
            for name in probits
        }
        tables = set(states) - set(probits)
        known = {name: template.noise_of(name) for name in template.static + template.variables if name not in states}

        def discrete_edges(some: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(edge for edge in some if edge[1] in tables)

        def numbers(some: tuple[str, ...], utilities: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
            own = tuple(name for name in some if name not in states)
            return own + tuple(one for each in (found, utilities) for name in some for one in each.get(name, ()))

        def part(utilities: dict[str, tuple[str, ...]]) -> Template:
            def edges(some: tuple[Any, ...]) -> tuple[Any, ...]:
                return tuple(
                    (one, child, *lag)
                    for a, b, *lag in some
                    for child in (utilities.get(b, ()) if b in states else (b,))
                    for one in found.get(a, (a,))
                )

            return replace(
                template,
                variables=numbers(template.variables, utilities),
                static=numbers(template.static, utilities),
                intra=edges(template.intra),
                inter=edges(template.inter),
                initial=None if template.initial is None else edges(template.initial),
                states={},
                labels={},
                noise=known,
                terminal=None,
            )

        discrete = replace(
            template,
            variables=tuple(name for name in template.variables if name in states),
            static=tuple(name for name in template.static if name in states),
            intra=discrete_edges(template.intra),
            inter=discrete_edges(template.inter),
            initial=None if template.initial is None else discrete_edges(template.initial),
            noise=0.0,
            terminal=None,
        )
        continuous = part({})
        return cls(template, discrete, continuous, part(steps) if steps else continuous, found, steps)

    def split(self, x: Tensor, static: Tensor) -> tuple[Rows, Rows]:
        """Columns of the discrete part and of the continuous part, states as numbers; NaN where missing."""
        values = by_name(self.template, x.double(), static.double())
        for name, some in self.indicators.items():
            for state, one in enumerate(some, start=1):
                values[one] = torch.where(values[name].isnan(), torch.nan, (values[name] == state).double())

        def columns(part: Template) -> Rows:
            none = x.new_zeros(*x.shape[:2], 0, dtype=torch.float64)
            moving = torch.stack([values[name] for name in part.variables], 2) if part.variables else none
            fixed = torch.cat([x.new_zeros(len(x), 0).double(), *(values[name] for name in part.static)], 1)
            return moving, fixed

        return columns(self.discrete), columns(self.continuous)

    def values(self, values: Values, part: Template | None = None) -> Values:
        """Latent sites of the continuous part: the template's own, and N(0, 1) for the indicators.

        With ``part``, the augmented one: with the coefficients of the utilities too, whose variances are 1.
        """
        chosen = self.continuous if part is None else part
        name, example = next(iter(values.items()))
        batch = example.shape[: example.dim() - len(self.template.sites[name])]
        plain = {
            site: (torch.zeros if shape else torch.ones)((*batch, *shape), dtype=example.dtype)
            for site, shape in chosen.sites.items()
        }
        known = dict(values)
        for name, some in self.utilities.items():
            every = [one.site for one in self.template.structure.families if one.variable == name]
            for suffix in (site.removeprefix(name) for site in every):
                known |= {f"{one}{suffix}": values[f"{name}{suffix}"][..., k, :] for k, one in enumerate(some)}
        return {site: known.get(site, one) for site, one in plain.items()}

    def tables(self, values: Values) -> Values:
        """Latent sites of the discrete part: the template's own, and ones, which count for nothing, for probits."""
        example, sites = next(iter(values.values())), self.discrete.sites
        return {
            family.site: torch.ones(sites[family.site], dtype=example.dtype)
            if family.variable in self.utilities
            else values[family.site]
            for family in self.discrete.structure.families
        }

    def own(self, name: str) -> bool:
        """Whether a variable of the continuous part is the template's, and no indicator."""
        return name in self.template.variables or name in self.template.static
