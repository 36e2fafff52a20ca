r"""The standard problems of Bayesian physics-informed networks, all with the solution ``sin^3(6 x)`` on [-0.7, 0.7].

Linear: ``0.01 u'' = f``. Nonlinear: ``0.01 u'' + k tanh u = f``, k = 0.7; the inverse problem infers k from
measurements of u besides. What is measured: the right side f at equidistant sensors, u at both ends, with noise.

Source: Yang, Meng & Karniadakis, "B-PINNs: Bayesian physics-informed neural networks for forward and inverse PDE
problems with noisy data", Journal of Computational Physics 2021, sections 3.2.1, 3.2.2 and 3.3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bayesdd.networks.mlp import Jet
from bayesdd.pinn.equation import Columns, Family, columns, ends

END = 0.7
DIFFUSION = 0.01


def _u(x: Tensor) -> Tensor:
    return torch.sin(6 * x) ** 3


def _curvature(x: Tensor) -> Tensor:
    s, c = torch.sin(6 * x), torch.cos(6 * x)
    return 108 * s * (2 * c**2 - s**2)


def _left(x: Tensor, alpha: Tensor, u: Jet, parameters: Mapping[str, Tensor | float]) -> Tensor:
    return DIFFUSION * u.second[0] + parameters["k"] * torch.tanh(u.u)


NONLINEAR = Family(
    name="nonlinear Poisson",
    x=((-END, END),),
    alpha=None,
    residual=_left,
    boundary=ends(
        lambda alpha: _u(torch.full_like(alpha, -END)), lambda alpha: _u(torch.full_like(alpha, END)), (-END, END)
    ),
    exact=lambda x, alpha: _u(x[:, 0]),
    source=lambda x, alpha: DIFFUSION * _curvature(x[:, 0]) + 0.7 * torch.tanh(_u(x[:, 0])),
    parameters={"k": 0.7},
)
LINEAR = replace(
    NONLINEAR,
    name="linear Poisson",
    source=lambda x, alpha: DIFFUSION * _curvature(x[:, 0]),
    parameters={"k": 0.0},
)


def sensors(family: Family, count: int, noise: float, seed: int, *, source: bool = True) -> Columns:
    """Noisy measurements y of the right side (or of u, with ``source=False``) at equidistant points, ends included.

    ``family`` is LINEAR or NONLINEAR, ``noise`` a standard deviation.
    """
    x = torch.linspace(-END, END, count, dtype=torch.float64)[:, None]
    nothing = torch.zeros(count, dtype=torch.float64)
    truth = family.source(x, nothing) if source else family.exact(x, nothing)
    error = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return columns(family, x, nothing, truth + noise * error)
