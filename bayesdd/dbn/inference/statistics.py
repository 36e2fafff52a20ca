r"""What the closed-form forward KL needs of a posterior: the means of the conjugate family's sufficient statistics.

Linear-Gaussian, family by family: :math:`E[1/\sigma^2], E[\beta/\sigma^2], E[\beta\beta'/\sigma^2], E[\log \sigma^2]`;
categorical: :math:`E[\log \theta]`, cell by cell. Data augmentation gives each in closed form given the completed rows
(Rao-Blackwell), which leaves the noise of the completions only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bayesdd.dbn.inference.regressions import Regressions


class Statistics(NamedTuple):
    """Means under a posterior, F families, k coefficients, padding 0.

    Attributes:
        precision: E[1 / variance] ``(F,)``.
        scaled: E[coefficients / variance] ``(F, k)``.
        products: E[coefficients coefficients' / variance] ``(F, k, k)``.
        log_variance: E[log variance] ``(F,)``.
    """

    precision: Tensor
    scaled: Tensor
    products: Tensor
    log_variance: Tensor


def of_draws(slopes: Tensor, variance: Tensor) -> Statistics:
    """From draws: coefficients ``(S, F, k)`` and variances ``(S, F)``."""
    precision = 1 / variance
    scaled = slopes * precision[..., None]
    return Statistics(
        precision.mean(0),
        scaled.mean(0),
        torch.einsum("sfi,sfj->fij", scaled, slopes) / len(slopes),
        variance.log().mean(0),
    )


def of_regressions(found: Regressions, real: Tensor) -> Statistics:
    """In closed form under normal-inverse-gammas ``(C, F, ...)``, summed over the first axis."""
    precision = found.shape / found.scale
    scaled = precision[..., None] * found.mean
    both = real[:, :, None] & real[:, None, :]
    spread = torch.where(both, torch.cholesky_inverse(found.root), 0.0)
    products = scaled[..., :, None] * found.mean[..., None, :] + spread
    log_variance = found.scale.log() - torch.digamma(found.shape)
    return Statistics(precision.sum(0), scaled.sum(0), products.sum(0), log_variance.sum(0))
