"""The joint posterior of several sources: draws, and what distillation needs of it. Computed once, used for every M."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesdd.dbn.inference._gibbs import gibbs
from bayesdd.dbn.inference.augmentation import augmented
from bayesdd.dbn.inference.mixed import mixed_draws
from bayesdd.dbn.inference.regressions import Layout
from bayesdd.dbn.inference.statistics import Statistics, of_draws
from bayesdd.dbn.likelihood.parameters import flattened, log_likelihood
from bayesdd.dbn.likelihood.source import Source, gathered, target, with_noise
from bayesdd.dbn.template.columns import Rows, as_columns
from bayesdd.dbn.template.mixture import Mixture
from bayesdd.dbn.template.template import Template
from bayesdd.density.density import Density
from bayesdd.inference import hmc
from bayesdd.numerics import words
from bayesdd.numerics.gaussian import moment_matched
from bayesdd.posterior.arviz import function_diagnostics
from bayesdd.task import Task

CHAINS = 8
MIXED_CHAINS, MIXED_BURN = 4, 100  # given all else, whole rows of numbers and all parameters are drawn at once
BURN = 300
KEPT = 2  # every second sweep's draws
RHAT = 1.1  # above which chains go on longer, then HMC draws, and then a warning says so
FEWEST = 4  # draws of a chain, below which R-hat is undefined
LONGER = 4  # times as many sweeps for chains that disagree, before HMC, which costs ten times as much, is asked
HMC_CHAINS, HMC_WARMUP = 32, 300


@dataclass(frozen=True, eq=False)
class Pooled:
    """Draws of the posterior given all sources.

    Attributes:
        template: The template.
        sources: The sources.
        rows: Their rows, padded to one number of slices.
        draws: Latent site -> ``(S, *shape)``; unknown noise scales are among them.
        statistics: Means of the families' sufficient statistics; for tables E[log theta] of all cells, side by side; of
            a mixed template those of its continuous part (``bayesdd.dbn.template.mixture``).
        rhat: Largest split R-hat by ranks of any parameter (ArviZ); NaN of a single chain, or of fewer than four draws.
    """

    template: Template
    sources: tuple[Source, ...]
    rows: list[Rows]
    draws: dict[str, Tensor]
    statistics: Statistics | Tensor
    rhat: float

    def __repr__(self) -> str:
        return words.text(*self._said)

    def _repr_html_(self) -> str:
        return words.html(*self._said)

    @property
    def _said(self) -> tuple[str, dict[str, str]]:
        """What it is in a line, and its sources and sites."""
        draws = len(next(iter(self.draws.values())))
        return f"Pooled: {draws:,} draws of the posterior of {len(self.sources)} sources", {
            "rows": f"{self.count:,} of up to {self.slices} slices",
            "variables": words.listed([*self.template.static, *self.template.variables]),
            "sites": words.listed(words.sized(name, value.shape[1:]) for name, value in self.draws.items()),
            "R-hat": "not known" if math.isnan(self.rhat) else f"at most {self.rhat:.3f}",
        }

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
        return with_noise(self.template, self.sources)


def pooled(
    template: Template, sources: Sequence[Source], *, draws: int = 4000, seed: int = 0, fallback: bool = True
) -> Pooled:
    """Draws of the joint posterior by data augmentation, of mixed templates by Gibbs sampling.

    Args:
        template: The template, without noise.
        sources: The sources.
        draws: Draws that are kept.
        seed: Seed.
        fallback: Whether chains that disagree are drawn again, longer, and then by HMC, minutes for their seconds.

    Raises:
        ValueError: As for :func:`bayesdd.dbn.target`.

    Warns:
        UserWarning: The chains disagree.
    """
    rows, noisy = gathered(template, sources), with_noise(template, sources)
    if template.mixed:
        chains = mixed_draws(
            noisy,
            rows,
            draws=math.ceil(draws / MIXED_CHAINS),
            burn=MIXED_BURN,
            chains=MIXED_CHAINS,
            generator=torch.Generator().manual_seed(seed),
        )
        flat = {site: value.flatten(0, 1)[:draws] for site, value in chains.items()}
        mixture = Mixture.of(template)
        of_numbers = of_draws(*Layout.of(mixture.continuous).stacked(mixture.values(flat)))
        rhat = _worst(chains)
        if rhat > RHAT:
            _warn(rhat, draws)
        return Pooled(template, tuple(sources), rows, flat, of_numbers, rhat)
    if template.states:
        x, static = (torch.cat(part) for part in zip(*rows, strict=True))
        found = gibbs(template, as_columns(template, (x, static)), draws=draws, burn=BURN, seed=seed)
        logs = torch.cat([found[site].log().mean(0).flatten() for site in template.sites])
        return Pooled(template, tuple(sources), rows, found, logs, math.nan)
    generator = torch.Generator().manual_seed(seed)
    sweeps = math.ceil(draws / CHAINS) * KEPT
    for times in (1, LONGER) if fallback else (1,):
        settings = {"draws": times * sweeps, "burn": BURN, "chains": CHAINS, "thin": times * KEPT}
        chains, statistics = augmented(noisy, rows, **settings, generator=generator)
        if (rhat := _worst(chains)) <= RHAT:
            break
    flat = {site: value.flatten(0, 1)[:draws] for site, value in chains.items()}
    if rhat > RHAT and fallback:
        # Augmentation hardly moves along what no source identifies; HMC costs ten times as much, but crosses ridges.
        flat, rhat = _by_hmc(target(template, sources), noisy, flat, draws, seed)
        statistics = of_draws(*Layout.of(template).stacked(flat))
    if rhat > RHAT:
        _warn(rhat, draws)
    return Pooled(template, tuple(sources), rows, flat, statistics, rhat)


def _warn(rhat: float, draws: int) -> None:
    warnings.warn(
        f"pooled: the chains of the joint posterior disagree (R-hat {rhat:.2f}): ask for more draws= than {draws}, "
        "or inspect what no source identifies.",
        UserWarning,
        stacklevel=3,
    )


def _by_hmc(
    tasks: list[Task], noisy: list[Template], found: dict[str, Tensor], draws: int, seed: int
) -> tuple[dict[str, Tensor], float]:
    """Draws by HMC, started and whitened by those of augmentation, and their R-hat."""
    density = Density([(task, task.data, None) for task in tasks])
    sites = {site: template for template in noisy for site in template.sites}
    points = flattened(noisy[0], {site: found[site] for site in density.starts})
    start = points[torch.linspace(0, len(points) - 1, HMC_CHAINS).long()]
    kept = math.ceil(draws / HMC_CHAINS)
    drawn = hmc(
        density,
        draws=kept,
        chains=HMC_CHAINS,
        seed=seed,
        warmup=HMC_WARMUP,
        gaussian=moment_matched(points),
        start=start,
    )
    values: dict[str, Tensor] = {}
    for part in density.parts:
        values = part.task.constrain(drawn.flat[:, part.index]) | values
    chains = {site: values[site].unflatten(0, (HMC_CHAINS, kept)) for site in sites}
    return {site: values[site][:draws] for site in sites}, _worst(chains)


def predictive(template: Template, draws: Mapping[str, Any], data: Any) -> Tensor:
    """Log posterior predictive density of every row, log mean_s p(row | theta_s), nats: ``(rows,)``.

    Takes draws ``(S, *shape)`` of every latent site, and columns as for :func:`bayesdd.dbn.task`.
    """
    by_draw = log_likelihood(template, draws, data)
    return by_draw.logsumexp(0) - math.log(len(by_draw))


def _worst(chains: Mapping[str, Tensor]) -> float:
    """Largest R-hat of any value; site -> ``(chains, draws, *shape)``."""
    values = torch.cat([value.flatten(2) if value.dim() > 2 else value[..., None] for value in chains.values()], 2)
    return float(function_diagnostics(values).rhat.max()) if values.shape[1] >= FEWEST else math.nan
