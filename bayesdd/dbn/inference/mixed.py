r"""Posterior of a mixed template from several incomplete, noisy sources, by Gibbs sampling.

A sweep draws, in turn, all parameters given the completed rows; every number that is missing, or measured with noise,
given all states; every missing state given all else of its row:

.. math:: \theta \mid c, z \sim \text{Dirichlet} \times \text{Normal-inverse-gamma} \times \text{probit regressions},
          \qquad u \mid c, z, \theta \sim \text{truncated Normal}, \\
          z \mid y, c, u, \theta \sim \text{Normal}, \qquad c_{tv} \mid z, c_{-tv}, \theta \sim \text{Categorical}.

The utilities u of states with linear-Gaussian parents (``bayesdd.dbn.template.mixture``) are drawn for the sake of the
numbers only, and integrated out elsewhere (``probits``). Slices after the last that a row has an entry of do not count.
Sources: Tanner & Wong, "The calculation of posterior distributions by data augmentation", JASA 1987; Albert & Chib,
"Bayesian analysis of binary and polychotomous response data", JASA 1993.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.dbn.inference._conjugate import probabilities
from bayesdd.dbn.inference.probits import steps_drawn
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.likelihood import categorical, probit
from bayesdd.dbn.likelihood.gaussian import as_rows, entries, equations, grouped, in_order, with_before
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
        noisy: Augmented parts with the noise of each source, and the number of its rows.
        x: Completed sequences ``(rows, T, V)``.
        static: Completed static values ``(rows, V_s)``.
        slopes: Coefficients of steps, those of the sweep before.
        given: Both as they were measured, NaN where missing.
        live: Slices that count ``(rows, T)``, 1 or 0.
        patterns: Rows ``(m,)`` and places of the entries known ``(r,)`` of the augmented part, for each source.
    """

    mixture: Mixture
    layout: Layout
    noisy: list[tuple[Template, int]]
    x: Tensor
    static: Tensor
    slopes: Values
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
        noisy = [(Mixture.of(own).augmented, len(some)) for own, (some, _) in zip(templates, rows, strict=True)]

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
        for names, column, full in (
            (mixture.continuous.variables, z, whole),
            (mixture.continuous.static, z_static, whole_static),
        ):
            for place, name in enumerate(names):
                if not mixture.own(name):
                    column[..., place] = full[..., place]
        # Utilities say nothing in slices that do not count, and of steps that a state has not come to.
        c, c_static = (column.nan_to_num(nan=math.inf) for column in mixture.split(x, static)[0])
        counted = live[..., None].expand(c.shape), torch.ones_like(c_static)
        idle = [torch.where(sign == 0, torch.nan, 0.0) for sign in probit.signs(mixture, (c, c_static), counted)]
        flat = entries(mixture.augmented, *probit.with_utilities(mixture, (z, z_static), (idle[0], idle[1])))
        patterns = [grouped(~some.isnan()) for some in flat.split([count for _, count in noisy])]
        return cls(mixture, Layout.of(mixture.continuous), noisy, *started, {}, (x, static), live, patterns)

    def parameters(self, generator: torch.Generator) -> Values:
        """A draw of all parameters given the completed rows."""
        mixture = self.mixture
        (c, c_static), numbers = mixture.split(self.x, self.static)
        ones = torch.ones(len(c), dtype=torch.float64)
        gram = self.layout.grams(*in_order(mixture.continuous, *numbers), ones, self.live)
        found = self.layout.fitted(gram)
        values = self.layout.values(*found.draw(self.layout.real, generator))
        if mixture.utilities:
            signs = self._signs((c, c_static), self.live)
            self.slopes = steps_drawn(mixture, numbers, signs, self.slopes, generator)
            values |= self.slopes
        discrete, states = mixture.discrete, (c.long(), c_static.long())
        for (families, of), weight in zip(groups(discrete, *states), _counted(discrete, self.live), strict=True):
            for family in (family for family in families if family.variable not in mixture.utilities):
                shape = discrete.sites[family.site]
                index = categorical.cell(discrete, family, of) - discrete.offsets[family.site]
                by_cell = weight.expand(index.shape).reshape(-1)
                counts = torch.bincount(index.reshape(-1), by_cell, minlength=math.prod(shape))
                values[family.site] = probabilities(counts.reshape(shape) + discrete.pseudo_count, generator)
        return {site: values[site] for site in mixture.template.sites}

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

    def _signs(self, states: Rows, live: Tensor) -> Rows:
        """Signs of the utilities of completed rows, 0 in slices that do not count."""
        states = states[0].long(), states[1].long()
        return probit.signs(
            self.mixture, states, (live[..., None].expand(states[0].shape), torch.ones(states[1].shape))
        )

    def _utilities(self, values: Values, generator: torch.Generator) -> Rows:
        """A draw of all utilities given all else."""
        states, numbers = self.mixture.split(self.x, self.static)
        pairs = zip(probit.means(self.mixture, values, numbers), self._signs(states, self.live), strict=True)
        moving, fixed = (probit.truncated(mean, sign, generator) for mean, sign in pairs)
        return moving, fixed

    def _scorer(self, values: Values) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Completed rows and their live slices -> log densities, nats ``(rows,)``."""
        discrete, continuous = self.mixture.discrete, self.mixture.continuous
        log = categorical.tables(discrete, self.mixture.tables(values))
        # Of the continuous part's equations only those of numbers: indicators are no draws.
        structure = continuous.structure
        own_static, own = (
            [i for i, name in enumerate(order) if self.mixture.own(name)]
            for order in (structure.static_order, structure.order)
        )
        of_static, *forms = equations(continuous, self.mixture.values(values))
        of_static, forms = of_static.part(own_static), [form.part(own) for form in forms]

        def score(x: Tensor, static: Tensor, live: Tensor) -> Tensor:
            (c, c_static), (z, z_static) = self.mixture.split(x, static)
            total = torch.zeros(len(x), dtype=torch.float64)
            if self.mixture.utilities:
                total = probit.direct(self.mixture, values, (z, z_static), self._signs((c, c_static), live))
            some = groups(discrete, c.long(), c_static.long())
            for (families, of), weight in zip(some, _counted(discrete, live), strict=True):
                for family in families:
                    total = total + (log[categorical.cell(discrete, family, of)] * weight).sum(1)
            z, z_static = in_order(continuous, z, z_static)
            total = total + of_static.log_density(z.new_zeros(len(z), 0), z_static, own_static)
            parts = zip(forms, with_before(z, z_static, len(forms) - 1), strict=False)
            each = [form.log_density(before, now, own) for form, (before, now) in parts]
            return total + (live * torch.cat(each, 1)).sum(1)

        return score

    def _draw_numbers(self, values: Values, generator: torch.Generator) -> None:
        part, slices = self.mixture.augmented, self.x.shape[1]
        every = self.mixture.values(values, part)
        mean, factor = unrolled(part, every, slices)
        _, measured = self.mixture.split(*self.given)
        _, now = self.mixture.split(self.x, self.static)
        flat = entries(part, *probit.with_utilities(self.mixture, measured, torch.nan))
        utilities = self._utilities(values, generator) if self.mixture.utilities else 0.0
        known = entries(part, *probit.with_utilities(self.mixture, now, utilities))
        found = []
        counts = [count for _, count in self.noisy]
        for (noisy, _), some, current, patterns in zip(
            self.noisy, flat.split(counts), known.split(counts), self.patterns, strict=True
        ):
            variance = noise_of_entries(noisy, every, slices)
            true = mean + torch.randn(some.shape, generator=generator, dtype=mean.dtype) @ factor.mT
            noise = variance.sqrt() * torch.randn(some.shape, generator=generator, dtype=mean.dtype)
            for rows, at in patterns:
                # Indicators, whose states may have been drawn, and utilities stand where their row has them now.
                given = torch.where(some[rows][:, at].isnan(), current[rows][:, at], some[rows][:, at])
                half = factor[at]
                root, _ = torch.linalg.cholesky_ex(half @ half.mT + variance[at].diag())
                gain = torch.cholesky_solve(half @ factor.mT, root)
                true[rows] += (given - true[rows][:, at] - noise[rows][:, at]) @ gain
            found.append(true)
        moving, fixed = as_rows(part, torch.cat(found), slices)
        template = self.mixture.template
        for column, names, drawn, own in (
            (self.x, template.variables, moving, part.variables),
            (self.static, template.static, fixed, part.static),
        ):
            for place, name in enumerate(names):
                if name not in template.states:
                    column[..., place] = drawn[..., own.index(name)]


def _counted(template: Template, live: Tensor) -> list[Tensor]:
    """Which slices of each stretch count, of ``live`` ones ``(rows, T)``; static values always do."""
    _, *ranges = template.structure.ranges(live.shape[1])
    return [torch.ones_like(live[:, :1]), *(live[:, slices.start : slices.stop] for _, slices in ranges)]


def _entry(template: Template, x: Tensor, static: Tensor, name: str, t: int) -> Tensor:
    """A variable in slice t, or a static one: ``(rows,)``, a view."""
    return static[:, template.static.index(name)] if t < 0 else x[:, t, template.variables.index(name)]
