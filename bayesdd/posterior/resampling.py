"""Weighted draws to equally weighted ones; draws of a distilled set corrected to the posterior given all rows."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from bayesdd.data.certificate import CertificateWarning
from bayesdd.density.density import Density
from bayesdd.inference import Draws
from bayesdd.numerics.pareto import KHAT_LIMIT, khat


def resampled(found: Draws, seed: int) -> Draws:
    """Importance-weighted draws resampled to equal weight, in their order; draws without weights as they are.

    Systematic: a draw of weight w (mean 1) is taken floor(w) or ceil(w) times, so that nearly equal weights add hardly
    any noise. The error of what follows is that of importance sampling.

    Source: Kitagawa, "Monte Carlo filter and smoother for non-Gaussian nonlinear state space models", Journal of
    Computational and Graphical Statistics 1996.
    """
    if found.log_weight is None:
        return found
    probability = torch.softmax(found.flat_log_weight.cpu(), 0)
    count = len(probability)
    offset = torch.rand((), generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    wanted = (torch.arange(count) + offset) / count
    picked = torch.searchsorted(probability.cumsum(0), wanted).clamp_max(count - 1).to(found.values.device)

    def taken(value: Tensor) -> Tensor:
        return value.flatten(0, 1)[picked.to(value.device)].reshape(value.shape)

    return Draws(taken(found.values), None, {name: taken(value) for name, value in found.stats.items()})


def corrected(found: Draws, full: Density, distilled: Density) -> tuple[Draws, dict[str, Any]]:
    r"""Draws of a distilled posterior with the importance weights :math:`\exp \Delta` of the full one; one sweep.

    Returns:
        The weighted draws, and their ``khat`` and effective sample size ``ess``.

    Warns:
        CertificateWarning: k-hat is above 0.7: the draws do not reach the full posterior.
    """
    ratio = full.sweep(found.flat) - distilled.sweep(found.flat)
    log_weight = (ratio + found.flat_log_weight).nan_to_num(nan=-torch.inf)
    shape, weight = khat(log_weight)[0], torch.softmax(log_weight, 0)
    if shape > KHAT_LIMIT:
        warnings.warn(
            f"draws of the distilled set cannot be corrected to all rows: k-hat {shape:.2f} is above {KHAT_LIMIT}; "
            "distil with more rows, or draw more",
            CertificateWarning,
            stacklevel=4,
        )
    found = Draws(found.values, log_weight.reshape(found.values.shape[:2]), found.stats)
    return found, {"corrected_khat": shape, "corrected_ess": float(1 / weight.square().sum())}
