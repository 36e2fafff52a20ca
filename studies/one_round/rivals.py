"""What the rivals make of one message from each source, and the posteriors that they are compared with, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logsumexp
from scipy.stats import multivariate_t

from models import logistic_regression, poisson_regression
from studies.shared import densities
from studies.shared.true_kl import TAILS, Array, Posterior

DRAWS = 2000  # of the importance sampling

Rows = tuple[Array, Array]  # x (N, P) and y (N,)


class Normal(NamedTuple):
    """A posterior: mean ``(P,)`` and precision ``(P, P)``."""

    mean: Array
    precision: Array


class Sampled(NamedTuple):
    """A posterior: draws ``(S, P)``, its log density there ``(S,)``, and their weights ``(S,)``, which add up to 1."""

    theta: Array
    log_density: Array
    weight: Array


class Family(NamedTuple):
    """A regression with prior N(0, I): Pyro's model, its posterior in NumPy, mean and variance of y given x'w."""

    name: str
    model: Callable[..., Any]
    posterior: Callable[[Array, Array, Array], Posterior]
    mean: Callable[[Array], Array]
    variance: Callable[[Array], Array]
    scale: float  # sd of simulated coefficients


LOGISTIC = Family("logistic", logistic_regression.model, densities.logistic, expit, lambda t: expit(t) * expit(-t), 0.5)
POISSON = Family("Poisson", poisson_regression.model, densities.poisson, np.exp, np.exp, 0.3)


def fitted(family: Family, rows: Rows, share: float = 1.0) -> Normal:
    """Mode and curvature of the posterior under a power of the prior, by Newton's method with halved steps.

    Raises:
        ArithmeticError: It did not converge.
    """
    x, y = rows
    log_joint = _log_joint(family, rows, share)
    w = np.zeros(x.shape[1])
    for _ in range(100):
        t = x @ w
        precision = (x.T * family.variance(t)) @ x + share * np.eye(len(w))
        slope = x.T @ (y - family.mean(t)) - share * w
        step = np.linalg.solve(precision, slope)
        if slope @ step < 1e-18:
            return Normal(w, precision)
        reached = log_joint(w + 0.5 ** np.arange(12)[:, None] * step)
        w = w + 0.5 ** int(np.argmax(reached)) * step if slope @ step > 1e-6 else w + step
    raise ArithmeticError("Newton's method found no mode")


def bfi(sources: Sequence[Normal], prior: Array, priors: Sequence[Array]) -> Normal:
    """Bayesian federated inference.

    Args:
        sources: Mode theta_l and A_l, minus the Hessian of the log posterior there, of each source.
        prior: Precision Lambda of the prior of all rows, whose mean is 0.
        priors: Precision Lambda_l of each source's.
    """
    curvature: Array = np.sum([one.precision for one in sources], axis=0)
    precision = curvature + prior - np.sum(priors, axis=0)
    return Normal(_solved(precision, sources), precision)


def by_rows(sources: Sequence[Normal], sizes: Sequence[int]) -> Normal:
    """Mean of the modes, weighted by numbers of rows."""
    share = np.array(sizes) / sum(sizes)
    covariances = np.array([np.linalg.inv(one.precision) for one in sources])
    mean: Array = share @ np.array([one.mean for one in sources])
    precision: Array = np.linalg.inv(np.einsum("l,lab->ab", share**2, covariances))
    return Normal(mean, precision)


def by_variance(sources: Sequence[Normal]) -> Normal:
    """Fixed-effect meta-analysis of each coefficient by itself."""
    weight = 1 / np.array([np.diag(np.linalg.inv(one.precision)) for one in sources])
    mean = (weight * np.array([one.mean for one in sources])).sum(0) / weight.sum(0)
    return Normal(mean, np.diag(weight.sum(0)))


def consensus(sources: Sequence[Normal]) -> Normal:
    """Mean and covariance of averaged draws, from the moments of each source's posterior."""
    nothing = np.zeros_like(sources[0].precision)
    return bfi(sources, nothing, [nothing])


def sampled(family: Family, rows: Rows, share: float, seed: int) -> Sampled:
    """A posterior under a power of the prior by importance sampling, from a Student-t at its mode."""
    mode = fitted(family, rows, share)
    root, rng = np.linalg.cholesky(np.linalg.inv(mode.precision)), np.random.default_rng(seed)
    white = rng.normal(size=(DRAWS, len(root))) * np.sqrt(TAILS / rng.chisquare(TAILS, size=(DRAWS, 1)))
    theta = mode.mean + white @ root.T
    student = multivariate_t(mode.mean, root @ root.T, df=TAILS).logpdf(theta)
    log_joint = _log_joint(family, rows, share)(theta)
    total = float(logsumexp(log_joint - student))
    return Sampled(theta, log_joint - total + math.log(DRAWS), np.exp(log_joint - student - total))


def moments(of: Sampled) -> Normal:
    """Mean and precision."""
    mean: Array = of.weight @ of.theta
    covariance: Array = np.einsum("s,sa,sb->ab", of.weight, of.theta - mean, of.theta - mean)
    precision: Array = np.linalg.inv(covariance)  # type: ignore[assignment]  # of inv, in NumPy
    return Normal(mean, precision)


def _log_joint(family: Family, rows: Rows, share: float) -> Callable[[Array], Array]:
    log_joint = family.posterior(*rows, np.ones(len(rows[1]))).log_joint
    return lambda w: log_joint(w) + (1 - share) * (w**2).sum(1) / 2


def _solved(precision: Array, sources: Sequence[Normal]) -> Array:
    mean: Array = np.linalg.solve(precision, np.sum([one.precision @ one.mean for one in sources], axis=0))
    return mean
