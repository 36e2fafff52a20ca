r"""Families with a closed form: four nonlinear in their boundary parameter and an affine control.

Ranges of alpha keep the solutions of order one and their layers wide enough for a small network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bayesdd.networks.mlp import Jet
from bayesdd.pinn.equation import Boundary, Family, ends

Exact = Callable[[Tensor, Tensor], Tensor]
Parameters = Mapping[str, Tensor | float]


def _cubic_exact(x: Tensor, alpha: Tensor) -> Tensor:
    return alpha / (1 + alpha * x[:, 0])


def _cubic(x: Tensor, alpha: Tensor, u: Jet, parameters: Parameters) -> Tensor:
    return u.second[0] - 2 * u.u**3


CUBIC = Family(
    name="u'' = 2 u^3",
    x=((0.0, 1.0),),
    alpha=(0.1, 1.9),
    residual=_cubic,
    boundary=ends(lambda alpha: alpha, lambda alpha: alpha / (1 + alpha), (0.0, 1.0)),
    exact=_cubic_exact,
)
"""u(0) = alpha, u(1) = alpha / (1 + alpha): no forcing, smooth."""


def _steady(alpha: Tensor, x: Tensor | float) -> Tensor:
    return -alpha * torch.tanh(alpha * x / 0.4)


def _steady_burgers(x: Tensor, alpha: Tensor, u: Jet, parameters: Parameters) -> Tensor:
    return u.u * u.first[0] - parameters["nu"] * u.second[0]


STEADY_BURGERS = Family(
    name="steady Burgers",
    x=((-1.0, 1.0),),
    alpha=(0.1, 1.3),
    residual=_steady_burgers,
    boundary=ends(lambda alpha: _steady(alpha, -1.0), lambda alpha: _steady(alpha, 1.0), (-1.0, 1.0)),
    exact=lambda x, alpha: _steady(alpha, x[:, 0]),
    parameters={"nu": 0.2},
)
"""u u' = nu u'' between u(-1) > 0 and u(1) < 0: a layer of width nu / alpha."""


def _wave(x: Tensor, alpha: Tensor) -> Tensor:
    return (1 + alpha * torch.exp((x[:, 0] - 5 * x[:, 1] / math.sqrt(6)) / math.sqrt(6))) ** -2


def _fisher(x: Tensor, alpha: Tensor, u: Jet, parameters: Parameters) -> Tensor:
    return u.first[1] - u.second[0] - u.u * (1 - u.u)


def _initial_and_sides(exact: Exact, low: float, high: float, time: float, initial: int, side: int) -> Boundary:
    """Values at random points of the initial line and of both sides, for every alpha anew."""

    def boundary(alpha: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        unit = torch.rand(len(alpha), initial + 2 * side, generator=generator, dtype=torch.float64)
        place = torch.cat([low + (high - low) * unit[:, :initial], torch.full_like(unit[:, :side], low)], 1)
        place = torch.cat([place, torch.full_like(unit[:, :side], high)], 1)
        when = torch.cat([torch.zeros_like(unit[:, :initial]), time * unit[:, initial:]], 1)
        points = torch.stack([place, when], -1)
        each = alpha.repeat_interleave(points.shape[1])
        return points, exact(points.flatten(0, 1), each).reshape(len(alpha), -1)

    return boundary


FISHER_KPP = Family(
    name="Fisher-KPP",
    x=((-3.0, 3.0), (0.0, 1.0)),
    alpha=(0.1, 1.9),
    residual=_fisher,
    boundary=_initial_and_sides(_wave, -3.0, 3.0, 1.0, 8, 4),
    exact=_wave,
)
"""u_t = u_xx + u (1 - u): Ablowitz & Zeppetella's travelling wave, alpha its place at the start."""

_NU = 0.1


def _cole_hopf(x: Tensor, alpha: Tensor) -> Tensor:
    decayed = alpha * torch.exp(-(math.pi**2) * _NU * x[:, 1])
    angle = math.pi * x[:, 0]
    return 2 * _NU * math.pi * decayed * torch.sin(angle) / (1 + decayed * torch.cos(angle))


def _burgers(x: Tensor, alpha: Tensor, u: Jet, parameters: Parameters) -> Tensor:
    return u.first[1] + u.u * u.first[0] - parameters["nu"] * u.second[0]


BURGERS = Family(
    name="Burgers",
    x=((0.0, 1.0), (0.0, 1.0)),
    alpha=(-0.9, 0.9),
    residual=_burgers,
    boundary=_initial_and_sides(_cole_hopf, 0.0, 1.0, 1.0, 8, 4),
    exact=_cole_hopf,
    parameters={"nu": _NU},
)
"""u_t + u u_x = nu u_xx, u = 0 at both sides, by Cole and Hopf's transform; alpha shapes the start."""

_K = 5.0


def _standing(x: Tensor, alpha: Tensor) -> Tensor:
    return (alpha * torch.sin(_K * (1 - x[:, 0])) + torch.sin(_K * x[:, 0])) / math.sin(_K)


def _helmholtz(x: Tensor, alpha: Tensor, u: Jet, parameters: Parameters) -> Tensor:
    return u.second[0] + parameters["k"] ** 2 * u.u


HELMHOLTZ = Family(
    name="Helmholtz (affine)",
    x=((0.0, 1.0),),
    alpha=(-1.5, 1.5),
    residual=_helmholtz,
    boundary=ends(lambda alpha: alpha, torch.ones_like, (0.0, 1.0)),
    exact=_standing,
    parameters={"k": _K},
    nonlinear_in_alpha=False,
)
"""u'' + k^2 u = 0, u(0) = alpha, u(1) = 1: the control, affine in alpha."""
