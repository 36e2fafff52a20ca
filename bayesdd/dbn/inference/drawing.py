"""Draws of a linear-Gaussian template's joint posterior, by the cheapest method that serves.

Complete rows without noise have the posterior in closed form. Else expectation maximisation from scattered starts, then
importance sampling from normals at the modes; where few proposals carry all weight, HMC from there. With many
parameters, where a normal has little of the posterior's mass, chains of data augmentation; where these disagree, they
go on, then HMC. All of it sees the rows through the sufficient statistics of their patterns only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesdd.dbn.inference.augmentation import Augmentation, augmented, expectation_maximised
from bayesdd.dbn.inference.importance import modes, weighted
from bayesdd.dbn.inference.marginal import Marginal
from bayesdd.dbn.inference.patterns import Patterns, commonest
from bayesdd.dbn.inference.regressions import Layout, Regressions
from bayesdd.dbn.inference.statistics import Statistics, of_draws, of_regressions
from bayesdd.dbn.template.structure import Values
from bayesdd.dbn.template.template import Template
from bayesdd.inference.draws import collected
from bayesdd.inference.leapfrog import MAX_STEPS, Chains
from bayesdd.numerics.gaussian import Gaussian, moment_matched
from bayesdd.numerics.pareto import KHAT_LIMIT
from bayesdd.posterior.arviz import function_diagnostics

CHAINS = 8
STEPS, STARTS = 50, 4  # of expectation maximisation, whose ends Newton's method takes further
COMMONEST = 40  # patterns of a source that expectation maximisation looks at
LARGEST = 200  # parameters above which a normal has little of the posterior's mass, and Hessians cost minutes
LEAST_SHARE = 1 / 16  # of the proposals that must be effective, lest few draws carry all
ENOUGH = 0.75  # effective draws, of those asked for, below which more proposals are made
FEWEST = 1000  # proposals, however dear
HANDLED = 2**32  # numbers that the filter may handle for all proposals: about half a minute
AGREED = 4.0  # R-hat of batches of importance sampling, which are independent, is at most 1 + this / draws a batch
BURN = 50  # sweeps of augmentation from where expectation maximisation ended
RHAT = 1.1  # above which chains go on longer, then HMC draws
LONGER = 4  # times as many sweeps that chains may take until they agree, before HMC
HMC_CHAINS, HMC_WARMUP = 32, 50  # chains start from draws; the whitening is renewed after half of the warm-up
HMC_LEAST = 80  # draws of a chain: R-hat of shorter ones is above 1.1 by chance


class Drawn(NamedTuple):
    """Draws, site -> ``(chains, draws, *shape)``, means of the sufficient statistics, and how good the draws are."""

    chains: Values
    statistics: Statistics
    rhat: float
    ess: float


def drawn(
    templates: Sequence[Template],
    patterns: Sequence[Patterns],
    slices: int,
    *,
    draws: int,
    seed: int,
    fallback: bool = True,
) -> Drawn:
    """At least so many draws of the posterior of the patterns; each source's template has its noise.

    Without ``fallback`` chains of augmentation are neither made longer nor followed by HMC.
    """
    generator = torch.Generator().manual_seed(seed)
    augmentation = Augmentation(templates, patterns, slices)
    if augmentation.complete:
        return _exact(augmentation, draws, generator)
    marginal = Marginal(templates, patterns, slices)
    count = CHAINS if marginal.dim > LARGEST else STARTS
    few = commonest(patterns, COMMONEST)
    start = augmentation.starts(count, generator)
    start = expectation_maximised(templates, few, slices, start=start, steps=STEPS)
    parts = modes(marginal, marginal.points(start), _rows(patterns) / _rows(few)) if marginal.dim <= LARGEST else []
    if parts:
        found, serves = _independent(marginal, parts, draws, generator)
        if serves or not fallback:
            return found
        return _by_hmc(marginal, found.chains, parts, draws, generator)
    start = {site: value.repeat_interleave(CHAINS // count, 0) for site, value in start.items()}
    sweeps, runs = math.ceil(draws / CHAINS), []
    for part in range(LONGER if fallback else 1):
        burn = 0 if part else BURN
        settings: dict[str, Any] = {"draws": sweeps, "burn": burn, "thin": 1, "generator": generator}
        runs.append(augmented(templates, patterns, slices, start=start, **settings))
        values, each = zip(*runs, strict=True)
        chains = {site: torch.cat([some[site] for some in values], 1) for site in start}
        statistics = Statistics(*(torch.stack(means).mean(0) for means in zip(*each, strict=True)))
        rhat, ess = diagnostics(chains)
        if not rhat > RHAT:
            return Drawn(chains, statistics, rhat, ess)
        start = {site: value[:, -1] for site, value in chains.items()}
    # Augmentation hardly moves along what no source identifies; HMC crosses such ridges, at several times the cost.
    return _by_hmc(marginal, chains, (), draws, generator) if fallback else Drawn(chains, statistics, rhat, ess)


def diagnostics(chains: Values) -> tuple[float, float]:
    """Largest R-hat and least effective sample size of any value; site -> ``(chains, draws, *shape)``.

    NaN of a single chain, or of fewer than four draws.
    """
    values = torch.cat([value.flatten(2) if value.dim() > 2 else value[..., None] for value in chains.values()], 2)
    if values.shape[0] < 2 or values.shape[1] < 4:
        return math.nan, math.nan
    found = function_diagnostics(values)
    return float(found.rhat.max()), float(found.ess.min())


def _exact(augmentation: Augmentation, draws: int, generator: torch.Generator) -> Drawn:
    """Independent draws given complete rows without noise: normal-inverse-gammas."""
    layout, any_values = augmentation.layout, augmentation.starts(1, generator)
    gram, _ = augmentation.completed(*augmentation.joint(any_values), any_values)
    found = layout.fitted(gram)
    shape = (CHAINS, math.ceil(draws / CHAINS))
    many = Regressions(*(part[0].expand(*shape, *part.shape[1:]).contiguous() for part in found))
    chains = layout.values(*many.draw(layout.real, generator))
    return Drawn(chains, of_regressions(found, layout.real), 1.0, float(draws))


def _independent(
    marginal: Marginal, parts: Sequence[Gaussian], draws: int, generator: torch.Generator
) -> tuple[Drawn, bool]:
    """Importance-sampled draws, and whether the proposals serve."""
    most = max(FEWEST, HANDLED // marginal.numbers)
    proposals = min(max(draws, FEWEST), most)
    for _ in range(2):
        found = weighted(marginal, parts, proposals=proposals, draws=draws, batches=CHAINS, generator=generator)
        share = found.ess / proposals
        if share < LEAST_SHARE or found.ess >= ENOUGH * draws or proposals >= most:
            break
        proposals = min(most, math.ceil(draws / share))
    chains = _chains(marginal, found.points)
    # Resampled draws repeat proposals where these are few: batches agree as so many independent draws do.
    rhat, each = diagnostics(chains)[0], min(found.points.shape[1], found.ess / CHAINS)
    serves = share >= LEAST_SHARE and found.khat < KHAT_LIMIT and not rhat > min(1 + AGREED / each, RHAT)
    return Drawn(chains, _statistics(marginal, chains), rhat, min(found.ess, float(draws))), serves


def _by_hmc(
    marginal: Marginal, chains: Values, parts: Sequence[Gaussian], draws: int, generator: torch.Generator
) -> Drawn:
    """Draws by HMC, started and whitened by draws at hand; between several modes chains jump too."""
    points = marginal.points({site: value.flatten(0, 1) for site, value in chains.items()})
    start = points[torch.linspace(0, len(points) - 1, HMC_CHAINS).long()]
    state = Chains(marginal, generator, moment_matched(points), start, whiten=True, max_steps=MAX_STEPS)

    def transition() -> dict[str, Tensor]:
        if len(parts) > 1:
            state.jump(parts)
        return state.step()

    seen = []
    for iteration in range(HMC_WARMUP):
        transition()
        state.steps.update(state.accepted)
        seen.append(state.position)
        if iteration == HMC_WARMUP // 2:
            state.whiten(torch.cat(seen))
    state.steps.end()
    found = collected(transition, lambda: state.position, max(HMC_LEAST, math.ceil(draws / HMC_CHAINS)), 1)
    values = _chains(marginal, found.values)
    return Drawn(values, _statistics(marginal, values), *diagnostics(values))


def _rows(patterns: Sequence[Patterns]) -> float:
    return sum(float(some.count.sum()) for some in patterns)


def _chains(marginal: Marginal, points: Tensor) -> Values:
    values = marginal.values(points.flatten(0, 1))
    return {site: value.unflatten(0, points.shape[:2]) for site, value in values.items()}


def _statistics(marginal: Marginal, chains: Values) -> Statistics:
    flat = {site: value.flatten(0, 1) for site, value in chains.items()}
    return of_draws(*Layout.of(marginal.templates[0]).stacked(flat))
