"""Seven problems whose boundary values depend on alpha, with their solutions: in closed form, or by SciPy's solvers.

Closed forms: Cole, "On a quasi-linear parabolic equation occurring in aerodynamics", Quarterly of Applied Mathematics
1951 (Burgers); Ablowitz & Zeppetella, "Explicit solutions of Fisher's equation for a special wave speed", Bulletin of
Mathematical Biology 1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_bvp, solve_ivp

from bayesdd import pinn

VISCOSITY, THIN = 0.2, 0.1
K = 5.0  # of the standing wave


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


def burgers() -> pinn.Problem:
    """Flow that comes to rest, at rest at both ends; alpha shapes its start."""

    def exact(s: Any) -> torch.Tensor:
        decayed = s.alpha * torch.exp(-(math.pi**2) * THIN * s.t)
        angle = math.pi * s.x
        return 2 * THIN * math.pi * decayed * torch.sin(angle) / (1 + decayed * torch.cos(angle))

    return pinn.Problem(
        inputs={"x": (0.0, 1.0), "t": (0.0, 1.0)},
        parameters={"alpha": (-0.9, 0.9)},
        outputs=("u",),
        equation=lambda s, p: s.u_t + s.u * s.u_x - THIN * s.u_xx,
        conditions=[pinn.at(t=0.0, u=lambda s, p: exact(s)), pinn.at(x=(0.0, 1.0), u=0.0)],
        exact=exact,
    )


def fisher_kpp() -> pinn.Problem:
    """Growth and diffusion: a wave that travels, and alpha says where it stands at first."""

    def exact(s: Any) -> torch.Tensor:
        return (1 + s.alpha * torch.exp((s.x - 5 * s.t / math.sqrt(6)) / math.sqrt(6))) ** -2

    return pinn.Problem(
        inputs={"x": (-3.0, 3.0), "t": (0.0, 1.0)},
        parameters={"alpha": (0.1, 1.9)},
        outputs=("u",),
        equation=lambda s, p: s.u_t - s.u_xx - s.u * (1 - s.u),
        conditions=[pinn.at(t=0.0, u=lambda s, p: exact(s)), pinn.at(x=(-3.0, 3.0), u=lambda s, p: exact(s))],
        exact=exact,
    )


def helmholtz() -> pinn.Problem:
    """A standing wave between alpha and one. The control: its solution is affine in alpha."""
    return pinn.Problem(
        inputs={"x": (0.0, 1.0)},
        parameters={"alpha": (-1.5, 1.5)},
        outputs=("u",),
        equation=lambda s, p: s.u_xx + K**2 * s.u,
        conditions=[pinn.at(x=0.0, u=lambda s, p: s.alpha), pinn.at(x=1.0, u=1.0)],
        exact=lambda s: (s.alpha * torch.sin(K * (1 - s.x)) + torch.sin(K * s.x)) / math.sin(K),
    )


def pendulum() -> pinn.Problem:
    """A damped pendulum from an angle alpha."""
    return pinn.Problem(
        inputs={"t": (0.0, 6.0)},
        parameters={"alpha": (0.2, 2.6)},
        outputs=("u",),
        equation=lambda s, p: s.u_tt + 0.3 * s.u_t + torch.sin(s.u),
        conditions=[pinn.at(t=0.0, u=lambda s, p: s.alpha, u_t=0.0)],
        exact=_swung,
    )


def _swung(s: Any) -> np.ndarray:
    """The pendulum from each angle by itself."""
    t, alpha, found = s.t.numpy(), s.alpha.numpy(), np.empty(len(s.t))
    for value in np.unique(alpha):
        path = solve_ivp(
            lambda t, y: [y[1], -0.3 * y[1] - np.sin(y[0])], (0, 6), [value, 0], rtol=1e-10, atol=1e-12,
            dense_output=True,
        )  # fmt: skip
        found[alpha == value] = path.sol(t[alpha == value])[0]
    return found


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
    "burgers": burgers,
    "fisher-kpp": fisher_kpp,
    "helmholtz": helmholtz,
    "pendulum": pendulum,
}
