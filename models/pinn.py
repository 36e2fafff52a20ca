r"""Measurements of u'' = 2 u^3 between boundary values that depend on alpha, for a physics-informed surrogate.

.. math:: y_n \mid x_n, \alpha_n \sim N(u(x_n, \alpha_n), \sigma^2), \qquad \sigma \sim \mathrm{LogNormal}(\log 0.1, 1),

u a network of x and alpha with the prior of ``bayesdd.networks.mlp``; solutions are of order one, as is that prior.
This is the first of three tasks of a target: ``bayesdd.pinn.target`` adds the equation and the boundary values. The
solution itself is known: :mod:`models.pde_cubic`.
"""

from __future__ import annotations

from bayesdd import pinn
from bayesdd.pinn import equation
from bayesdd.task.task import Task
from models.pde_cubic import CUBIC


def task(rows: int = 200, seed: int = 0) -> Task:
    """Simulated measurements with noise 0.1; the boundary parameter lies in the upper tail of its distribution."""
    return pinn.measurements(CUBIC, equation.measured(CUBIC, rows, seed=seed))
