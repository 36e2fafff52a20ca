r"""Posterior of a mixed template from several incomplete, noisy sources, by Gibbs sampling.

A sweep draws, in turn, all parameters given the completed rows; every number that is missing, or measured with noise,
given all states; every missing state given all else of its row:

.. math:: \theta \mid c, z \sim \text{Dirichlet} \times \text{Normal-inverse-gamma}, \qquad
          z \mid y, c, \theta \sim \text{Normal}, \qquad c_{tv} \mid z, c_{-tv}, \theta \sim \text{Categorical}.

Slices after the last that a row has an entry of do not count. Source: Tanner & Wong, "The calculation of posterior
distributions by data augmentation", JASA 1987.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.dbn.inference._conjugate import probabilities
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.likelihood import categorical
from bayesdd.dbn.likelihood.gaussian import as_rows, entries, equations, grouped, in_order
from bayesdd.dbn.likelihood.missing import noise_of_entries, unrolled
from bayesdd.dbn.template.columns import Rows, groups
from bayesdd.dbn.template.mixture import Mixture
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template


def mixed_draws(
    templates: list[Template], rows: list[Rows], *, draws: int, burn: int, chains: int, generator: torch.Generator
) -> Values:
    """Draws of every latent site, ``(chains, draws, *shape)``.

    Each source has its template, with its known noise, and its rows, all of one number of slices. ``draws`` sweeps of
    each chain follow ``burn`` that are dropped.
    """
    kept: dict[str, list[Tensor]] = {site: [] for site in templates[0].sites}
    for _ in range(chains):
        chain = _Chain.of(templates, rows, generator)
        for sweep in range(burn + draws):
            values = chain.parameters(generator)
            chain.complete(values, generator)
            if sweep >= burn:
                for site, some in kept.items():
                    some.append(values[site])
    return {site: torch.stack(some).unflatten(0, (chains, draws)) for site, some in kept.items()}


@dataclass(eq=False)
class _Chain:
    """The rows of all sources, completed anew by every sweep.

    Attributes:
        mixture: The template's parts.
        layout: Regressions of the continuous part.
        noisy: Continuous parts with the noise of each source, and the number of its rows.
        x: Completed sequences ``(rows, T, V)``.
        static: Completed static values ``(rows, V_s)``.
        given: Both as they were measured, NaN where missing.
        live: Slices that count ``(rows, T)``, 1 or 0.
        patterns: Rows ``(m,)`` and places of the entries seen ``(r,)`` of the continuous part, for each source.
    """

    mixture: Mixture
    layout: Layout
    noisy: list[tuple[Template, int]]
    x: Tensor
    static: Tensor
    given: Rows
    live: Tensor
    patterns: list[list[tuple[Tensor, Tensor]]]

    @classmethod
    def of(cls, templates: list[Template], rows: list[Rows], generator: torch.Generator) -> _Chain:
        """A scattered start."""
        template, mixture = templates[0], Mixture.of(templates[0])
        x, static = (torch.cat(part).double() for part in zip(*rows, strict=True))
        seen = (~x.isnan()).any(2)
        live = seen.flip(1).to(torch.int8).cummax(1).values.flip(1).double()
        noisy = [(Mixture.of(own).continuous, len(some)) for own, (some, _) in zip(templates, rows, strict=True)]

        def guess(column: Tensor, names: tuple[str, ...]) -> Tensor:
            states = [template.states.get(name, 0) for name in names]
            picked = [
                torch.randint(count, column.shape[:-1], generator=generator).double()
                if count
                else torch.randn(column.shape[:-1], generator=generator, dtype=torch.float64)
                for count in states
            ]
            return torch.where(column.isnan(), torch.stack(picked, -1), column) if picked else column

        started = guess(x, template.variables), guess(static, template.static)
        _, (z, z_static) = mixture.split(x, static)
        _, (whole, whole_static) = mixture.split(*started)
        # Indicators are always known; of numbers those that were measured.
        for names, part, full in (
            (mixture.continuous.variables, z, whole),
            (mixture.continuous.static, z_static, whole_static),
        ):
            for place, name in enumerate(names):
                if not mixture.own(name):
                    part[..., place] = full[..., place]
        flat = entries(mixture.continuous, z, z_static)
        patterns = [grouped(~some.isnan()) for some in flat.split([count for _, count in noisy])]
        return cls(mixture, Layout.of(mixture.continuous), noisy, *started, (x, static), live, patterns)

    def parameters(self, generator: torch.Generator) -> Values:
        """A draw of all parameters given the completed rows."""
        (c, c_static), (z, z_static) = self.mixture.split(self.x, self.static)
        ones = torch.ones(len(z), dtype=torch.float64)
        gram = self.layout.grams(*in_order(self.mixture.continuous, z, z_static), ones, self.live)
        found = self.layout.fitted(gram)
        values = self.layout.values(*found.draw(self.layout.real, generator))
        discrete, states = self.mixture.discrete, (c.long(), c_static.long())
        kinds = (ones[:, None], self.live[:, :1], self.live[:, 1:])
        for (families, of), weight in zip(groups(discrete, *states), kinds, strict=True):
            for family in families:
                shape = discrete.sites[family.site]
                index = categorical.cell(discrete, family, of) - discrete.offsets[family.site]
                by_cell = weight.expand(index.shape).reshape(-1)
                counts = torch.bincount(index.reshape(-1), by_cell, minlength=math.prod(shape))
                values[family.site] = probabilities(counts.reshape(shape) + discrete.pseudo_count, generator)
        return {site: values[site] for site in self.mixture.template.sites}

    def complete(self, values: Values, generator: torch.Generator) -> None:
        """Draws numbers, then states."""
        self._draw_numbers(values, generator)
        template, score = self.mixture.template, self._scorer(values)
        places: list[tuple[str, int]] = [(name, -1) for name in template.static]
        places += [(name, t) for t in range(self.x.shape[1]) for name in template.variables]
        for name, t in places:
            if name not in template.states:
                continue
            open_ = _entry(template, *self.given, name, t).isnan()
            rows = (open_ if t < 0 else open_ & (self.live[:, t] > 0)).nonzero()[:, 0]
            if not len(rows):
                continue
            count = template.states[name]
            x, static = self.x[rows].repeat(count, 1, 1), self.static[rows].repeat(count, 1)
            _entry(template, x, static, name, t).copy_(torch.arange(count).repeat_interleave(len(rows)))
            scores = score(x, static, self.live[rows].repeat(count, 1)).reshape(count, -1).mT
            uniform = torch.rand(scores.shape, generator=generator, dtype=scores.dtype)
            picked = (scores - (-uniform.log()).log()).argmax(1).double()
            _entry(template, self.x, self.static, name, t)[rows] = picked

    def _scorer(self, values: Values) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Completed rows and their live slices -> log densities, nats ``(rows,)``."""
        discrete, continuous = self.mixture.discrete, self.mixture.continuous
        log = categorical.tables(discrete, values)
        # Of the continuous part's equations only those of numbers: indicators are no draws.
        structure = continuous.structure
        own_static, own = (
            [i for i, name in enumerate(order) if self.mixture.own(name)]
            for order in (structure.static_order, structure.order)
        )
        of_static, first, later = equations(continuous, self.mixture.values(values))
        of_static, first, later = of_static.part(own_static), first.part(own), later.part(own)

        def score(x: Tensor, static: Tensor, live: Tensor) -> Tensor:
            (c, c_static), (z, z_static) = self.mixture.split(x, static)
            total = torch.zeros(len(x), dtype=torch.float64)
            kinds = (torch.ones(len(x), 1, dtype=torch.float64), live[:, :1], live[:, 1:])
            for (families, of), weight in zip(groups(discrete, c.long(), c_static.long()), kinds, strict=True):
                for family in families:
                    total = total + (log[categorical.cell(discrete, family, of)] * weight).sum(1)
            z, z_static = in_order(continuous, z, z_static)
            total = total + of_static.log_density(z.new_zeros(len(z), 0), z_static, own_static)
            total = total + live[:, 0] * first.log_density(z_static, z[:, 0], own)
            before = torch.cat([z_static[:, None].expand(-1, z.shape[1] - 1, -1), z[:, :-1]], 2)
            return total + (live[:, 1:] * later.log_density(before, z[:, 1:], own)).sum(1)

        return score

    def _draw_numbers(self, values: Values, generator: torch.Generator) -> None:
        continuous, slices = self.mixture.continuous, self.x.shape[1]
        every = self.mixture.values(values)
        mean, factor = unrolled(continuous, every, slices)
        _, measured = self.mixture.split(*self.given)
        _, now = self.mixture.split(self.x, self.static)
        flat, known = entries(continuous, *measured), entries(continuous, *now)
        found = []
        counts = [count for _, count in self.noisy]
        for (noisy, _), some, current, patterns in zip(
            self.noisy, flat.split(counts), known.split(counts), self.patterns, strict=True
        ):
            variance = noise_of_entries(noisy, every, slices)
            true = mean + torch.randn(some.shape, generator=generator, dtype=mean.dtype) @ factor.mT
            noise = variance.sqrt() * torch.randn(some.shape, generator=generator, dtype=mean.dtype)
            for rows, at in patterns:
                # Indicators, whose states may have been drawn, stand where their row has them now.
                given = torch.where(some[rows][:, at].isnan(), current[rows][:, at], some[rows][:, at])
                half = factor[at]
                root, _ = torch.linalg.cholesky_ex(half @ half.mT + variance[at].diag())
                gain = torch.cholesky_solve(half @ factor.mT, root)
                true[rows] += (given - true[rows][:, at] - noise[rows][:, at]) @ gain
            found.append(true)
        moving, fixed = as_rows(continuous, torch.cat(found), slices)
        template = self.mixture.template
        for column, names, drawn, own in (
            (self.x, template.variables, moving, continuous.variables),
            (self.static, template.static, fixed, continuous.static),
        ):
            for place, name in enumerate(names):
                if name not in template.states:
                    column[..., place] = drawn[..., own.index(name)]


def _entry(template: Template, x: Tensor, static: Tensor, name: str, t: int) -> Tensor:
    """A variable in slice t, or a static one: ``(rows,)``, a view."""
    return static[:, template.static.index(name)] if t < 0 else x[:, t, template.variables.index(name)]
