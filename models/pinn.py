"""A physics-informed surrogate: measurements of u'' = 2 u^3 between boundary values that depend on alpha.

y_n ~ N(u(x_n, alpha_n), sigma^2), u a network; the equation and its boundary values: ``bayesdd.pinn``.
"""

from __future__ import annotations

from bayesdd import pinn
from bayesdd.pinn import equation
from bayesdd.task.task import Task
from models.pde_cubic import CUBIC


def task(rows: int = 200, seed: int = 0) -> Task:
    """Measurements of u'' = 2 u^3 with noise 0.1, boundary parameter in its upper tail: what a study starts from."""
    return pinn.measurements(CUBIC, equation.measured(CUBIC, rows, seed=seed))
