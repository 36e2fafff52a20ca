r"""Bayesian network regression of four inputs: a surface of unknown form through noisy outcomes.

.. math:: y_n \mid x_n \sim N(u(x_n), \sigma^2), \qquad \sigma \sim \mathrm{LogNormal}(\log 0.1, 1),

u a network of two hidden layers with the prior of ``bayesdd.networks.mlp``: functions drawn from it have a spread of
1.5 to 2 and turn over a few times in [-1, 1]. Outcomes are of order one, and the prior of the noise covers 0.014 to 0.7 with 95% probability. Weights are not identified, and there is no
exact answer: what can be compared is what the network predicts.
"""

from __future__ import annotations

import numpy as np

from bayesdd.networks import bnn
from bayesdd.networks.mlp import Network
from bayesdd.task.task import Task

INPUTS = 4
NOISE = 0.1  # standard deviation of the simulated outcomes about their surface


def task(rows: int = 1000, hidden: tuple[int, ...] = (16, 16), seed: int = 0) -> Task:
    """Simulated outcomes of four inputs on [-1, 1], noise 0.1: sin(3 x0) + x1 x2 - x3^2 / 2."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(rows, INPUTS))
    y = surface(x) + NOISE * rng.normal(size=rows)
    return bnn.student({"x": x, "y": y}, network=Network((0.0,) * INPUTS, (1.0,) * INPUTS, hidden))


def surface(x: np.ndarray) -> np.ndarray:
    """The simulated outcomes without their noise, x of shape ``(N, 4)``."""
    return np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] - x[:, 3] ** 2 / 2
