r"""Categorical (softmax) regression: one of K outcomes against standardised covariates.

.. math::
    w_k \sim N(0, I_d) \ (k = 1, \dots, K - 1), \quad w_0 = 0, \qquad
    P(y_n = k \mid x_n, w) = \frac{\exp(x_n^\top w_k)}{\sum_j \exp(x_n^\top w_j)}.

Class 0 is the reference: with K free columns a vector added to all of them changes no probability, and the prior alone
would hold d directions. Covariates are standardised (first column 1), so the unit prior says that one standard
deviation of a covariate multiplies the odds of class k against class 0 by a factor between 1/7 and 7, with 95%
probability.
"""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import pad

from bayesdd.task.task import Task

CLASSES = 3


def model(x: Tensor, y: Tensor | None = None, *, classes: int) -> Tensor:
    """One site, ``w``: (d, K - 1).

    Args:
        x: Standardised covariates, first column 1, shape ``(N, d)``.
        y: Classes, integers from 0 to K - 1, shape ``(N,)``; simulated if left out.
        classes: Number of classes K, bound by ``functools.partial(model, classes=3)``.

    Returns:
        The classes, shape ``(N,)``.
    """
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1], classes - 1]).to_event(2))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Categorical(logits=pad(x @ w, (1, 0))), obs=y)


def task(rows: int = 10_000, dim: int = 5, seed: int = 0) -> Task:
    """Simulated outcomes in three classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, dim))
    x[:, 0] = 1
    utility = np.column_stack([np.zeros(rows), x @ rng.normal(size=(dim, CLASSES - 1))])
    y = (utility + rng.gumbel(size=utility.shape)).argmax(1)
    return Task(partial(model, classes=CLASSES), {"x": x, "y": y})
