"""Posteriors of the models in NumPy, written from their formulas: weighted rows in, unnormalised log densities out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from studies.shared.true_kl import Array, Posterior

BLOCK = 2**18  # draws x rows at a time: the block stays in cache


def _by_blocks(function: Callable[[Array], Array], theta: Array, rows: int) -> Array:
    return np.concatenate([function(part) for part in np.array_split(theta, max(1, len(theta) * rows // BLOCK))])


def logistic(x: Array, y: Array, weight: Array) -> Posterior:
    """Logistic regression: w ~ N(0, I), y ~ Bernoulli(logits=x'w); y between 0 and 1 is a share of successes."""
    successes = (weight * y) @ x

    def block(w: Array) -> Array:
        logits = x @ w.T
        softplus = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))
        return w @ successes - weight @ softplus - (w**2).sum(1) / 2

    return Posterior(lambda w: _by_blocks(block, w, len(x)))


def poisson(x: Array, y: Array, weight: Array) -> Posterior:
    """Poisson regression: w ~ N(0, I), y ~ Poisson(exp(x'w)); the factorials cancel in every posterior."""
    counts = (weight * y) @ x

    def block(w: Array) -> Array:
        return w @ counts - weight @ np.exp(x @ w.T) - (w**2).sum(1) / 2

    return Posterior(lambda w: _by_blocks(block, w, len(x)))


def gaussian_mixture(y: Array, weight: Array) -> Posterior:
    r"""The model of models/gaussian_mixture.py; draws ``(a, log g, log s_1, log s_2, logit pi)``.

    Log-normal priors are normal in the logs; beta(2, 2) times the logit's Jacobian is ``(pi (1 - pi))^2``.
    """

    def block(theta: Array) -> Array:
        lower, log_gap, log_spread, logit = theta[:, 0], theta[:, 1], theta[:, 2:4], theta[:, 4]
        log_share = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        centres = lower, lower + np.exp(log_gap)
        first, second = (
            log_share[k] - log_spread[:, k] - ((y[:, None] - centres[k]) * np.exp(-log_spread[:, k])) ** 2 / 2
            for k in (0, 1)
        )
        by_row = np.maximum(first, second) + np.log1p(np.exp(-np.abs(first - second)))
        log_prior = -((lower / 3) ** 2) / 2 - 2 * (log_gap - 1) ** 2 - 2 * (log_spread**2).sum(1)
        return weight @ by_row + log_prior + 2 * (log_share[0] + log_share[1])

    return Posterior(lambda theta: _by_blocks(block, theta, len(y)))


def normal(
    x: Array, y: Array, weight: Array, log_prior: Callable[[Array, Array], Array], basis: Array | None = None
) -> Posterior:
    """Linear regression: y ~ N(x'b, sigma^2), draws ``(c, log sigma)`` with ``b = basis @ c``.

    Args:
        x: Design, ``(N, d)``.
        y: Outcomes, ``(N,)``.
        weight: Weights of the rows, ``(N,)``.
        log_prior: Coefficients ``(S, d)`` and sigma ``(S,)`` to their log prior density, ``(S,)``.
        basis: ``(d, d)``; default the identity. Raw covariates need one, or differences of their log density drown.
    """
    basis = np.eye(x.shape[1]) if basis is None else basis
    design = x @ basis
    # Residuals about the weighted fit keep the squares free of cancellation.
    root = np.sqrt(weight)
    centre = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
    residual = y - design @ centre
    gram, cross, square, total = (
        (design.T * weight) @ design,
        (design.T * weight) @ residual,
        weight @ residual**2,
        weight.sum(),
    )

    def log_joint(draws: Array) -> Array:
        c, log_sigma = draws[:, :-1], draws[:, -1]
        shift = c - centre
        squares = ((shift @ gram) * shift).sum(1) - 2 * shift @ cross + square
        log_likelihood = -total * log_sigma - squares / (2 * np.exp(2 * log_sigma))
        return log_likelihood + log_prior(c @ basis.T, np.exp(log_sigma)) + log_sigma

    return Posterior(log_joint)


def varying_intercepts(group: NDArray[np.int64], x: Array, y: Array, weight: Array, groups: int) -> Posterior:
    r"""The model of models/varying_intercepts.py, its intercepts integrated out.

    With 105 parameters importance sampling at the mode fails. But given ``(mu, log tau, log sigma, w)`` the intercepts
    of both posteriors are independent Gaussians, whatever the rows and weights:

    .. math:: z_j \mid \cdot \sim N(\tau S_{1j} / (\sigma^2 \lambda_j), 1 / \lambda_j), \quad
              \lambda_j = 1 + \tau^2 S_{0j} / \sigma^2, \quad S_{kj} = \sum_{n: g_n = j} \omega_n r_n^k

    with residuals ``r = y - mu - x'w``. So the KL is that of the marginals of 3 + d parameters, which are sampled, plus
    the mean over them of the KLs of these Gaussians, which are exact.
    """
    a = np.column_stack([np.ones(len(x)), x])
    count = np.bincount(group, weight, groups)
    sums = np.stack([np.bincount(group, weight * column, groups) for column in (y, *a.T)])
    gram, cross, square = (a.T * weight) @ a, (a.T * weight) @ y, weight @ y**2

    def parts(draws: Array) -> tuple[Array, Array, Array, Array, Array]:
        b = np.concatenate([draws[:, :1], draws[:, 3:]], 1)
        tau, sigma = np.exp(draws[:, 1:2]), np.exp(draws[:, 2:3])
        precision = 1 + tau**2 * count / sigma**2
        return b, tau, sigma, precision, tau * (sums[0] - b @ sums[1:]) / sigma**2

    def log_joint(draws: Array) -> Array:
        b, tau, sigma, precision, pull = parts(draws)
        squares = ((b @ gram) * b).sum(1) - 2 * b @ cross + square
        integrated = (pull**2 / precision - np.log(precision)).sum(1) / 2
        log_likelihood = -weight.sum() * draws[:, 2] - squares / (2 * sigma[:, 0] ** 2) + integrated
        log_prior = -((b**2).sum(1) + tau[:, 0] ** 2 + sigma[:, 0] ** 2) / 2 + draws[:, 1] + draws[:, 2]
        return log_likelihood + log_prior

    def conditional(draws: Array) -> tuple[Array, Array]:
        *_, precision, pull = parts(draws)
        return pull / precision, precision

    return Posterior(log_joint, conditional)
