r"""Helmholtz's equation: a standing wave between a boundary value alpha and one.

.. math:: u'' + k^2 u = 0, \quad u(0) = \alpha, \quad u(1) = 1, \qquad
          u(x) = \frac{\alpha \sin(k (1 - x)) + \sin(k x)}{\sin k}, \quad k = 5.

The control among the families: its solution is affine in alpha, so that a model that is affine in alpha has no error
at boundary values that were never measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bayesdd.networks.mlp import Jet
from bayesdd.pinn.equation import Family, ends

K = 5.0


def solution(x: Tensor, alpha: Tensor) -> Tensor:
    """The solution at x ``(N, 1)`` and alpha ``(N,)``."""
    return (alpha * torch.sin(K * (1 - x[:, 0])) + torch.sin(K * x[:, 0])) / math.sin(K)


def residual(x: Tensor, alpha: Tensor, u: Jet, parameters: Mapping[str, Tensor | float]) -> Tensor:
    """The left side, u'' + k^2 u."""
    return u.second[0] + parameters["k"] ** 2 * u.u


HELMHOLTZ = Family(
    name="Helmholtz (affine)",
    x=((0.0, 1.0),),
    alpha=(-1.5, 1.5),
    residual=residual,
    boundary=ends(lambda alpha: alpha, torch.ones_like, (0.0, 1.0)),
    exact=solution,
    parameters={"k": K},
    nonlinear_in_alpha=False,
)
