"""Imputation of pairs of neighbouring slices, once or often, and Rubin's rules for what is fitted on each set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bayesdd.dbn.inference import NormalInverseGamma, Posterior
from bayesdd.dbn.template.structure import Values
from studies.dbn_merge import baselines
from studies.dbn_merge.cases import Problem

SETS = 20  # imputed sets


def paired(problem: Problem, *, seed: int) -> Posterior:
    """Families of later slices from imputed pairs of neighbouring slices, those of the first from what is there."""
    pairs = pairs_of(problem)
    filled = baselines.imputed(replace(problem, seen=pairs.flatten(2)), seed=seed)
    return _joined(problem, problem.seen, filled.reshape(pairs.shape))


def mice(problem: Problem, *, seed: int, sets: int = SETS) -> list[Posterior]:
    """Posterior of the families given each set that multiple imputation by chained equations completes.

    The equations are scikit-learn's Bayesian ridge regressions of every column of the pairs on all others, from which
    coefficients and values are drawn; statsmodels' predictive mean matching takes six times as long. The known variance
    of the noise is taken off the moments. Families of the first slice are those of the sequences' first pairs.

    Source: van Buuren & Groothuis-Oudshoorn, "mice: Multivariate imputation by chained equations in R", JSS 2011.
    """
    pairs, found = pairs_of(problem), []
    for number in range(sets):
        filled = baselines.imputed(replace(problem, seen=pairs.flatten(2)), seed=sets * seed + number)
        both = filled.reshape(len(problem.seen), problem.slices - 1, 2, -1)
        found.append(_joined(problem, both[:, 0], both.flatten(0, 1)))
    return found


def rubin(posteriors: Sequence[Posterior], *, draws: int, seed: int) -> Values:
    r"""Draws of the parameters from the normals of Rubin's rules, site -> ``(draws, *shape)``.

    .. math:: N(\bar Q,\; \bar U + (1 + 1 / m) B)

    of a family's coefficients, and of the log of its variance: mean of the m sets' means, mean of their variances and
    variance of their means.

    Source: Rubin, "Multiple imputation for nonresponse in surveys", Wiley 1987.
    """
    generator, found = torch.Generator().manual_seed(seed), {}
    for site in posteriors[0].families:
        families = [of.families[site] for of in posteriors]
        every = [family for family in families if isinstance(family, NormalInverseGamma)]
        if len(every) < len(families):
            raise TypeError(f"{site} is not linear-Gaussian")
        within = [one.scale / (one.shape - 1) * torch.linalg.inv(one.precision) for one in every]
        found[site] = _normal(torch.stack([one.mean for one in every]), torch.stack(within), draws, generator)
        logs = torch.stack([one.scale.log() - torch.digamma(one.shape) for one in every])
        spread = torch.stack([torch.polygamma(1, one.shape) for one in every])
        found[f"{site}_variance"] = _normal(logs[:, None], spread[:, None, None], draws, generator)[:, 0].exp()
    return found


def _normal(means: Tensor, within: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Draws ``(draws, k)`` given means ``(m, k)`` and covariances ``(m, k, k)`` of the sets."""
    away = means - means.mean(0)
    between = away.mT @ away / (len(means) - 1)
    root = torch.linalg.cholesky(within.mean(0) + (1 + 1 / len(means)) * between)
    noise = torch.randn(draws, means.shape[1], generator=generator, dtype=means.dtype)
    return means.mean(0) + noise @ root.mT


def pairs_of(problem: Problem) -> Tensor:
    """Pairs of neighbouring slices, sequence by sequence ``(rows (T - 1), 2, V)``."""
    return torch.stack([problem.seen[:, :-1], problem.seen[:, 1:]], 2).flatten(0, 1)


def _joined(problem: Problem, first: Tensor, pairs: Tensor) -> Posterior:
    """Families of the first slice from some sequences, those of later slices from pairs ``(rows, 2, V)``."""
    initial = {family.site for family in problem.template.structure.initial}
    own, later = (baselines.available(replace(problem, seen=some)) for some in (first, pairs))
    return Posterior({site: (own if site in initial else later).families[site] for site in later.families})
