r"""Logistic regression: a yes-or-no outcome against standardised covariates.

.. math:: w \sim N(0, I_d), \qquad y_n \mid x_n, w \sim \mathrm{Bernoulli}(1 / (1 + \exp(-x_n^\top w))).

Covariates are standardised (first column 1). The unit prior says that one standard deviation of a covariate multiplies
the odds by a factor between 1/7 and 7, with 95% probability, and keeps the posterior proper where the classes separate.
"""

import numpy as np
import pyro
import pyro.distributions as dist
from torch import Tensor

from bayesdd.task.task import Task


def model(x: Tensor, y: Tensor | None = None) -> Tensor:
    """x: (N, d) standardised covariates, first column 1.  y: (N,) outcomes, 0 or 1."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def task(rows: int = 10_000, dim: int = 10, seed: int = 0) -> Task:
    """Simulated outcomes; neighbouring covariates are correlated (0.5 per step), as measured ones are."""
    rng = np.random.default_rng(seed)
    steps = np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    x = rng.normal(size=(rows, dim)) @ np.linalg.cholesky(0.5**steps).T
    x[:, 0] = 1
    w = rng.normal(size=dim) / 2
    return Task(model, {"x": x, "y": (rng.uniform(size=rows) < 1 / (1 + np.exp(-x @ w))).astype(float)})
