r"""Mixture of two Gaussians, the memberships summed out.

.. math::
    a \sim N(0, 3^2), \quad g \sim \mathrm{LogNormal}(1, 0.5^2), \quad s_1, s_2 \sim \mathrm{LogNormal}(0, 0.5^2),
    \quad \pi \sim \mathrm{Beta}(2, 2), \\
    y_n \mid \cdot \sim \pi N(a, s_1^2) + (1 - \pi) N(a + g, s_2^2).

The outcome is in units of a component's typical spread, about one. The positive gap g orders the means, so that the
posterior has one labelling. Log-normal priors vanish at zero: they keep the gap from closing, which would leave the
labels free again, and a spread from collapsing onto one row, where the likelihood has no bound. The beta prior keeps
either component from emptying.
"""

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesdd.task.task import Task


def model(y: Tensor | None = None, *, rows: int = 1) -> Tensor:
    """Sites ``lower`` (), ``gap`` (), ``spread`` (2,) and ``share`` (), the share of the lower component.

    Args:
        y: Outcomes, shape ``(N,)``; simulated if left out.
        rows: Number of rows to simulate where ``y`` is left out.

    Returns:
        The outcomes, shape ``(N,)``.
    """
    lower = pyro.sample("lower", dist.Normal(0.0, 3.0))
    gap = pyro.sample("gap", dist.LogNormal(1.0, 0.5))
    spread = pyro.sample("spread", dist.LogNormal(0.0, 0.5).expand([2]).to_event(1))
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    components = dist.Normal(torch.stack([lower, lower + gap]), spread)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.stack([share, 1 - share])), components)
    with pyro.plate("data", rows if y is None else len(y)):
        return pyro.sample("y", mixture, obs=y)


def task(rows: int = 10_000, seed: int = 0) -> Task:
    """Simulated outcomes: 0.3 N(-1, 0.7^2) + 0.7 N(1.5, 1), which overlap but show two shoulders."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(size=rows) < 0.3
    return Task(model, {"y": np.where(low, -1.0, 1.5) + np.where(low, 0.7, 1.0) * rng.normal(size=rows)})
