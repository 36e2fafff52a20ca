r"""A cubic equation without forcing: u'' = 2 u^3 between two boundary values.

.. math:: u'' = 2 u^3, \quad u(0) = \alpha, \quad u(1) = \frac{\alpha}{1 + \alpha}, \qquad
          u(x) = \frac{\alpha}{1 + \alpha x}.

The exact solution is smooth and of order one for alpha between 0.1 and 1.9, and far from affine in alpha.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from bayesdd.networks.mlp import Jet
from bayesdd.pinn.equation import Family, ends


def solution(x: Tensor, alpha: Tensor) -> Tensor:
    """The solution at x ``(N, 1)`` and alpha ``(N,)``."""
    return alpha / (1 + alpha * x[:, 0])


def residual(x: Tensor, alpha: Tensor, u: Jet, parameters: Mapping[str, Tensor | float]) -> Tensor:
    """The left side, u'' - 2 u^3."""
    return u.second[0] - 2 * u.u**3


CUBIC = Family(
    name="u'' = 2 u^3",
    x=((0.0, 1.0),),
    alpha=(0.1, 1.9),
    residual=residual,
    boundary=ends(lambda alpha: alpha, lambda alpha: alpha / (1 + alpha), (0.0, 1.0)),
    exact=solution,
)
