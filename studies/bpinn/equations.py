r"""The standard problems of Bayesian physics-informed networks, all with the solution ``sin^3(6 x)`` on [-0.7, 0.7].

Linear: ``0.01 u'' = f``. Nonlinear: ``0.01 u'' + k tanh u = f``, k = 0.7; the inverse problem infers k from
measurements of u besides. What is measured: the right side f at equidistant sensors, u at both ends, with noise.

Source: Yang, Meng & Karniadakis, "B-PINNs: Bayesian physics-informed neural networks for forward and inverse PDE
problems with noisy data", Journal of Computational Physics 2021, sections 3.2.1, 3.2.2 and 3.3.1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bayesdd import pinn
from bayesdd.networks.mlp import Network
from bayesdd.pinn import tasks
from bayesdd.pinn.residuals import Networks
from bayesdd.pinn.terms import Term, equation_term, field_term
from bayesdd.task.task import Task

END, DIFFUSION, K = 0.7, 0.01, 0.7


def exact(x: Tensor) -> Tensor:
    """The solution."""
    return torch.sin(6 * x) ** 3


def right_side(x: Tensor, k: float) -> Tensor:
    """What sensors of f measure."""
    s, c = torch.sin(6 * x), torch.cos(6 * x)
    return DIFFUSION * 108 * s * (2 * c**2 - s**2) + k * torch.tanh(exact(x))


def problem(*, linear: bool, inverse: bool) -> pinn.Problem:
    """The equation's left side; measurements of its right side are what it is compared with."""
    known = {} if inverse else {"k": 0.0 if linear else K}
    return pinn.Problem(
        inputs={"x": (-END, END)},
        outputs=("u",),
        equation=lambda s, p: DIFFUSION * s.u_xx + p.k * torch.tanh(s.u),
        constants=known,
        unknown={"k": (0.5, 1.0)} if inverse else {},
    )


def target(made: pinn.Problem, width: int, *, sensors: int, inside: int, noise: float) -> tuple[list[Task], Network]:
    """The target; weights and biases N(0, 1) in the paper's coordinates (x itself, not x / 0.7)."""
    net = Network((0.0,), (END,), (width, width), (END, width**0.5, width**0.5))
    networks = Networks(made, net, {})
    k = float(made.constants.get("k", K))
    x = torch.linspace(-END, END, sensors, dtype=torch.float64)
    f = _noisy(right_side(x, k), noise, seed=0)
    # Inverse problems: u is measured inside too; values at the ends always have noise 0.01.
    ends = torch.tensor([-END, END], dtype=torch.float64)
    terms: list[tuple[Term, float]] = [
        (replace(equation_term(made, {"x": x}), observed=f[:, None]), noise),
        (field_term(made, ["u"], {"x": ends}, _noisy(exact(ends), 0.01, seed=1)[:, None]), 0.01),
    ]
    if inside:
        some = torch.linspace(-END, END, inside, dtype=torch.float64)
        u = _noisy(exact(some), noise, seed=2)[1:-1]
        terms.append((field_term(made, ["u"], {"x": some[1:-1]}, u[:, None]), noise))
    return [tasks.task(networks, term, torch.tensor([sd])) for term, sd in terms], net


def _noisy(truth: Tensor, noise: float, seed: int) -> Any:
    return truth + noise * torch.randn(len(truth), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
