"""Templates of both kinds of variables, taken apart: conditional Gaussians.

Categorical variables have categorical parents only, so that they form a network of their own. Given their states the
others are linear-Gaussian: a categorical parent of K states is K - 1 indicators, each with a coefficient, against the
first state. The linear-Gaussian part holds the indicators as variables without parents that are always seen, of density
N(0, 1), which is divided out; everything that linear-Gaussian templates can do then serves mixed ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesdd.dbn.template.columns import Rows, by_name
from bayesdd.dbn.template.kinds import indicators
from bayesdd.dbn.template.structure import Edge, Values
from bayesdd.dbn.template.template import Template


@dataclass(frozen=True, eq=False)
class Mixture:
    """The two parts of a mixed template.

    Attributes:
        template: The template.
        discrete: Its categorical variables; perhaps static ones only.
        continuous: Its linear-Gaussian variables and, behind them, the indicators of their categorical parents.
        indicators: Categorical parent -> its indicators.
    """

    template: Template
    discrete: Template
    continuous: Template
    indicators: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, template: Template) -> Mixture:
        """The parts of a mixed template."""
        states = template.states
        every = (*template.intra, *template.inter, *(template.initial or ()))
        parents = {a for a, b in every if a in states and b not in states}
        found = {name: indicators(name, states[name], template.labels) for name in states if name in parents}

        def edges(some: tuple[Edge, ...], *, discrete: bool) -> tuple[Edge, ...]:
            mine = [(a, b) for a, b in some if (b in states) == discrete]
            return tuple((one, b) for a, b in mine for one in ((a,) if discrete else found.get(a, (a,))))

        def names(some: tuple[str, ...], *, discrete: bool) -> tuple[str, ...]:
            own = tuple(name for name in some if (name in states) == discrete)
            return own if discrete else own + tuple(one for name in some for one in found.get(name, ()))

        known = {name: template.noise_of(name) for name in template.static + template.variables if name not in states}

        def part(*, discrete: bool) -> Template:
            initial = template.initial
            return replace(
                template,
                variables=names(template.variables, discrete=discrete),
                static=names(template.static, discrete=discrete),
                intra=edges(template.intra, discrete=discrete),
                inter=edges(template.inter, discrete=discrete),
                initial=None if initial is None else edges(initial, discrete=discrete),
                states=states if discrete else {},
                labels=template.labels if discrete else {},
                noise=0.0 if discrete else known,
            )

        return cls(template, part(discrete=True), part(discrete=False), found)

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

    def values(self, values: Values) -> Values:
        """Latent sites of the continuous part: the template's own, and N(0, 1) for the indicators."""
        name, example = next(iter(values.items()))
        batch = example.shape[: example.dim() - len(self.template.sites[name])]
        plain = {
            site: (torch.zeros if shape else torch.ones)((*batch, *shape), dtype=example.dtype)
            for site, shape in self.continuous.sites.items()
        }
        return {site: values.get(site, one) for site, one in plain.items()}

    def own(self, name: str) -> bool:
        """Whether a variable of the continuous part is the template's, and no indicator."""
        return name in self.template.variables or name in self.template.static
