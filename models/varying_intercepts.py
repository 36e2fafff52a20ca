r"""Varying intercepts: an outcome measured in groups (schools, hospitals, counties), with partial pooling.

.. math::
    \mu \sim N(0, 1), \quad \tau, \sigma \sim \mathrm{HalfNormal}(1), \quad w \sim N(0, I_d), \quad
    z_j \sim N(0, 1), \\
    y_n \mid \cdot \sim N(\mu + \tau z_{g_n} + x_n^\top w, \sigma^2).

Outcome and covariates are standardised, so effects, the spread between groups and the spread within one are all about
one at most. The intercepts are written non-centred, ``tau z``: centred ones have a funnel whose density rises without
bound as tau goes to zero, and no mode to start from.
"""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
from torch import Tensor

from bayesdd.task.task import Task

GROUPS = 100


def model(group: Tensor, x: Tensor, y: Tensor | None = None, *, groups: int) -> Tensor:
    """Sites ``mu`` (), ``tau`` (), ``sigma`` (), ``w`` (d,) and ``z`` (groups,).

    Args:
        group: Index of each row's group, integers below ``groups``, shape ``(N,)``.
        x: Standardised covariates, no constant among them, shape ``(N, d)``.
        y: Standardised outcomes, shape ``(N,)``; simulated if left out.
        groups: Number of groups, a property of the study and not of the rows at hand: bind it by
            ``functools.partial(model, groups=100)``. A group without rows keeps its prior.

    Returns:
        The outcomes, shape ``(N,)``.
    """
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([groups]).to_event(1))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(mu + tau * z[group] + x @ w, sigma), obs=y)


def task(rows: int = 10_000, dim: int = 2, seed: int = 0) -> Task:
    """Simulated outcomes in 100 groups of unequal size: intercepts spread by 0.5 around 0.2, noise 0.8."""
    rng = np.random.default_rng(seed)
    group = rng.choice(GROUPS, size=rows, p=rng.dirichlet(np.full(GROUPS, 5.0)))
    x = rng.normal(size=(rows, dim))
    mean = 0.2 + 0.5 * rng.normal(size=GROUPS)[group] + x @ (rng.normal(size=dim) / 2)
    return Task(partial(model, groups=GROUPS), {"group": group, "x": x, "y": mean + 0.8 * rng.normal(size=rows)})
