r"""Bayesian network regression: a curve or surface of unknown form through noisy outcomes.

.. math:: u \sim \text{network prior}, \quad \sigma \sim \mathrm{LogNormal}(\log 0.1, 1), \quad
          y_n \mid x_n \sim N(u(x_n), \sigma^2).

The network and its prior: :mod:`bayesdd.networks.mlp`. The prior of the noise is for outcomes of order one, measured
with an error between a few per cent of that and all of it; bind a known noise by ``functools.partial(model,
noise=0.1)``. It is also the student of targets of :mod:`bayesdd.pinn`: the same sites without the equation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor

from bayesdd.networks import mlp as nets
from bayesdd.networks.mlp import Network
from bayesdd.task.kinds import Kind
from bayesdd.task.task import Task


def model(
    x: Tensor, alpha: Tensor | float = 0.0, y: Tensor | None = None, *, network: Network, noise: float | None = None
) -> Tensor:
    """Sites ``weight_0``, ``bias_0``, ... and, where ``noise`` is not given, ``noise`` ().

    Args:
        x: Inputs, shape ``(N, d)``.
        alpha: One more input of a network that has d + 1, shape ``(N,)``: a boundary parameter.
        y: Outcomes, shape ``(N,)``.
        network: Shape and prior.
        noise: Known standard deviation of the outcomes, or None.

    Returns:
        The outcomes, shape ``(N,)``.
    """
    layers = nets.sample(network)
    sigma = scale("noise", 0.1) if noise is None else noise
    u = nets.value(network, layers, nets.inputs(network, x, alpha))
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(u, sigma), obs=y)


def scale(name: str, typical: float) -> Tensor:
    """Latent standard deviation, within a factor of seven of a typical one with 95% probability."""
    return pyro.sample(name, dist.LogNormal(math.log(typical), 1.0))


def student(
    data: Mapping[str, Any],
    *,
    network: Network,
    noise: float | None = None,
    kinds: Mapping[str, Kind] | None = None,
) -> Task:
    """The plain network on rows ``x`` (N, d), ``y`` (N,) and, with d + 1 inputs, ``alpha`` (N,); see Task for kinds."""
    return Task(partial(model, network=network, noise=noise), data, kinds=kinds or {})
