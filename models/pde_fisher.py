r"""Fisher's equation of growth and diffusion (Fisher-KPP): a travelling wave.

.. math:: u_t = u_{xx} + u (1 - u), \qquad u(x, t) = \left( 1 + \alpha e^{(x - 5 t / \sqrt 6) / \sqrt 6} \right)^{-2}.

u is a share of what the ground can carry; alpha says where the wave stands at t = 0. Known are values at the start and
at both ends of [-3, 3], up to t = 1.

Source: Ablowitz & Zeppetella, "Explicit solutions of Fisher's equation for a special wave speed", Bulletin of
Mathematical Biology 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bayesdd.networks.mlp import Jet
from bayesdd.pinn.equation import Family, initial_and_sides

X, TIME = (-3.0, 3.0), 1.0


def solution(x: Tensor, alpha: Tensor) -> Tensor:
    """The solution at places and times x ``(N, 2)`` and alpha ``(N,)``."""
    return (1 + alpha * torch.exp((x[:, 0] - 5 * x[:, 1] / math.sqrt(6)) / math.sqrt(6))) ** -2


def residual(x: Tensor, alpha: Tensor, u: Jet, parameters: Mapping[str, Tensor | float]) -> Tensor:
    """The left side, u_t - u_xx - u (1 - u)."""
    return u.first[1] - u.second[0] - u.u * (1 - u.u)


FISHER_KPP = Family(
    name="Fisher-KPP",
    x=(X, (0.0, TIME)),
    alpha=(0.1, 1.9),
    residual=residual,
    boundary=initial_and_sides(solution, X, TIME, initial=8, side=4),
    exact=solution,
)
