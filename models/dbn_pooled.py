"""The joint posterior of several sources: draws, and what distillation needs of it. Computed once, used for every M."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from models.dbn_augmentation import augmented
from models.dbn_source import Rows, Source, gathered
from models.dbn_statistics import Statistics
from models.dbn_template import Template

CHAINS = 8
BURN = 300
KEPT = 2  # every second sweep's draws
RHAT = 1.1  # ratio of spreads, between chains and within, above which a warning says so


@dataclass(frozen=True, eq=False)
class Pooled:
    """Draws of the posterior given all sources.

    Attributes:
        template: The template.
        sources: The sources.
        rows: Their rows, padded to one number of slices.
        draws: Latent site -> ``(S, *shape)``; unknown noise scales are among them.
        statistics: Means of the families' sufficient statistics; for tables E[log theta] of all cells, side by side.
        rhat: Largest ratio of the spread of all chains to that within one; NaN of a single chain.
    """

    template: Template
    sources: tuple[Source, ...]
    rows: list[Rows]
    draws: dict[str, Tensor]
    statistics: Statistics | Tensor
    rhat: float

    @property
    def slices(self) -> int:
        """Number T of slices of the longest sequence."""
        return self.rows[0][0].shape[1]

    @property
    def count(self) -> int:
        """Number N of rows."""
        return sum(len(x) for x, _ in self.rows)

    @property
    def noisy(self) -> list[Template]:
        """The template with every source's noise."""
        return [replace(self.template, noise=s.noise, noise_site=s.noise_site) for s in self.sources]


def pooled(template: Template, sources: Sequence[Source], *, draws: int = 4000, seed: int = 0) -> Pooled:
    """Draws of the joint posterior by data augmentation.

    Args:
        template: The template, without noise.
        sources: The sources.
        draws: Draws that are kept.
        seed: Seed.

    Raises:
        ValueError: As for ``Template.target``.

    Warns:
        UserWarning: The chains disagree.
    """
    rows = gathered(template, sources)
    if template.states:
        x, static = (torch.cat(part) for part in zip(*rows, strict=True))
        for source in sources:
            replace(template, noise=source.noise, noise_site=source.noise_site)  # refuses noise on states
        data = {"x": x, "static": static} if template.static else {"x": x}
        found = template.gibbs(data, draws=draws, burn=BURN, seed=seed)
        logs = torch.cat([found[site].log().mean(0).flatten() for site in template.sites])
        return Pooled(template, tuple(sources), rows, found, logs, math.nan)
    noisy = [replace(template, noise=source.noise, noise_site=source.noise_site) for source in sources]
    generator = torch.Generator().manual_seed(seed)
    sweeps = math.ceil(draws / CHAINS) * KEPT
    chains, statistics = augmented(noisy, rows, draws=sweeps, burn=BURN, chains=CHAINS, thin=KEPT, generator=generator)
    rhat = max(_rhat(value.flatten(2)) if value.dim() > 2 else _rhat(value[..., None]) for value in chains.values())
    if rhat > RHAT:
        warnings.warn(
            f"pooled: the {CHAINS} chains of the joint posterior disagree (R-hat {rhat:.2f}): ask for more draws= than "
            f"{draws}, or inspect what no source identifies.",
            UserWarning,
            stacklevel=2,
        )
    flat = {site: value.flatten(0, 1)[:draws] for site, value in chains.items()}
    return Pooled(template, tuple(sources), rows, flat, statistics, rhat)


def predictive(template: Template, draws: Mapping[str, Any], data: Any) -> Tensor:
    """Log posterior predictive density of every row, log mean_s p(row | theta_s), nats: ``(rows,)``.

    Args:
        template: The template.
        draws: Latent site -> ``(S, *shape)``.
        data: As for ``Template.task``.
    """
    by_draw = template.log_likelihood(draws, data)
    return by_draw.logsumexp(0) - math.log(len(by_draw))


def _rhat(draws: Tensor) -> float:
    """Of chains ``(chains, draws, values)``, each cut in half."""
    half = draws.shape[1] // 2
    if half < 2:
        return math.nan
    halves = torch.cat([draws[:, :half], draws[:, half : 2 * half]])
    within = halves.var(1).mean(0)
    between = halves.mean(1).var(0)
    return float((1 + between / within).sqrt().max())
