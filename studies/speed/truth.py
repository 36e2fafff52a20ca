"""What the speed study compares with: exact moments of logistic regression posteriors, written from the formulas.

Importance-corrected Laplace with antithetic draws. Mean and covariance of the normal are known, so that only the
corrections are averaged: with a million rows 1,000 draws leave an error of the means below 1e-3 sds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
BLOCK = 512  # rows at a time


def rows(count: int, dim: int, seed: int = 0) -> tuple[Array, Array]:
    """Covariates (neighbours correlated at 0.5, first column 1) and outcomes, as in models.logistic_regression."""
    rng = np.random.default_rng(seed)
    steps = np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    x = rng.normal(size=(count, dim)) @ np.linalg.cholesky(0.5**steps).T
    x[:, 0] = 1
    w = rng.normal(size=dim) / 2
    return x, (rng.uniform(size=count) < 1 / (1 + np.exp(-x @ w))).astype(float)


def newton(x: Tensor, y: Tensor, weight: Tensor | float = 1.0) -> tuple[Tensor, Tensor, int]:
    """Mode ``(d,)`` and covariance ``(d, d)`` of the Laplace fit under w ~ N(0, I), and the number of steps."""
    mode, steps = x.new_zeros(x.shape[1]), 0
    while steps < 50:
        steps += 1
        p = torch.sigmoid(x @ mode)
        slope = (weight * (y - p)) @ x - mode
        precision = (x * (weight * p * (1 - p))[:, None]).T @ x + torch.eye(len(mode), dtype=x.dtype)
        move = torch.cholesky_solve(slope[:, None], torch.linalg.cholesky(precision))[:, 0]
        mode = mode + move
        if float(move @ precision @ move) < 1e-12:
            break
    return mode, torch.cholesky_inverse(torch.linalg.cholesky(precision)), steps


def log_joint(x: Tensor, y: Tensor, weight: Tensor, draws: Tensor) -> Tensor:
    """Log joint density ``(S,)`` at draws ``(S, d)``, relative to the first draw, row by row."""
    total = draws.new_zeros(len(draws))
    for xs, ys, ws in zip(x.split(BLOCK), y.split(BLOCK), weight.split(BLOCK), strict=True):
        eta = xs @ draws.T
        by_row = ys[:, None] * eta - torch.nn.functional.softplus(eta)
        total += ws @ (by_row - by_row[:, :1])
    prior = -0.5 * (draws**2).sum(1)
    return total + prior - prior[0]


def moments(x: Array, y: Array, draws: int, weight: Array | None = None, seed: int = 0) -> dict[str, Any]:
    """Exact posterior means and sds of weighted rows, and the largest standard error of both in sds."""
    xs, ys = torch.as_tensor(x), torch.as_tensor(y)
    ws = torch.ones_like(ys) if weight is None else torch.as_tensor(weight)
    mode, covariance, _ = newton(xs, ys, ws)
    factor = torch.linalg.cholesky(covariance)
    half = torch.randn(draws // 2, len(mode), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    white = torch.cat([half, -half])
    points = mode + white @ factor.T
    # The mode goes first: differences against it keep the digits.
    log_weight = log_joint(xs, ys, ws, torch.cat([mode[None], points]))[1:] + 0.5 * (white**2).sum(1)
    excess = torch.softmax(log_weight, 0) * draws - 1  # its departure from one
    pairs = excess.reshape(2, -1)
    shift = (pairs[0, :, None] * half - pairs[1, :, None] * half) / 2
    mean = mode + factor @ shift.mean(0)
    sds = covariance.diagonal().sqrt()
    centred = points - mode
    squares = (excess[:, None] * centred**2).reshape(2, -1, len(mode)).mean(0)
    variance = covariance.diagonal() + squares.mean(0) - (mean - mode) ** 2
    root = (draws // 2) ** 0.5
    return {
        "mean": mean.tolist(),
        "sd": variance.sqrt().tolist(),
        "mean_se": float(((shift @ factor.T).std(0) / root / sds).max()),
        "sd_se": float((squares.std(0) / root / sds**2 / 2).max()),
    }
