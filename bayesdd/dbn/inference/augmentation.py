r"""Posterior of a linear-Gaussian template from several incomplete, noisy sources, by data augmentation.

A sweep draws the second moments of all true entries given what is seen, then all families given these moments, then
the unknown noise scales given what lies between seen and true:

.. math:: z \mid y, \theta \sim \text{Normal}, \qquad \theta \mid z \sim \text{Normal-inverse-gamma}, \qquad
          \tau \mid y, z \propto \tau^{-m} e^{-s / 2\tau^2 - \tau^2 / 2 c^2}.

No row is ever completed: the moments of all rows of a pattern come from its sufficient statistics (``completion``), so
that a sweep costs the same for any number of rows. With means in place of draws a sweep is one step of expectation
maximisation.

Sources: Tanner & Wong, "The calculation of posterior distributions by data augmentation", JASA 1987; Dempster, Laird &
Rubin, "Maximum likelihood from incomplete data via the EM algorithm", JRSS B 1977.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesdd.dbn.inference.completion import completed
from bayesdd.dbn.inference.patterns import Dense, Patterns, dense
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.inference.statistics import Statistics, of_regressions
from bayesdd.dbn.likelihood.gaussian import Equations, equations
from bayesdd.dbn.likelihood.missing import noise_of_entries
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal

NUMBERS = 2**22  # of the largest array that a chunk of patterns may make: 32 MB
SCATTER = 0.5  # deviation of the coefficients that chains start from, in units of the variables' deviations
RELAXED = 0.6  # of coefficients and variances; best where sweeps that wander keep 94% of what they were
STILL = 1e-3  # change of any parameter below which expectation maximisation ends


def augmented(
    templates: Sequence[Template],
    patterns: Sequence[Patterns],
    slices: int,
    *,
    start: Values,
    draws: int,
    burn: int,
    generator: torch.Generator,
) -> tuple[Values, Statistics]:
    """Draws of the joint posterior, and the means of the sufficient statistics.

    Each source has its template, with its noise; ``start`` are the parameters of the chains ``(chains, *shape)``.
    ``draws`` sweeps of each chain follow ``burn`` that are dropped. True entries and coefficients are over-relaxed.

    Returns:
        Latent site, noise sites among them -> ``(chains, draws, *shape)``; the statistics.
    """
    if draws < 1:
        raise Refusal(f"augmentation needs at least one sweep, got draws={draws}.")
    augmentation = Augmentation(templates, patterns, slices)
    layout, values = augmentation.layout, start
    kept: list[Values] = []
    rows: list[Tensor] = []
    total = [torch.zeros((), dtype=torch.float64)] * len(Statistics._fields)
    for sweep in range(burn + draws):
        gram, squares = augmentation.completed(augmentation.equations(values), values, generator, rows)
        found = layout.fitted(gram)
        slopes, variance = found.draw(layout.real, generator, layout.stacked(values), RELAXED)
        values = layout.values(slopes, variance) | augmentation.noises(squares, values, generator)
        if sweep >= burn:
            total = [a + b for a, b in zip(total, of_regressions(found, layout.real), strict=True)]
            kept.append(values)
    chains = len(next(iter(start.values())))
    statistics = Statistics(*(part / (draws * chains) for part in total))
    return {site: torch.stack([draw[site] for draw in kept], 1) for site in kept[0]}, statistics


def expectation_maximised(
    templates: Sequence[Template], patterns: Sequence[Patterns], slices: int, *, start: Values, steps: int
) -> Values:
    """Parameters near a mode of the posterior density, from each of several starts ``(starts, *shape)``.

    At most ``steps`` steps; the modes are those of coefficients and logarithms of variances and noise scales.
    """
    augmentation = Augmentation(templates, patterns, slices)
    layout, values = augmentation.layout, start
    for _ in range(steps):
        gram, squares = augmentation.completed(augmentation.equations(values), values)
        found = layout.fitted(gram)
        variance = found.scale / (found.shape + layout.real.sum(1) / 2)
        after = layout.values(torch.where(layout.real, found.mean, 0.0), variance) | augmentation.noises(squares)
        moved = max(float((after[site] - values[site]).abs().max()) for site in after)
        values = after
        if moved < STILL:
            break
    return values


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What a sweep needs.

    Args:
        templates: The template with the noise of every source.
        patterns: The sources' patterns.
        slices: Number T of slices.
    """

    templates: Sequence[Template]
    patterns: Sequence[Patterns]
    slices: int

    @functools.cached_property
    def layout(self) -> Layout:
        """Of the families."""
        return Layout.of(self.templates[0])

    @property
    def complete(self) -> bool:
        """Whether every entry was seen, without noise."""
        template = self.templates[0]
        whole = len(template.static) + self.slices * len(template.variables)
        return all(some.at.shape[1] == whole for some in self.patterns) and not any(t.noisy for t in self.templates)

    @functools.cached_property
    def noise_sites(self) -> dict[str, Template]:
        """Site of an unknown noise -> a template that has it."""
        return {site: template for template in self.templates for site in template.noise_sites}

    @functools.cached_property
    def _measured(self) -> dict[str, Tensor]:
        """Site of an unknown noise -> which entries of which source have it ``(sources, n)``, 1 or 0."""
        structure = self.templates[0].structure
        names = [*structure.static_order, *(self.slices * structure.order)]
        return {
            site: torch.tensor([[one.noise_site_of(name) == site for name in names] for one in self.templates]).double()
            for site in self.noise_sites
        }

    def starts(self, count: int, generator: torch.Generator) -> Values:
        """Parameters ``(count, *shape)``: variables without parents, then coefficients scattered about zero."""
        mean, variance = self._seen_moments()
        found: Values = {}
        for family in self.templates[0].structure.families:
            own, parents = family.variable, [name for name, _ in family.parents]
            slopes = SCATTER * torch.randn(count, len(parents), generator=generator, dtype=torch.float64)
            slopes[0] = 0.0
            scale, centre = slopes.new_tensor(
                [[(variance[own] / variance[a]) ** 0.5, mean[a]] for a in parents] or [[0, 0]]
            ).mT
            slopes, centre = slopes * scale[: len(parents)], centre[: len(parents)]
            found[f"{family.site}_variance"] = (0.5 * variance[own]).expand(count)
            found[family.site] = torch.cat([(mean[own] - slopes @ centre)[:, None], slopes], 1)
        spread = torch.stack(list(variance.values())).mean().sqrt()
        return found | {site: (0.3 * spread).expand(count) for site in self.noise_sites}

    def equations(self, values: Values) -> tuple[Equations, ...]:
        """Structural forms of each kind of slice at parameters ``(C, *shape)``, batched ``(C, ...)``."""
        return equations(self.templates[0], values)

    def completed(
        self,
        forms: Sequence[Equations],
        noises: Values,
        generator: torch.Generator | None = None,
        rows: list[Tensor] | None = None,
    ) -> tuple[Tensor, Values]:
        """Second moments of all true entries given what is seen: drawn, or without generator their means.

        ``forms`` are the chains' :meth:`equations`, unknown noise scales among ``noises``; ``rows`` are those of the
        sweep before (none at first), which this sweep's take the place of. Returns moments of each kind of slice
        ``(C, 3, d, d)``, and for each unknown noise the sum of its squares ``(C,)``.
        """
        example = forms[1].shift
        chains, given = len(example), {"": example} | noises
        noise = torch.stack([noise_of_entries(t, given, self.slices).expand(chains, -1) for t in self.templates])
        gram = example.new_zeros(chains, 3, self.layout.width, self.layout.width)
        squares = {site: example.new_zeros(chains) for site in self.noise_sites}
        seen: list[Tensor] = []
        for i, some in enumerate(self._chunks(chains)):
            before = rows[i] if rows else None
            found = completed(forms, some, noise[some.source].transpose(0, 1), self.slices, generator, before)
            gram = gram + found.gram
            if rows is not None:
                seen.append(found.rows)
            for site, mine in self._measured.items():
                squares[site] = squares[site] + (found.square * mine[some.source]).sum((1, 2))
        if rows is not None:
            rows[:] = seen
        return gram, squares

    def _chunks(self, chains: int) -> list[Dense]:
        """All patterns, those with as many rows of their roots together, as many as fit into memory at a time."""
        width = 2 * len(self.templates[0].variables) + len(self.templates[0].static)
        found = []
        for some in self._dense:
            step = max(1, NUMBERS // (chains * some.y.shape[2] * (width + some.y.shape[1])))
            parts = torch.arange(len(some.count)).split(step)
            found += [some.part(part) for part in parts] if len(parts) > 1 else [some]
        return found

    @functools.cached_property
    def _dense(self) -> list[Dense]:
        template, alike = self.templates[0], dict[int, list[Patterns]]()
        for some in self.patterns:
            alike.setdefault(some.root.shape[1], []).append(some)
        entries = len(template.static) + self.slices * len(template.variables)
        return [dense(group, entries) for group in alike.values()]

    def noises(self, squares: Values, now: Values | None = None, generator: torch.Generator | None = None) -> Values:
        """Unknown noise scales ``(C,)`` given their sums of squares: a Metropolis step from ``now``, or the modes."""
        found = {}
        for site, square in squares.items():
            half = 0.5 * self.noise_sites[site].noise_scale ** 2  # c^2 / 2 of the half-normal prior
            count = self._counts[site]
            if now is None or generator is None:
                # The mode in log tau solves 1 - m + s / u - u / c^2 = 0, u = tau^2.
                found[site] = ((half * (count - 1)).square() + 2 * half * square).sqrt().sub(half * (count - 1)).sqrt()
                continue
            shape = ((count - 1).clamp_min(1) / 2).expand(square.shape).contiguous()
            proposed = square / 2 / torch._standard_gamma(shape, generator=generator)
            log_ratio = (now[site].square() - proposed) / (4 * half)
            taken = torch.rand(square.shape, generator=generator, dtype=square.dtype).log() < log_ratio
            found[site] = torch.where(taken, proposed.sqrt(), now[site])
        return found

    @functools.cached_property
    def _counts(self) -> dict[str, Tensor]:
        """Site of an unknown noise -> number of entries measured with it."""
        found = dict.fromkeys(self.noise_sites, torch.zeros((), dtype=torch.float64))
        for some in self.patterns:
            for site, mine in self._measured.items():
                found[site] = found[site] + (some.count[:, None] * mine[some.source[:, None], some.at]).sum()
        return found

    def _seen_moments(self) -> tuple[Values, Values]:
        """Mean and variance of what is seen of each variable."""
        structure = self.templates[0].structure
        names = [*structure.static_order, *(self.slices * structure.order)]
        sums = torch.zeros(3, len(names), dtype=torch.float64)
        for some in self.patterns:
            one, y = some.root[:, :, :1], some.root[:, :, 1:]
            each = torch.stack([some.count[:, None].expand(some.at.shape), (one * y).sum(1), y.square().sum(1)])
            sums.index_add_(1, some.at.flatten(), each.flatten(1))
        found: tuple[Values, Values] = {}, {}
        for name in dict.fromkeys(names):
            count, first, second = sums[:, [i for i, other in enumerate(names) if other == name]].sum(1)
            found[0][name] = first / count
            variance = second / count - (first / count).square()
            found[1][name] = variance if float(variance) > 1e-8 * float(second / count) else torch.ones_like(variance)
        return found
