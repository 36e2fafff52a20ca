r"""Optima as differentiable functions of what they depend on: Newton by conjugate gradients, and the adjoint.

At :math:`\phi^*(u) = \arg\min_\phi J(\phi, u)` the gradient of an outer loss :math:`L(\phi^*(u))` is

.. math:: \frac{dL}{du} = -\frac{\partial}{\partial u} \left( v' \nabla_\phi J(\phi^*, u) \right), \qquad
          \nabla^2_{\phi\phi} J\, v = \nabla_\phi L,

v by conjugate gradients on exact Hessian-vector products. Exact at a converged optimum; unrolling 200 gradient steps
was wrong by 0.2 to 1.1 in relative terms.

Source: Lorraine, Vicol & Duvenaud, "Optimizing millions of hyperparameters by implicit differentiation", AISTATS 2020;
Martens, "Deep learning via Hessian-free optimization", ICML 2010 (Newton by conjugate gradients).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

NEWTON_STEPS, CG_STEPS = 60, 250
CONVERGED = 1e-14  # nats: Newton's own estimate of what is left to gain
HALVINGS = 30
Linear = Callable[[Tensor], Tensor]


def minimum(function: Callable[[Tensor], Tensor], start: Tensor, precondition: Linear) -> tuple[Tensor, float]:
    """Minimises a smooth function of a flat vector by Newton's method, its steps by conjugate gradients.

    Args:
        function: ``(n,)`` -> zero-dimensional, nats, twice differentiable.
        start: ``(n,)``.
        precondition: Approximate inverse Hessian times a vector.

    Returns:
        The minimum and what Newton's model says is left to gain there, nats (infinite: no progress was possible).
    """
    point, left = start.detach(), math.inf
    value, gradient, product = _expansion(function, point)
    for _ in range(NEWTON_STEPS):
        step = conjugate_gradients(product, -gradient, precondition, relative=min(0.1, max(1e-10, left)))
        descent = float(step @ gradient)
        if not descent < 0:
            step = -precondition(gradient)
            descent = float(step @ gradient)
        left = -0.5 * descent
        if left < CONVERGED * max(1.0, abs(value)):
            # An outer loss changes in first order with what is still missing, 1e-7 of an sd: this step is taken too.
            return point + step, left
        scale = 1.0
        for _ in range(HALVINGS):
            trial = point + scale * step
            with torch.no_grad():
                reached = float(function(trial))
            # Rounding hides gains below 1e-13 of the value: a full step is taken there.
            if reached <= value + 1e-4 * scale * descent + 1e-13 * abs(value):
                break
            scale /= 2
        else:
            break
        point = trial
        value, gradient, product = _expansion(function, point)
    return point, left


def adjoint(function: Callable[[Tensor], Tensor], point: Tensor, right: Tensor, precondition: Linear) -> Tensor:
    """Solves Hessian times v = right at a minimum."""
    return conjugate_gradients(_expansion(function, point)[2], right, precondition, relative=1e-10)


def conjugate_gradients(product: Linear, right: Tensor, precondition: Linear, *, relative: float) -> Tensor:
    """Preconditioned conjugate gradients; stops at a direction of negative curvature with what it has.

    Args:
        product: Matrix times vector, symmetric.
        right: Right-hand side ``(n,)``.
        precondition: Approximate inverse times vector, positive definite.
        relative: Relative size of the residual, in the preconditioner's norm, at which it stops.
    """
    solution, residual = torch.zeros_like(right), right
    search = scaled = precondition(residual)
    size = first = float(residual @ scaled)
    for step in range(CG_STEPS):
        if size <= relative**2 * first or size == 0:
            break
        image = product(search)
        curvature = float(search @ image)
        if curvature <= 0:
            return search if step == 0 else solution
        length = size / curvature
        solution, residual = solution + length * search, residual - length * image
        scaled = precondition(residual)
        before, size = size, float(residual @ scaled)
        search = scaled + (size / before) * search
    return solution


def _expansion(function: Callable[[Tensor], Tensor], point: Tensor) -> tuple[float, Tensor, Linear]:
    """Value, gradient and Hessian products at a point."""
    at = point.detach().clone().requires_grad_(True)
    value = function(at)
    (gradient,) = torch.autograd.grad(value, at, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(gradient, at, vector, retain_graph=True)
        return found

    return float(value.detach()), gradient.detach(), product
