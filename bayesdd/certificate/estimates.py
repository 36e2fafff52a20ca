"""Estimates of every functional of the log-ratio, each with its standard error."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bayesdd.inference.draws import Draws
from bayesdd.numerics.pareto import KHAT_LIMIT, khat
from bayesdd.objectives import forward_kl, half_variance, reverse_kl
from bayesdd.task.naming import Names

CONSTANT = 0.999  # share of effective draws above which importance weights count as constant
ROUNDING = 1e-11  # of the log-likelihood: what float64 sums cannot resolve


def estimate(log_ratio: Tensor, draws: Draws, scale: float) -> dict[str, Any]:
    """Estimates and standard errors of all functionals: the numeric fields of a Certificate.

    Args:
        log_ratio: Delta at the draws, nats, ``(chains * draws,)``.
        draws: The draws, with their importance weights if any.
        scale: Size of the log-likelihoods that Delta is the difference of, nats; differences below its rounding are 0.
    """
    chains = len(draws.values)
    ok = torch.isfinite(log_ratio)
    ratio = torch.where(ok, log_ratio, torch.nan_to_num(log_ratio[ok]).amin() - 1e3 if bool(ok.any()) else -1e3)
    if float(ratio.max() - ratio.min()) <= ROUNDING * scale:
        ratio = torch.zeros_like(ratio)
    # Constants cancel, and cost digits if left in. The median, not the mean: one draw at -1e20 would make all others
    # equal.
    ratio = ratio - ratio.median()
    base = draws.flat_log_weight - draws.flat_log_weight.logsumexp(0)
    weight = base.exp() * len(base)
    mean = (base.exp() * ratio).sum()
    evidence = (base + ratio).logsumexp(0)
    reverse, forward, half = (float(kl(ratio, base)) for kl in (reverse_kl, forward_kl, half_variance))
    corrected = (base + ratio - evidence).exp()
    ess = float(1 / (corrected**2).sum())
    # Influence of a draw on each estimate, times its weight, which may be next to nothing where the ratio is huge.
    tilted = corrected * len(base)
    influence = {
        "kl_reverse": tilted - weight * (1 + ratio - mean),
        "kl_forward": tilted * (ratio - evidence - 1 - forward) + weight,
        "half_variance": weight * (0.5 * (ratio - mean) ** 2 - half),
    }
    # Nearly constant weights have no tail that matters, whatever Pareto shape their few outliers fit.
    even = float(1 / (base.exp() ** 2).sum())
    shape, shape_error = khat(base + ratio) if ess < CONSTANT * even else (-math.inf, 0.0)
    spread = _standard_error((corrected * len(base)) ** 2, chains) / len(base)
    errors = {name: _standard_error(terms, chains) for name, terms in influence.items()}
    errors |= {"khat": shape_error, "ess": ess**2 * spread}
    if not shape < KHAT_LIMIT:
        errors["kl_forward"] = math.inf
        if not math.isinf(shape) or shape > 0:
            errors["kl_reverse"] = max(errors["kl_reverse"], abs(float(evidence - mean)))
    return {
        **{"kl_reverse": reverse, "kl_forward": forward, "half_variance": half, "khat": shape, "ess": ess},
        **{f"{name}_se": error for name, error in errors.items()},
        "draws": len(ratio),
    }


def _standard_error(terms: Tensor, chains: int) -> float:
    """Standard error of a mean from the spread of the chains' means (one draw a chain: independent draws).

    Influences are heavy-tailed: a sample that lacks the rare large ones has too low a mean and too small a spread. The
    largest one seen is therefore added, as if one more like it had been missed.
    """
    means = terms.reshape(chains, -1).mean(1)
    if chains == 1:
        return math.inf
    largest = float((means - means.mean()).abs().max()) / chains
    return math.hypot(float(means.std()) / math.sqrt(chains), 1.5 * largest)


def corrected(
    values: dict[str, Tensor], log_weight: Tensor, log_ratio: Tensor, names: Names | None = None
) -> pd.DataFrame:
    """Means and sds of every parameter under the full posterior and under the distilled one.

    Args:
        values: Draws of the distilled posterior in the model's units, site -> ``(S, *shape)``.
        log_weight: Importance log weights of the draws, ``(S,)``.
        log_ratio: Delta, nats, ``(S,)``.
        names: Names along the sites' axes.

    Returns:
        Index: parameter (``w[0]`` or ``w[age]``); columns ``mean``, ``sd`` (corrected), ``distilled_mean``,
        ``distilled_sd``.
    """
    names = names or Names({}, {})
    index = [
        name + (f"[{','.join(map(str, place))}]" if place else "")
        for name, value in values.items()
        for place in itertools.product(*names.along(name, tuple(value.shape[1:])))
    ]
    columns = torch.cat([value.reshape(len(value), -1).double() for value in values.values()], 1)
    table = {}
    for prefix, logits in (("", log_weight + log_ratio), ("distilled_", log_weight)):
        weight = torch.softmax(logits, 0)[:, None]
        mean = (weight * columns).sum(0)
        table[f"{prefix}mean"] = mean.tolist()
        table[f"{prefix}sd"] = (weight * (columns - mean) ** 2).sum(0).sqrt().tolist()
    return pd.DataFrame(table, index=index)
