"""Small tasks that several parts share."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
from torch import Tensor

import bayesdd


def linear(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Two coefficients, noise known."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def logistic(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Two coefficients of a logistic regression."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def counts(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Two coefficients of a Poisson regression, of counts that stay moderate."""
    w = pyro.sample("w", dist.Normal(0.0, 0.5).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Poisson((1.0 + x @ w).exp()), obs=y)


def regression(rows: int, seed: int = 0) -> bayesdd.Task:
    """Linear regression on simulated rows."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(rows), rng.normal(size=rows)])
    return bayesdd.Task(linear, {"x": x, "y": x @ [0.5, -0.5] + rng.normal(size=rows)})


def classes(rows: int, seed: int = 0) -> bayesdd.Task:
    """Logistic regression on simulated rows."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(rows), rng.normal(size=rows)])
    return bayesdd.Task(logistic, {"x": x, "y": (rng.uniform(size=rows) < 1 / (1 + np.exp(-x @ [0.3, 0.8]))) * 1.0})


def visits(rows: int, seed: int = 0) -> bayesdd.Task:
    """Poisson regression on simulated rows."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(rows), rng.normal(size=rows)])
    return bayesdd.Task(counts, {"x": x, "y": rng.poisson(np.exp(1.0 + x @ [0.2, -0.3])).astype(float)})
