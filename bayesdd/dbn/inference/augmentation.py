r"""Posterior of a linear-Gaussian template from several incomplete, noisy sources, by data augmentation.

A sweep draws every true entry of every row given what is seen of the row, then all families given the completed rows,
then the unknown noise scales given what lies between seen and true:

.. math:: z \mid y, \theta \sim \text{Normal}, \qquad \theta \mid z \sim \text{Normal-inverse-gamma}, \qquad
          \tau \mid y, z \propto \tau^{-m} e^{-s / 2\tau^2 - \tau^2 / 2 c^2}.

Rows of one pattern of missing entries share their gain (Matheron's rule: a joint draw of truth and measurement, moved
to the measurement that was made). Several chains move together. Slices after the last that
a row has an entry of do not count. Source: Tanner & Wong, "The calculation of posterior distributions by data
augmentation", JASA 1987.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.inference.statistics import Statistics, of_regressions
from bayesdd.dbn.likelihood.gaussian import entries, grouped
from bayesdd.dbn.likelihood.missing import noise_of_entries, unrolled
from bayesdd.dbn.template.columns import Rows
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template
from bayesdd.numerics.refusal import Refusal


def augmented(
    templates: list[Template],
    rows: list[Rows],
    *,
    draws: int,
    burn: int,
    chains: int,
    thin: int,
    generator: torch.Generator,
) -> tuple[Values, Statistics]:
    """Draws of the joint posterior, and the means of the sufficient statistics.

    Each source has its template, with its noise, and its rows, all of one number of slices. ``draws`` sweeps of each
    chain follow ``burn`` that are dropped; the draws of every ``thin``-th are kept, the statistics take all.

    Returns:
        Latent site, noise sites among them -> ``(chains, draws // thin, *shape)``; the statistics.
    """
    if draws < 1:
        raise Refusal(f"augmentation needs at least one sweep, got draws={draws}.")
    layout, slices = Layout.of(templates[0]), rows[0][0].shape[1]
    state = Completion.start(templates, rows, chains, generator)
    kept: list[Values] = []
    total = [torch.zeros((), dtype=torch.float64)] * len(Statistics._fields)
    for sweep in range(burn + draws):
        found = layout.fitted(state.gram(layout))
        values = layout.values(*found.draw(layout.real, generator))
        if sweep >= burn:
            total = [a + b for a, b in zip(total, of_regressions(found, layout.real), strict=True)]
            if (sweep - burn) % thin == 0:
                kept.append(values | state.noises)
        state.move(*vmap(lambda v: unrolled(templates[0], v, slices))(values), generator)
    statistics = Statistics(*(part / (draws * chains) for part in total))
    return {site: torch.stack([draw[site] for draw in kept], 1) for site in kept[0]}, statistics


@dataclass(eq=False)
class Completion:
    """Completed rows of all sources and unknown noise scales: what sweeps move.

    Attributes:
        parts: The sources.
        rows: Completed rows of each ``(chains, rows, n)``, entries in the order of the sources' template.
        noises: Noise site -> scales ``(chains,)``.
    """

    parts: list[_Part]
    rows: list[Tensor]
    noises: Values

    @classmethod
    def start(cls, templates: list[Template], rows: list[Rows], chains: int, generator: torch.Generator) -> Completion:
        """Scattered starting points; arguments as for :func:`augmented`."""
        parts = [_Part.of(template, *some) for template, some in zip(templates, rows, strict=True)]
        spread = torch.cat([entries(templates[0], *some) for some in rows]).reshape(-1)
        guess = float(spread[~spread.isnan()].std(correction=0)) or 1.0
        noises: Values = {
            site: torch.full((chains,), 0.3 * guess, dtype=torch.float64)
            for site in dict.fromkeys(template.noise_site for template in templates if template.noise_site)
        }
        return cls(parts, [part.guess(chains, guess, generator) for part in parts], noises)

    def gram(self, layout: Layout) -> Tensor:
        """Second moments of all completed rows, ``(chains, 3, d, d)``."""
        return torch.stack([part.gram(layout, z) for part, z in zip(self.parts, self.rows, strict=True)]).sum(0)

    def move(self, mean: Tensor, factor: Tensor, generator: torch.Generator) -> None:
        """Draws rows given the moments of all entries ``(chains, n)`` and ``(chains, n, n)``, then noise scales."""
        self.rows = [part.draw(mean, factor, self.noises, generator) for part in self.parts]
        self.noises = {site: _noise(site, self.parts, self.rows, now, generator) for site, now in self.noises.items()}


@dataclass(frozen=True, eq=False)
class _Part:
    """One source: its entries ``(rows, n)``, NaN where missing, ordered by pattern.

    A pattern is its number of rows and the entries seen; ``live`` ``(rows, T)`` says which slices count.
    """

    template: Template
    flat: Tensor
    patterns: list[tuple[int, Tensor]]
    live: Tensor

    @classmethod
    def of(cls, template: Template, x: Tensor, static: Tensor) -> _Part:
        flat = entries(template, x, static)
        groups = grouped(~flat.isnan())
        flat = flat[torch.cat([mine for mine, _ in groups])]
        patterns = [(len(mine), at) for mine, at in groups]
        seen = (~flat[:, static.shape[1] :].isnan()).reshape(len(flat), x.shape[1], -1).any(2)
        live = seen.flip(1).to(torch.int8).cummax(1).values.flip(1).double()
        return cls(template, flat, patterns, live)

    def guess(self, chains: int, spread: float, generator: torch.Generator) -> Tensor:
        """Completed rows to start from, scattered: ``(chains, rows, n)``."""
        noise = spread * torch.randn(chains, *self.flat.shape, generator=generator, dtype=torch.float64)
        return torch.where(self.flat.isnan(), noise, self.flat)

    def gram(self, layout: Layout, completed: Tensor) -> Tensor:
        """Second moments of completed rows, ``(chains, 3, d, d)``."""
        count = len(self.template.static)
        x = completed[..., count:].unflatten(-1, (self.live.shape[1], -1))
        return layout.grams(x, completed[..., :count], torch.ones(len(self.flat), dtype=torch.float64), self.live)

    def draw(self, mean: Tensor, factor: Tensor, noises: Values, generator: torch.Generator) -> Tensor:
        """True entries given what is seen, ``(chains, rows, n)``."""
        slices, chains = self.live.shape[1], len(mean)
        variance = noise_of_entries(self.template, {"": mean} | noises, slices).expand(chains, -1)
        shape = (chains, *self.flat.shape)
        true = mean[:, None] + torch.randn(shape, generator=generator, dtype=mean.dtype) @ factor.mT
        error = self.flat - true
        if self.template.noisy:
            noise = torch.randn(shape, generator=generator, dtype=mean.dtype)
            error = error - variance.sqrt()[:, None] * noise
        counts = [count for count, _ in self.patterns]
        for (_, at), some, off in zip(self.patterns, true.split(counts, 1), error.split(counts, 1), strict=True):
            half = factor[:, at]
            spread = half @ half.mT + torch.diag_embed(variance[:, at])
            root, _ = torch.linalg.cholesky_ex(spread)
            gain = torch.cholesky_solve(half @ factor.mT, root)
            some += off[..., at] @ gain
        return true


def _noise(site: str, parts: list[_Part], completed: list[Tensor], now: Tensor, generator: torch.Generator) -> Tensor:
    """One Metropolis step of a noise scale: proposed from its conditional without the prior's exponent."""
    mine = [(part, z) for part, z in zip(parts, completed, strict=True) if part.template.noise_site == site]
    square = torch.stack([(part.flat - z).square().nansum((1, 2)) for part, z in mine]).sum(0)
    count = sum(int((~part.flat.isnan()).sum()) for part, _ in mine)
    # In u = scale^2 the conditional is inverse gamma ((count - 1) / 2, square / 2) times exp(-u / 2 c^2).
    shape = torch.full_like(now, max(count - 1, 1) / 2)
    proposed = square / 2 / torch._standard_gamma(shape, generator=generator)
    log_ratio = (now.square() - proposed) / (2 * mine[0][0].template.noise_scale ** 2)
    taken = torch.rand(now.shape, generator=generator, dtype=now.dtype).log() < log_ratio
    return torch.where(taken, proposed.sqrt(), now)
