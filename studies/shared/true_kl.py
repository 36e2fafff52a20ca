r"""True KL divergences between a full and a distilled posterior, sharing no code with bayesdd's certificate.

Models are written out in NumPy, from their formulas (``densities.py``); their modes and curvatures are found by
Newton's method on finite differences. One set of draws from an even mixture of two Student-t distributions, one at the
mode of each posterior, serves both directions and both normalisers:

.. math:: KL(p, q) = E_p[\log\tilde p - \log\tilde q] - \log(Z_p / Z_q),

with expectations and normalisers by importance sampling. Where the posteriors are close, errors of the two terms cancel
draw by draw: the standard error is of the order of the KL itself over the root of the draws. Where they are far apart,
the mixture still covers both, so that nothing saturates at the log of the number of draws.
A KL does not depend on coordinates: positive parameters are taken by their logs, coefficients in any linear basis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]
TAILS = 8.0  # degrees of freedom of the proposal
LEAST = 500.0  # effective draws of either posterior below which nothing was measured


@dataclass(frozen=True)
class Posterior:
    """An unnormalised posterior.

    Attributes:
        log_joint: Draws ``(S, P)`` to log density, nats, ``(S,)``.
        conditional: Means and precisions ``(S, K)`` of K independent Gaussian coordinates, given a draw, that
            ``log_joint`` has integrated out; None if there are none.
    """

    log_joint: Callable[[Array], Array]
    conditional: Callable[[Array], tuple[Array, Array]] | None = None


@dataclass(frozen=True)
class Divergences:
    """Both KLs with standard errors, and the KL(distilled, full) between the two Laplace fits; all in nats.

    ``theta`` are the draws ``(S, P)``, ``log_p`` and ``log_q`` the logs of their normalised weights ``(S,)`` under the
    full and the distilled posterior, for whatever else is to be averaged over either.
    """

    reverse: float
    reverse_se: float
    forward: float
    forward_se: float
    laplace: float
    log_normalisers: float = math.nan
    theta: Array = field(default_factory=lambda: np.empty((0, 0)), repr=False, compare=False)
    log_p: Array = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    log_q: Array = field(default_factory=lambda: np.empty(0), repr=False, compare=False)


@dataclass(frozen=True)
class Known:
    """What belongs to a full posterior alone, for comparing many distilled ones with it.

    Attributes:
        fit: Its mode ``(P,)`` and root ``(P, P)``.
        theta: The draws around it, ``(S / 2, P)``.
        log_joint: Its log density there, ``(S / 2,)``.
        log_weight: Logs of their normalised weights, ``(S / 2,)``.
    """

    fit: tuple[Array, Array]
    theta: Array
    log_joint: Array
    log_weight: Array


def prepared(full: Posterior, start: Array, *, draws: int = 20_000, seed: int = 0) -> Known:
    """The part of ``between`` that does not depend on the distilled posterior; draws and seed must be the same there.

    Raises:
        ArithmeticError: No mode was found.
    """
    fit = laplace(full.log_joint, start)
    theta = _student(np.random.default_rng(seed), *fit, (draws + 1) // 2)
    log_joint = full.log_joint(theta)
    log_weight = log_joint - _student_log_density(theta, *fit)
    return Known(fit, theta, log_joint, log_weight - logsumexp(log_weight))


def between(
    full: Posterior,
    distilled: Posterior,
    start: Array,
    *,
    draws: int = 20_000,
    seed: int = 0,
    known: Known | None = None,
) -> Divergences:
    """Both KL divergences between two posteriors on the same coordinates.

    Args:
        full: The full posterior p.
        distilled: The distilled posterior q.
        start: Where the searches for modes begin, ``(P,)``.
        draws: Draws from the mixture.
        seed: Seed.
        known: ``prepared(full, ...)`` with the same draws and seed: saves a search and half of the full log densities.

    Raises:
        ArithmeticError: A mode was not found, or fewer than 500 of the draws count for one of the posteriors.
    """
    fits = [laplace(full.log_joint, start) if known is None else known.fit, laplace(distilled.log_joint, start)]
    rng = np.random.default_rng(seed)
    proposals = [_student(rng, mean, root, (draws + 1) // 2) for mean, root in fits]
    theta = np.concatenate(proposals)
    log_m = logsumexp([_student_log_density(theta, mean, root) for mean, root in fits], axis=0) - math.log(2)
    old, new = ([], theta) if known is None else ([known.log_joint], proposals[1])
    log_p = np.concatenate([*old, full.log_joint(new)])
    log_q = distilled.log_joint(theta)
    for name, log_density in (("full", log_p), ("distilled", log_q)):
        effective = math.exp(2 * logsumexp(log_density - log_m) - logsumexp(2 * (log_density - log_m)))
        if not effective > LEAST:
            raise ArithmeticError(f"importance sampling of the {name} posterior kept {effective:.0f} effective draws")
    inside_p, inside_q = _conditional_kls(full, distilled, theta)
    forward, forward_se, ratio = _divergence(log_p, log_q, log_m, inside_p)
    reverse, reverse_se, _ = _divergence(log_q, log_p, log_m, inside_q)
    weights = [log - log_m - logsumexp(log - log_m) for log in (log_p, log_q)]
    closeness = gaussian_kl(fits[1], fits[0])
    return Divergences(reverse, reverse_se, forward, forward_se, closeness, ratio, theta, *weights)


def _divergence(log_p: Array, log_q: Array, log_m: Array, inside: Array | float) -> tuple[float, float, float]:
    """KL(p, q), its standard error, and log(Z_p / Z_q), from draws of m."""
    delta = log_p - log_q
    p, q = (np.exp(d - log_m - logsumexp(d - log_m)) * len(delta) for d in (log_p, log_q))
    ratio = float(logsumexp(log_p - log_m) - logsumexp(log_q - log_m))
    payoff = delta - ratio + inside
    value = float((p * payoff).mean())
    influence = p * (payoff - value) - p + q
    return value, float(influence.std() / math.sqrt(len(delta))), ratio


def _conditional_kls(full: Posterior, distilled: Posterior, theta: Array) -> tuple[Array | float, Array | float]:
    """KL in both directions between the coordinates that were integrated out, given each draw, ``(S,)``."""
    if full.conditional is None or distilled.conditional is None:
        return 0.0, 0.0
    (mean_p, prec_p), (mean_q, prec_q) = full.conditional(theta), distilled.conditional(theta)
    square, ratio = (mean_p - mean_q) ** 2, prec_q / prec_p
    forward = (ratio - 1 - np.log(ratio) + prec_q * square).sum(1) / 2
    reverse = (1 / ratio - 1 + np.log(ratio) + prec_p * square).sum(1) / 2
    return forward, reverse


def laplace(log_joint: Callable[[Array], Array], start: Array) -> tuple[Array, Array]:
    """Mode ``(P,)`` and a root ``(P, P)`` of the inverse curvature there, by Newton steps on finite differences.

    Raises:
        ArithmeticError: No mode with definite curvature was found.
    """
    centre, root = np.array(start, dtype=float), np.eye(len(start)) * 0.05
    trial_steps = np.array([1.0, 2.0, *0.5 ** np.arange(1, 20)])
    for _ in range(100):
        gradient, curvature = _differences(partial(_moved, log_joint, centre, root), len(start))
        values, vectors = np.linalg.eigh(curvature)
        along = vectors.T @ gradient
        direction = root @ (vectors @ (along / np.maximum(np.abs(values), 1e-6)))
        reached = log_joint(centre + trial_steps[:, None] * direction)
        best = int(np.nanargmax(np.where(np.isfinite(reached), reached, -np.inf)))
        centre = centre + trial_steps[best] * direction
        if values[0] > 0.01:
            root = root @ (vectors / np.sqrt(values))
            if (along**2 / values).sum() < 1e-6:
                return centre, root
        else:
            root = root @ (vectors / np.sqrt(np.maximum(np.abs(values), 0.01)))
    raise ArithmeticError("no mode with definite curvature was found; the Laplace proposal cannot be built")


def _moved(log_joint: Callable[[Array], Array], centre: Array, root: Array, white: Array) -> Array:
    return log_joint(centre + white @ root.T)


def _differences(function: Callable[[Array], Array], dim: int, step: float = 0.1) -> tuple[Array, Array]:
    """Gradient and minus Hessian at zero by central differences, all points in one batch."""
    unit = np.eye(dim) * step
    first, second = np.triu_indices(dim, 1)
    points = [np.zeros((1, dim)), unit, -unit]
    points += [a * unit[first] + b * unit[second] for a in (1, -1) for b in (1, -1)]
    value = function(np.concatenate(points))
    centre, up, down = value[0], value[1 : 1 + dim], value[1 + dim : 1 + 2 * dim]
    corner = value[1 + 2 * dim :].reshape(4, -1)
    hessian = np.diag((up - 2 * centre + down) / step**2)
    hessian[first, second] = (corner[0] - corner[1] - corner[2] + corner[3]) / (4 * step**2)
    hessian[second, first] = hessian[first, second]
    return (up - down) / (2 * step), -hessian


def _student(rng: np.random.Generator, mean: Array, root: Array, count: int) -> Array:
    scale = np.sqrt(TAILS / rng.chisquare(TAILS, size=(count, 1)))
    return mean + scale * rng.normal(size=(count, len(mean))) @ root.T


def _student_log_density(theta: Array, mean: Array, root: Array) -> Array:
    white = np.linalg.solve(root, (theta - mean).T)
    dim = len(mean)
    norm = math.lgamma((TAILS + dim) / 2) - math.lgamma(TAILS / 2) - dim / 2 * math.log(TAILS * math.pi)
    log_det = float(np.linalg.slogdet(root)[1])
    return norm - log_det - (TAILS + dim) / 2 * np.log1p((white**2).sum(0) / TAILS)


def gaussian_kl(p: tuple[Array, Array], q: tuple[Array, Array]) -> float:
    """KL(p, q) of two Gaussians given as mean and root of the covariance, nats."""
    ratio = np.linalg.solve(q[1], p[1])
    shift = np.linalg.solve(q[1], p[0] - q[0])
    singular = np.linalg.svd(ratio, compute_uv=False)
    return float(((singular**2 - 1) - 2 * np.log(singular)).sum() + (shift**2).sum()) / 2
