r"""Posterior of a linear-Gaussian template from several incomplete, noisy sources, by data augmentation.

A sweep draws the second moments of all true entries given what is seen, then all families given these moments, then
the unknown noise scales given what lies between seen and true:

.. math:: z \mid y, \theta \sim \text{Normal}, \qquad \theta \mid z \sim \text{Normal-inverse-gamma}, \qquad
          \tau \mid y, z \propto \tau^{-m} e^{-s / 2\tau^2 - \tau^2 / 2 c^2}.

No row is ever completed. N rows of one pattern of missing entries have conditional means D B, where D = (1, y) = QR,
and independent errors E: their moments are those of the k rows R B + Q'E, and of the errors orthogonal to D, a Wishart
matrix of N - k degrees of freedom (Bartlett's factor). A sweep therefore costs the same for any number of rows. Errors
are drawn by Matheron's rule: a joint draw of truth and measurement, moved to the measurement that was made. Slices
after the last that a row has an entry of do not count. With means in place of draws a sweep is one step of expectation
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
from torch.func import vmap

from bayesdd.dbn.inference.patterns import Patterns
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.inference.statistics import Statistics, of_regressions
from bayesdd.dbn.likelihood.missing import noise_of_entries, unrolled
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal

NUMBERS = 2**22  # of the largest array that a chunk of patterns may make: 32 MB
SCATTER = 0.5  # deviation of the coefficients that chains start from, in units of the variables' deviations
STILL = 1e-3  # change of any parameter below which expectation maximisation ends


def augmented(
    templates: Sequence[Template],
    patterns: Sequence[Patterns],
    slices: int,
    *,
    start: Values,
    draws: int,
    burn: int,
    thin: int,
    generator: torch.Generator,
) -> tuple[Values, Statistics]:
    """Draws of the joint posterior, and the means of the sufficient statistics.

    Each source has its template, with its noise; ``start`` are the parameters of the chains ``(chains, *shape)``.
    ``draws`` sweeps of each chain follow ``burn`` that are dropped; the draws of every ``thin``-th are kept, the
    statistics take all.

    Returns:
        Latent site, noise sites among them -> ``(chains, draws // thin, *shape)``; the statistics.
    """
    if draws < 1:
        raise Refusal(f"augmentation needs at least one sweep, got draws={draws}.")
    augmentation = Augmentation(templates, patterns, slices)
    layout, values = augmentation.layout, start
    kept: list[Values] = []
    total = [torch.zeros((), dtype=torch.float64)] * len(Statistics._fields)
    for sweep in range(burn + draws):
        gram, squares = augmentation.completed(*augmentation.joint(values), values, generator)
        found = layout.fitted(gram)
        values = layout.values(*found.draw(layout.real, generator)) | augmentation.noises(squares, values, generator)
        if sweep >= burn:
            total = [a + b for a, b in zip(total, of_regressions(found, layout.real), strict=True)]
            if (sweep - burn) % thin == 0:
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
        gram, squares = augmentation.completed(*augmentation.joint(values), values)
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

    def joint(self, values: Values) -> tuple[Tensor, Tensor]:
        """Mean ``(C, n)`` of all true entries and a factor ``(C, n, n)`` of their covariance at parameters."""
        own = {site: value for site, value in values.items() if site not in self.noise_sites}
        found: tuple[Tensor, Tensor] = vmap(lambda v: unrolled(self.templates[0], v, self.slices))(own)
        return found

    def completed(
        self, mean: Tensor, factor: Tensor, noises: Values, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Values]:
        """Second moments of all true entries given what is seen: drawn, or without generator their means.

        ``mean`` and ``factor`` are of all true entries (:meth:`joint`), unknown noise scales among ``noises``. Returns
        moments of each stretch ``(C, kinds, d, d)``, and for each unknown noise the sum of its squares ``(C,)``.
        """
        given = {"": mean} | noises
        noise = torch.stack([noise_of_entries(t, given, self.slices).expand(len(mean), -1) for t in self.templates])
        size = mean.shape[1]
        gram = mean.new_zeros(len(mean), self.layout.kinds, self.layout.width, self.layout.width)
        squares = {site: mean.new_zeros(len(mean)) for site in self.noise_sites}
        for some in self.patterns:
            step = max(1, NUMBERS // (len(mean) * size * (size + some.root.shape[1])))
            for part in torch.arange(len(some.count)).split(step):
                chunk = Patterns(*(getattr(some, name)[part] for name in ("source", "count", "at", "root")))
                moments, square = _completed(chunk, mean, factor, noise, generator)
                gram = gram + self._by_slice(chunk, moments)
                for site, mine in self._measured.items():
                    squares[site] = squares[site] + (square * mine[chunk.source[:, None], chunk.at]).sum((1, 2))
        return gram, squares

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

    def _by_slice(self, some: Patterns, moments: Tensor) -> Tensor:
        """Moments of (1, entries) ``(C, p, 1 + n, 1 + n)`` as those of each stretch of slices, summed over patterns."""
        fixed, size = 1 + len(self.templates[0].static), len(self.templates[0].variables)
        width, stretches = self.layout.width, self.templates[0].structure.stretches
        gram = moments.new_zeros(len(moments), self.layout.kinds, width, width)
        # The last slice with an entry; -1 is that of static values.
        last = (some.at.max(1).values - fixed + 1).div(size, rounding_mode="floor").clamp_min(-1)
        live, ends = moments.new_zeros(len(moments), *moments.shape[2:]), int(last.max())
        for t in range(ends, -2, -1):
            if t == ends:
                live = moments.sum(1) if bool((last == ends).all()) else moments[:, last == ends].sum(1)
            elif bool((last == t).any()):
                live = live + moments[:, last == t].sum(1)
            first, after = fixed + max(0, t - self.layout.lags) * size, fixed + (t + 1) * size
            place = width - (after - first)
            # Static values are their own stretch, of rows of whatever slices; t = -1 stands for it.
            mine = [k for k, one in enumerate(stretches) if (t in one.slices(self.slices) if k else t == -1)]
            for to in (gram[:, k] for k in mine):
                to[:, :fixed, :fixed] += live[:, :fixed, :fixed]
                to[:, :fixed, place:] += live[:, :fixed, first:after]
                to[:, place:, :fixed] += live[:, first:after, :fixed]
                to[:, place:, place:] += live[:, first:after, first:after]
        return gram


def _completed(
    some: Patterns, mean: Tensor, factor: Tensor, noise: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Moments of (1, z) ``(C, p, 1 + n, 1 + n)``, and squared errors ``(C, p, r)``, of true entries z of some patterns.

    Given the mean ``(C, n)`` and factor ``(C, n, n)`` of all entries, and variances of the noise ``(sources, C, n)``.
    """
    chains, size = mean.shape
    at, count = some.at, some.count
    spread = noise[some.source[:, None], :, at].permute(2, 0, 1)  # (C, p, r)
    covariance = factor @ factor.mT
    across = covariance[:, at]  # of entries seen and all entries, (C, p, r, n)
    own = across.gather(3, at[None, :, None].expand(chains, -1, at.shape[1], -1))
    root, _ = torch.linalg.cholesky_ex(own + torch.diag_embed(spread))
    first, y = some.root[None, :, :, :1], some.root[None, :, :, 1:]
    if generator is None:
        gain = torch.cholesky_solve(across, root)
        rows = first * mean[:, None, None] + (y - first * mean[:, at][:, :, None]) @ gain
        left = covariance[:, None] - across.mT @ gain
        whole = torch.cat([first.expand(chains, -1, -1, -1), rows], 3)
        moments = whole.mT @ whole
        moments[..., 1:, 1:] += count[:, None, None] * left
        places = at[:, :, None].expand(-1, -1, at.shape[1])
        seen = left[:, torch.arange(len(at))[:, None, None], places, places.mT].diagonal(dim1=2, dim2=3)
        error = y - rows.gather(3, at[None, :, None].expand(chains, -1, rows.shape[2], -1))
        return moments, error.square().sum(2) + count[:, None] * seen
    noises = _independent(count, chains, y.shape[2], size + at.shape[1], generator)
    extra = (0, 0, 0, noises.shape[2] - y.shape[2])
    first, y = (torch.nn.functional.pad(part, extra) for part in (first, y))
    rows = first * mean[:, None, None] + noises[..., :size] @ factor.mT[:, None]
    places = at[None, :, None].expand(chains, -1, rows.shape[2], -1)
    off = y - rows.gather(3, places) - spread.sqrt()[:, :, None] * noises[..., size:]
    rows = rows + torch.cholesky_solve(off.mT, root).mT @ across
    whole = torch.cat([first.expand(chains, -1, -1, -1), rows], 3)
    return whole.mT @ whole, (y - rows.gather(3, places)).square().sum(2)


def _independent(count: Tensor, chains: int, k: int, width: int, generator: torch.Generator) -> Tensor:
    """Standard normal rows ``(C, p, k + m, width)`` with the second moments of as many as count ``(p,)``.

    The first k are independent of each other; the m others are a factor of a Wishart matrix of count - k degrees of
    freedom, or the rows themselves where these are fewer than its width.
    """
    freedom = count - k
    m = int(min(float(freedom.max()), width))
    found = torch.randn(chains, len(count), k + m, width, generator=generator, dtype=torch.float64)
    if m == 0:
        return found
    many = freedom >= width
    order = torch.arange(m)
    shape = ((freedom[:, None] - order) / 2).clamp_min(0.5).expand(chains, -1, -1)
    chi = (2 * torch._standard_gamma(shape.contiguous(), generator=generator)).sqrt()
    triangle = found[:, :, k:].triu(1)
    triangle[:, :, order, order] = chi
    rows = found[:, :, k:] * (order[:, None] < freedom[:, None, None])
    found[:, :, k:] = torch.where(many[:, None, None], triangle, rows)
    return found
