"""What chains say about themselves: sites that have not converged, chains that stand still, divergent transitions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bayesdd.posterior import arviz

RHAT = 1.01  # above it chains disagree (Vehtari et al. 2021) ...
RHAT_NOISE = 3.0  # ... and by so much divided by the draws of a chain more if they are few
LEAST_DRAWS = 100  # of a chain, below which R-hat is mostly noise and is not asked
STUCK = 0.5  # share of a chain's draws that equal the one before
DIVERGING = 0.01  # share of divergent transitions
MOST_VALUES = 2_000_000  # draws x elements that are looked at


class ConvergenceWarning(UserWarning):
    """Draws were returned, but they may not be draws of the posterior."""


def troubles(values: Mapping[str, Tensor], stats: Mapping[str, Tensor]) -> list[str]:
    """What speaks against draws, one line each; empty if nothing.

    Args:
        values: Site -> draws ``(chains, draws, ...)``.
        stats: Sampler statistics, name -> ``(chains, draws)``.

    Source: Vehtari, Gelman, Simpson, Carpenter & Buerkner, "Rank-normalization, folding, and localization: an improved
    R-hat for assessing convergence of MCMC", Bayesian Analysis 2021.
    """
    chains, draws = next(iter(values.values())).shape[:2]
    if draws < 4:
        return []
    found, apart, stuck = [], [], set()
    for name, value in values.items():
        flat = value.detach().cpu().double().reshape(chains, draws, -1)
        flat = flat[:, :, : max(1, MOST_VALUES // (chains * draws))]
        still = (flat[:, 1:] == flat[:, :-1]).all(2).double().mean(1)
        if bool((flat != flat[:, :1]).any()):
            stuck |= {int(chain) for chain in (still > STUCK).nonzero()[:, 0]}
        if (
            chains > 1
            and draws >= LEAST_DRAWS
            and bool(torch.isfinite(flat).all())
            and bool((flat.flatten(0, 1).std(0) > 0).all())
        ):
            worst = float(np.max(arviz.function_diagnostics(flat).rhat))
            if worst > RHAT + RHAT_NOISE / draws:
                apart.append((worst, name))
    if apart:
        apart.sort(reverse=True)
        said = ", ".join(f"{name!r} (R-hat {worst:.2f})" for worst, name in apart[:5])
        found.append(f"chains disagree about {said}")
    if stuck:
        found.append(f"{len(stuck)} of {chains} chains stood still for more than half of their draws")
    if "diverging" in stats and float(stats["diverging"].double().mean()) > DIVERGING:
        share = float(stats["diverging"].double().mean())
        found.append(f"{share:.1%} of the transitions diverged, so that narrow regions (a funnel) are left out")
    return found
