"""Problems whose boundary values depend on alpha, with their solutions: in closed form, or by SciPy's solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_bvp

from bayesdd import pinn

VISCOSITY = 0.2


def reaction_diffusion() -> pinn.Problem:
    """Steady reaction and diffusion; the right side grows with u, so that the solution is unique."""
    return pinn.Problem(
        inputs={"x": (-1.0, 1.0)},
        parameters={"alpha": (-1.5, 1.5)},
        outputs=("u",),
        equation=lambda s, p: 0.1 * s.u_xx - s.u**3 - torch.sin(3 * s.x),
        conditions=[pinn.at(x=-1.0, u=lambda s, p: s.alpha), pinn.at(x=1.0, u=lambda s, p: -s.alpha / 2)],
        exact=_solved,
    )


def cubic() -> pinn.Problem:
    """U'' = 2 u^3, whose solutions are hyperbolas."""
    return pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        parameters={"alpha": (0.1, 1.9)},
        outputs=("u",),
        equation=lambda s, p: s.u_xx - 2 * s.u**3,
        conditions=[pinn.at(x=0.0, u=lambda s, p: s.alpha), pinn.at(x=1.0, u=lambda s, p: s.alpha / (1 + s.alpha))],
        exact=lambda s: s.alpha / (1 + s.alpha * s.x),
    )


def steady_burgers() -> pinn.Problem:
    """Steady flow between opposite velocities, with a layer between them that narrows as they grow."""

    def exact(s: Any) -> torch.Tensor:
        return -s.alpha * torch.tanh(s.alpha * s.x / (2 * VISCOSITY))

    return pinn.Problem(
        inputs={"x": (-1.0, 1.0)},
        parameters={"alpha": (0.1, 1.3)},
        outputs=("u",),
        equation=lambda s, p: s.u * s.u_x - VISCOSITY * s.u_xx,
        conditions=[pinn.at(x=(-1.0, 1.0), u=lambda s, p: exact(s))],
        exact=exact,
    )


def _solved(s: Any) -> np.ndarray:
    """Reaction and diffusion at each alpha by itself."""
    x, alpha, found = s.x.numpy(), s.alpha.numpy(), np.empty(len(s.x))
    start = np.linspace(-1, 1, 101)
    for value in np.unique(alpha):
        here = alpha == value
        line = np.stack([value * (1 - 3 * start) / 4, np.full_like(start, -0.75 * value)])

        def ends(left: np.ndarray, right: np.ndarray, value: float = value) -> np.ndarray:
            return np.array([left[0] - value, right[0] + value / 2])

        solution = solve_bvp(
            lambda x, y: np.stack([y[1], (y[0] ** 3 + np.sin(3 * x)) / 0.1]),
            ends,
            start,
            line,
            tol=1e-8,
            max_nodes=10_000,
        )
        if not solution.success:
            raise ArithmeticError(f"reaction-diffusion at alpha = {value:g} was not solved: {solution.message}")
        found[here] = solution.sol(x[here])[0]
    return found


FAMILIES: dict[str, Callable[[], pinn.Problem]] = {
    "reaction-diffusion": reaction_diffusion,
    "cubic": cubic,
    "steady-burgers": steady_burgers,
}
