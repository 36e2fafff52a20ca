r"""Burgers' equation of viscous flow: u is a velocity, nu the viscosity.

.. math:: u_t + u u_x = \nu u_{xx}, \qquad
          u(x, t) = \frac{2 \nu \pi a \sin \pi x}{1 + a \cos \pi x}, \quad a = \alpha e^{-\pi^2 \nu t}

(Cole and Hopf's transform): at rest at both ends of [0, 1], alpha shapes the start. And steady, between velocities of
opposite signs at -1 and 1, with a layer of width nu / alpha between them:

.. math:: u u' = \nu u'', \qquad u(x) = -\alpha \tanh\left( \frac{\alpha x}{2 \nu} \right).

The ranges of alpha keep solutions of order one and the layer wide enough for a small network.

Source: Cole, "On a quasi-linear parabolic equation occurring in aerodynamics", Quarterly of Applied Mathematics 1951.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bayesdd.networks.mlp import Jet
from bayesdd.pinn.equation import Family, ends, initial_and_sides

NU, NU_STEADY = 0.1, 0.2


def solution(x: Tensor, alpha: Tensor) -> Tensor:
    """The solution at places and times x ``(N, 2)`` and alpha ``(N,)``."""
    decayed = alpha * torch.exp(-(math.pi**2) * NU * x[:, 1])
    angle = math.pi * x[:, 0]
    return 2 * NU * math.pi * decayed * torch.sin(angle) / (1 + decayed * torch.cos(angle))


def residual(x: Tensor, alpha: Tensor, u: Jet, parameters: Mapping[str, Tensor | float]) -> Tensor:
    """The left side, u_t + u u_x - nu u_xx."""
    return u.first[1] + u.u * u.first[0] - parameters["nu"] * u.second[0]


def steady_solution(x: Tensor | float, alpha: Tensor) -> Tensor:
    """The steady solution at places x ``(N,)`` and alpha ``(N,)``."""
    return -alpha * torch.tanh(alpha * x / (2 * NU_STEADY))


def steady_residual(x: Tensor, alpha: Tensor, u: Jet, parameters: Mapping[str, Tensor | float]) -> Tensor:
    """The left side, u u' - nu u''."""
    return u.u * u.first[0] - parameters["nu"] * u.second[0]


BURGERS = Family(
    name="Burgers",
    x=((0.0, 1.0), (0.0, 1.0)),
    alpha=(-0.9, 0.9),
    residual=residual,
    boundary=initial_and_sides(solution, (0.0, 1.0), 1.0, initial=8, side=4),
    exact=solution,
    parameters={"nu": NU},
)
STEADY_BURGERS = Family(
    name="steady Burgers",
    x=((-1.0, 1.0),),
    alpha=(0.1, 1.3),
    residual=steady_residual,
    boundary=ends(lambda alpha: steady_solution(-1.0, alpha), lambda alpha: steady_solution(1.0, alpha), (-1.0, 1.0)),
    exact=lambda x, alpha: steady_solution(x[:, 0], alpha),
    parameters={"nu": NU_STEADY},
)
