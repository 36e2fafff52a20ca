r"""Steady reaction and diffusion, ``0.1 u'' = u^3 + sin(3 x)``, u(-1) = alpha, u(1) = -alpha / 2.

The right side grows with u, so that the solution is unique; it has no closed form. It is solved once for all by
collocation (:func:`scipy.integrate.solve_bvp`) at Chebyshev points of alpha, and held as a polynomial in x and alpha:
differentiable, and checked against the equation like every closed form.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev
from scipy.integrate import solve_bvp
from torch import Tensor

from bayesdd.pinn.equation import Family, ends

DIFFUSION = 0.1
ALPHA = 1.5
DEGREE_X, DEGREE_ALPHA = 36, 20
SOLVED = 1e-10  # relative residual that the solver is asked for


def solve(alpha: float) -> Any:
    """The boundary-value solver's own solution at one alpha; ``.sol(x)[0]`` is u."""

    def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([y[1], (y[0] ** 3 + np.sin(3 * x)) / DIFFUSION])

    def jacobian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        zero, one = np.zeros_like(x), np.ones_like(x)
        return np.array([[zero, one], [3 * y[0] ** 2 / DIFFUSION, zero]])

    def ends_of(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.array([left[0] - alpha, right[0] + alpha / 2])

    x = np.linspace(-1, 1, 201)
    line = alpha * (1 - x) / 2 - alpha / 2 * (1 + x) / 2
    start = np.stack([line, np.full_like(x, -0.75 * alpha)])
    found = solve_bvp(slope, ends_of, x, start, fun_jac=jacobian, tol=SOLVED, max_nodes=50_000)
    if not found.success:
        raise ArithmeticError(f"reaction-diffusion at alpha = {alpha:g} was not solved: {found.message}")
    return found


@functools.cache
def coefficients() -> Tensor:
    """Chebyshev coefficients of u in x and alpha / 1.5, shape ``(DEGREE_X + 1, DEGREE_ALPHA + 1)``."""
    x, alpha = chebyshev.chebpts1(DEGREE_X + 1), chebyshev.chebpts1(DEGREE_ALPHA + 1)
    values = np.stack([solve(ALPHA * a).sol(x)[0] for a in alpha], 1)
    by_x = np.linalg.solve(chebyshev.chebvander(x, DEGREE_X), values)
    both = np.linalg.solve(chebyshev.chebvander(alpha, DEGREE_ALPHA), by_x.T).T
    return torch.from_numpy(np.ascontiguousarray(both))


def _exact(x: Tensor, alpha: Tensor) -> Tensor:
    c = coefficients().to(x)
    in_x, in_alpha = _polynomials(x[:, 0], DEGREE_X), _polynomials(alpha / ALPHA, DEGREE_ALPHA)
    return ((in_x @ c) * in_alpha).sum(1)


def _polynomials(s: Tensor, degree: int) -> Tensor:
    """Chebyshev polynomials ``(N, degree + 1)`` by their recurrence: the cosine form has no derivative at the ends."""
    found = [torch.ones_like(s), s]
    for _ in range(degree - 1):
        found.append(2 * s * found[-1] - found[-2])
    return torch.stack(found, 1)


REACTION_DIFFUSION = Family(
    name="reaction-diffusion",
    x=((-1.0, 1.0),),
    alpha=(-ALPHA, ALPHA),
    residual=lambda x, alpha, u, parameters: DIFFUSION * u.second[0] - u.u**3 - torch.sin(3 * x[:, 0]),
    boundary=ends(lambda alpha: alpha, lambda alpha: -alpha / 2, (-1.0, 1.0)),
    exact=_exact,
    tolerance=1e-6,  # the solver's ten digits, differentiated twice
)
